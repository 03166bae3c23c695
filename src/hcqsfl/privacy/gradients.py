"""What gradient inversions have in common: the network as an update found it, and what a guess would do to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.federated.update import State
from hcqsfl.models.learner import Network
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.randomness import torch_generator, torch_seeded

LARGEST = 32
"""Windows that are guessed at most; of a longer local training, so many stand for all."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One update to be inverted.

    Attributes:
        network: the whole network where the local training began, dropout off.
        observed: names of the parameters whose movement is seen, those that moved at all.
        movement: name to where it was less where it came to: with one SGD step, learning rate times gradient.
        n: windows to guess.
        steps: local steps that the guess is led through; 1 stands for all where the optimiser is none to unroll.
        learning_rate: of those steps.
        class_weights: of the loss.
        n_outputs: classes.
        guessed_trunk: whether parts of the network were not seen, and fitted to auxiliary windows instead.
    """

    network: Network
    observed: tuple[str, ...]
    movement: Mapping[str, Tensor]
    n: int
    steps: int
    learning_rate: float
    class_weights: Tensor | None
    n_outputs: int
    guessed_trunk: bool

    def moved(self, x: Tensor, soft: Tensor) -> dict[str, Tensor]:
        """Return what a local training on windows ``x (n, n_chans, n_times)`` with labels ``soft`` would move.

        Differentiable to both, through every local step and through the circuit.

        Args:
            x: windows.
            soft: ``(n, n_outputs)`` shares of the classes.
        """
        start: dict[str, Tensor] = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        held = dict(start)
        for _ in range(self.steps):
            logits = torch.func.functional_call(self.network, held, (x,))
            loss = weighted_cross_entropy(logits, soft, self.class_weights)
            slopes = torch.autograd.grad(loss, list(held.values()), create_graph=True, allow_unused=True)
            held = {
                name: p if slope is None else p - self.learning_rate * slope
                for (name, p), slope in zip(held.items(), slopes, strict=True)
            }
        return {name: start[name] - held[name] for name in self.observed}


def weighted_cross_entropy(logits: Tensor, soft: Tensor, weights: Tensor | None) -> Tensor:
    """Return the class-weighted mean cross entropy with soft labels; with hard ones it is torch's."""
    weighted = soft if weights is None else soft * weights
    return -(weighted * logits.log_softmax(dim=1)).sum() / weighted.sum()


