"""Put malicious clients into a federation that knows nothing of them.

Honest clients, rules, servers and guards run as they are: a malicious client is a client of another kind, what it
sends passes where a defence would stand, and attackers who know all updates sit before the aggregation rule.
"""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn

from hcqsfl.adversarial.poisoning.attacker import Joint, Member, PoisoningAttack, Turn
from hcqsfl.federated.aggregation.flat import Flattened, Layout, stack
from hcqsfl.federated.client import Client, LocalTraining
from hcqsfl.federated.parts import Part, copy_state
from hcqsfl.federated.update import Aggregator, State, StatefulAggregator, Update
from hcqsfl.models.defence import Defence
from hcqsfl.models.learner import LabelSharingNetwork, Network
from hcqsfl.models.protocols import Setup
from hcqsfl.randomness import numpy_generator, torch_generator
from hcqsfl.registry import lookup


def draw(clients: Sequence[str], share: float, seed: int) -> tuple[str, ...]:
    """Return the clients that attack; those of a smaller share are among those of a larger one.

    Args:
        clients: all of them.
        share: how many, in [0, 0.5); at least one attacks where it is above 0.
        seed: of the draw.

    Raises:
        ValueError: ``share`` is out of range, or no honest majority would be left.
    """
    if not 0 <= share < 0.5:
        raise ValueError(f"a share of {share:g} of the clients was to attack; it must be in [0, 0.5)")
    n = max(round(share * len(clients)), int(share > 0))
    if 2 * n >= len(clients) and n:
        raise ValueError(f"{n} of {len(clients)} clients were to attack: fewer than half of them must")
    order = numpy_generator(seed, "malicious").permutation(len(clients))
    return tuple(sorted(clients)[i] for i in order[:n])


def infiltrate(
    setup: Setup, attack: PoisoningAttack, malicious: Collection[str], *, n_classes: int, seed: int, sfreq: float = 1.0
) -> None:
    """Turn some clients of a federation, before its first round, into attackers.

    The federation is to run from here to its end: what attackers remember of earlier rounds is in no checkpoint.

    Args:
        setup: the federation.
        attack: what they do.
        malicious: who; with nobody, nothing changes.
        n_classes: classes of the task.
        seed: root seed of what attackers draw.
        sfreq: samples per second.

    Raises:
        ValueError: there is no such client, or the protocol has no place where the attack could act.
    """
    federation = setup.federation
    by_name = {client.name: client for client in federation.clients}
    for name in malicious:
        lookup("client", by_name, name)
    if not malicious:
        return
    order = sorted(malicious)
    attacking: dict[str, Client] = {}
    for rank, name in enumerate(order):
        client = by_name[name]
        (part,) = [part for part in federation.parts_of(name) if part.name.partition(":")[0] == "client"]
        check(attack, client, part)
        member = Member(name, rank, len(order), len(by_name), n_classes, sfreq, seed)
        attacking[name] = turned = _turned(client, attack, member, part)
        if isinstance(turned, CarefulClient):
            turned.shared = tuple(each for each in federation.parts_of(name) if each.guard is not None)
    if "joint" in attack.places:
        for part in federation.parts:
            if part.rule == "average" and part.crosses and part.aggregator is not None:
                part.aggregator = Conspiracy(part.aggregator, attack, frozenset(order), seed)
    federation.clients = [attacking.get(client.name, client) for client in federation.clients]


def check(attack: PoisoningAttack, client: Client, part: Part) -> None:
    """Refuse an attack that has no place to act.

    Raises:
        ValueError: the message says which place is missing, and why.
    """
    kind = type(attack).__module__.rpartition(".")[2]
    cut = client.wire is not None
    shared = isinstance(client.learner, LabelSharingNetwork)
    for place in attack.places:
        why = ""
        if place in ("smashed", "gradient") and not cut:
            why = "nothing crosses a cut here"
        elif place == "gradient" and shared:
            why = "with label sharing the server makes the gradients itself"
        elif place == "update" and part.rule not in ("average", "relay"):
            why = f"clients keep their halves here (rule {part.rule}), so nobody takes their updates"
        elif place == "joint" and part.rule != "average":
            why = f"updates of a round are not aggregated here (rule {part.rule})"
        if why:
            raise ValueError(f"{kind} has no place to act: {why}")