def pose(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Problem:
    """Put together what an adversary knows of one update.

    ``Knowledge.extra`` may name the ``round`` and ``client`` (the first unless given), the ``parts`` whose movement is
    read (``client``, ``trunk``), and how many windows made it, ``n`` (what the client says it has unless given).
    Halves that the adversary does not see are fitted to its auxiliary windows first.

    Raises:
        NotApplicable: no update is seen, or not what it began from.
    """
    if not observation.updates:
        raise NotApplicable(f"{observation.threat} sees no updates: no client half is handed in under this protocol")
    number = int(knowledge.extra.get("round", min(observation.updates)))
    client = str(knowledge.extra.get("client", min(observation.updates[number])))
    parts: Sequence[str] = knowledge.extra.get("parts", ("client",))
    before = _of(observation.client_states.get(number - 1, {}), client)
    if not before:
        raise NotApplicable(f"{observation.threat} does not see what the updates of round {number} began from")
    after: dict[str, Tensor] = dict(observation.updates[number][client])
    trunk_before = _of(observation.trunk_states.get(number - 1, {}), client)
    if "trunk" in parts:
        if not trunk_before:
            raise NotApplicable(f"{observation.threat} does not see the trunk, whose movement was to be read")
        after |= _of(observation.trunk_states.get(number, {}), client)
    with torch_seeded(seed, "gradient inversion"):
        network = Network(knowledge.make_front(), knowledge.make_trunk(), knowledge.make_head())
    known = {**trunk_before, **before}
    network.load_state_dict(known, strict=False)
    network.eval()
    unseen = [name for name, _ in network.named_parameters() if name not in known]
    t = knowledge.training
    if unseen:
        _fit(network, unseen, knowledge, budget, seed)
    movement = {
        name: known[name] - after[name]
        for name, p in network.named_parameters()
        if p.requires_grad and name in after and name in known and not torch.equal(known[name], after[name])
    }
    if not movement:
        raise NotApplicable(f"the update of {client} in round {number} is where it began: nothing moved")
    plain = t.get("optimizer") == "sgd" and not t.get("momentum")
    return Problem(
        network,
        tuple(movement),
        movement,
        min(LARGEST, int(knowledge.extra.get("n", observation.examples.get(client, 1)))),
        int(t.get("local_epochs", 1)) if plain else 1,
        float(t.get("learning_rate", 0.01)),
        t.get("class_weights"),
        knowledge.n_outputs,
        bool(unseen),
    )


def label_counts(problem: Problem, knowledge: Knowledge) -> Tensor:
    """Return labels ``(n,)``, in ascending order, that fit the movement of the last layer's bias.

    The gradient of a class's bias is its mean probability less the (weighted) share of its labels. The probabilities
    are taken from the auxiliary windows. With one window the class with the lowest gradient is the label, whatever the
    probabilities.

    Raises:
        NotApplicable: the last layer is not in what the adversary reads.

    Source: Zhao, Mopuri & Bilen (2020), iDLG, section 3.1, for one window; Wainakh et al. (2022), User-level label
    leakage from gradients in federated learning, section 4, for several.
    """
    given = knowledge.extra.get("labels")
    if given is not None:
        return torch.as_tensor(given)[: problem.n]
    found = [name for name, p in problem.network.head.named_parameters() if p.shape == (problem.n_outputs,)]
    name = f"head.{found[-1]}" if found else ""
    if name not in problem.movement:
        raise NotApplicable("the head's last layer does not move in what this adversary reads, so it tells no labels")
    slope = problem.movement[name] / (problem.learning_rate * problem.steps)
    if problem.n == 1:
        return slope.argmin()[None]
    with torch.no_grad():
        mean = problem.network(knowledge.x).softmax(dim=1).mean(dim=0)
    share = (mean - slope).clamp_min(0)
    if problem.class_weights is not None:
        share = share / problem.class_weights
    share = share / share.sum().clamp_min(1e-12) * problem.n
    counts = share.floor().long()
    # what is left goes to the largest remainders
    for c in (share - counts).argsort(descending=True)[: problem.n - int(counts.sum())]:
        counts[c] += 1
    return torch.arange(problem.n_outputs).repeat_interleave(counts)


def squared_error(made: Mapping[str, Tensor], movement: Mapping[str, Tensor]) -> Tensor:
    """Return the squared distance of two movements over the squared length of the second."""
    above = torch.stack([((made[name] - m) ** 2).sum() for name, m in movement.items()]).sum()
    return above / torch.stack([(m**2).sum() for m in movement.values()]).sum()


def cosine_distance(made: Mapping[str, Tensor], movement: Mapping[str, Tensor]) -> Tensor:
    """Return one less the cosine of two movements, all parameters as one vector."""
    a = torch.cat([made[name].flatten() for name in movement])
    b = torch.cat([m.flatten() for m in movement.values()])
    return 1 - (a @ b) / (a.norm() * b.norm()).clamp_min(1e-20)


def box(knowledge: Knowledge) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest values ``(n_chans, 1)`` of the auxiliary windows."""
    return knowledge.x.amin(dim=(0, 2))[:, None], knowledge.x.amax(dim=(0, 2))[:, None]


def _of(by_client: Mapping[str, State], client: str) -> dict[str, Tensor]:
    return dict(by_client.get(client, by_client.get("", {})))


def _fit(network: Network, names: Sequence[str], knowledge: Knowledge, budget: Budget, seed: int) -> None:
    """Fit unseen halves to the auxiliary windows, at up to a quarter of the budget."""
    chosen = [p for name, p in network.named_parameters() if name in set(names) and p.requires_grad]
    if not chosen:
        return
    optimizer = torch.optim.Adam(chosen, lr=1e-2)
    generator = torch_generator(seed, "unseen halves")
    weights: Any = knowledge.training.get("class_weights")
    for _ in range(max(1, (budget.evaluations - budget.spent) // 4)):
        budget.spend()
        batch = torch.randint(len(knowledge.x), (min(64, len(knowledge.x)),), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(knowledge.x[batch]), knowledge.y[batch], weight=weights).backward()
        optimizer.step()
    network.zero_grad(set_to_none=True)