def _turned(client: Client, attack: PoisoningAttack, member: Member, part: Part) -> "MaliciousClient":
    held = {f.name: getattr(client, f.name) for f in fields(Client)}
    kind = CarefulClient if attack.levels else MaliciousClient
    made = kind(**held, attack=attack, member=member, part=part)
    if "data" in attack.places:
        made.x, made.y = attack.data(client.x, client.y, member)
        if made.x.shape[1:] != client.x.shape[1:] or len(made.x) != len(made.y):
            raise ValueError(f"the poisoned windows of {client.name} are {tuple(made.x.shape)}")
    if {"smashed", "gradient"} & set(attack.places):
        inner = client.defence if isinstance(client.defence, Defence) else Defence()
        made.defence = lie = Lie(attack, member, inner)
        if isinstance(made.learner, Network | LabelSharingNetwork):
            made.learner.defend(lie)
    return made


NOBODY = Member("", 0, 1, 1, 1, 1.0, 0)


@dataclass(eq=False)
class MaliciousClient(Client):
    """A client that attacks.

    Attributes:
        attack: how.
        member: who it is among the attackers.
        part: that holds its half.
        bases, updates: of its last turns.
    """

    attack: PoisoningAttack = field(default_factory=PoisoningAttack)
    member: Member = NOBODY
    part: Part | None = None
    bases: tuple[Tensor, ...] = ()
    updates: tuple[Tensor, ...] = ()

    def batches(self, seed: int, number: int) -> Iterator[Tensor]:
        """Return the batches of a turn; none where the attack does not train."""
        return super().batches(seed, number) if self.attack.trains else iter(())

    def trained(self, total: float, steps: int, number: int, before: tuple[int, int]) -> LocalTraining:
        """Let the attack have the half that is handed in, once it is trained, alone or in a batch of clients."""
        result = super().trained(total, steps, number, before)
        if "update" not in self.attack.places:
            return result
        if self.part is None:
            raise RuntimeError("a malicious client needs its part")
        half, layout = self.part.modules[self.name], Layout.of(self.part.state)
        base = layout.flatten(self.part.state)  # averaged or handed on: where the turn began
        own = layout.flatten(half.state_dict()) - base
        generator = torch_generator(self.member.seed, "poison", self.name, number)
        turn = Turn(self.member, number, base, own, self.bases, self.updates, generator)
        _write(half, layout, base + self.attack.update(turn))
        keep = self.attack.remembers
        self.bases, self.updates = ((*self.bases, base)[-keep:], (*self.updates, own)[-keep:]) if keep else ((), ())
        return result


@dataclass(eq=False)
class CarefulClient(MaliciousClient):
    """A client that knows the trunk and its guard, and rehearses its turn on copies of them until it would pass.

    Attributes:
        shared: the parts that are guarded.
    """

    shared: tuple[Part, ...] = ()

    def train(self, optimizer: torch.optim.Optimizer, seed: int, number: int) -> LocalTraining:
        """Train through a turn at the first of the attack's levels that all guards would let pass, or at the last."""
        for level in self.attack.levels:
            self.attack.level = level
            if not self.shared or level == self.attack.levels[-1] or self._would_pass(optimizer, seed, number):
                break
        return super().train(optimizer, seed, number)

    def _would_pass(self, optimizer: torch.optim.Optimizer, seed: int, number: int) -> bool:
        # in one go, so that the copied wire leads to the copied trunk
        twin, own = copy.deepcopy((self, optimizer))
        before = [copy_state(part.modules[self.name]) for part in twin.shared]
        MaliciousClient.train(twin, own, seed, number)
        return all(
            part.guard is None or part.guard.share(self.name, state, copy_state(part.modules[self.name])) >= 1.0
            for part, state in zip(twin.shared, before, strict=True)
        )


@torch.no_grad()
def _write(half: nn.Module, layout: Layout, vector: Tensor) -> None:
    state = half.state_dict()
    for name, value in layout.unflatten(vector).items():
        state[name].copy_(value)


class Lie(Defence):
    """Stands where a defence would, in training alone, and sends what the attack makes of the smashed data.

    Args:
        attack: what it makes of it.
        member: whose.
        inner: the defence that every client was given.
    """

    acts_in_evaluation = False

    def __init__(self, attack: PoisoningAttack, member: Member, inner: Defence) -> None:
        super().__init__()
        self.attack, self.member = attack, member
        self._inner = (inner,)
        self.only_replaces = type(inner) is Defence
        self.generator = torch_generator(member.seed, "poison", member.client, 0)

    def begin_round(self, number: int) -> None:
        """Get ready for a round."""
        self._inner[0].begin_round(number)
        self.generator = torch_generator(self.member.seed, "poison", self.member.client, number)

    def forward(self, smashed: Tensor, x: Tensor | None = None) -> Tensor:
        """Return what is sent in place of ``smashed (b, n_smashed)``."""
        return self.attack.smashed(self._inner[0](smashed, x), self.member, self.generator)

    def penalty(self, x: Tensor, smashed: Tensor) -> Tensor | None:
        """Return what the inner defence adds to the loss."""
        return self._inner[0].penalty(x, smashed)

    def weight(self) -> float:
        """Return the weight that the inner defence gives to the loss."""
        return self._inner[0].weight()

    def labels(self, y: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the labels that the inner defence uses."""
        return self._inner[0].labels(y, x)

    def gradient(self, gradient: Tensor, y: Tensor) -> Tensor:
        """Return what is sent in place of the gradient of the features."""
        return self.attack.gradient(self._inner[0].gradient(gradient, y), self.member)


class Conspiracy:
    """Attackers who see a round's updates and choose theirs; then the server's rule takes them all.

    Args:
        rule: the server's.
        attack: how they choose.
        malicious: who they are.
        seed: of what they draw.
    """

    def __init__(self, rule: Aggregator, attack: PoisoningAttack, malicious: frozenset[str], seed: int) -> None:
        self.rule, self.attack, self.malicious, self.seed = rule, attack, malicious, seed

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        """Return the next global state."""
        own = [update for update in updates if update.client in self.malicious]
        benign = [update for update in updates if update.client not in self.malicious]
        if not own or not benign:
            return self.rule(state, updates)
        theirs, ours = stack("poisoning", state, benign), stack("poisoning", state, own)
        layout, number = theirs.layout, theirs.version + 1
        base = layout.flatten(state)
        ordered = sorted(own, key=lambda update: ours.clients.index(update.client))
        known = [Flattened.of("poisoning", state, update) for update in benign]

        def handed_in(vectors: Tensor) -> list[Update]:
            alike = bool((vectors == vectors[0]).all())
            states = [_reached(state, layout, base + vector) for vector in (vectors[:1] if alike else vectors)]
            made = [
                replace(update, state={**update.state, **reached})
                for update, reached in zip(ordered, states * (len(ordered) if alike else 1), strict=True)
            ]
            if not alike:
                return made
            vector = Flattened.of("poisoning", state, made[0]).vector  # looked at once for all
            return [Flattened(u.client, u.state, u.base_version, u.num_examples, vector) for u in made]

        def foresee(vectors: Tensor) -> Tensor:
            return layout.flatten(copy.deepcopy(self.rule)(state, [*known, *handed_in(vectors)])) - base

        generator = torch_generator(self.seed, "poison", "joint", number)
        seen = Joint(number, base, theirs.rows, ours.rows, foresee, generator)
        return self.rule(state, [*known, *handed_in(self.attack.joint(seen))])

    def tensors(self) -> dict[str, Tensor]:
        """Return what the server's rule remembers."""
        return self.rule.tensors() if isinstance(self.rule, StatefulAggregator) else {}

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        if isinstance(self.rule, StatefulAggregator):
            self.rule.load_tensors(held)


def _reached(state: State, layout: Layout, vector: Tensor) -> dict[str, Tensor]:
    """Return the floating tensors of ``vector (n_values,)``, each in the type that it has in ``state``."""
    return {name: part.to(state[name].dtype) for name, part in layout.unflatten(vector).items()}
