"""A half of the network, every client's copy of it, and what becomes of them.

========  =============================================  ==========================================
rule      before a client's turn                         after the round
========  =============================================  ==========================================
average   its copy is set to the global state            the copies are aggregated
relay     its copy is set to the last client's state     the last client's state stays
keep      nothing: the copy is the client's own          nothing
shared    nothing: there is one module for all           nothing
========  =============================================  ==========================================
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hcqsfl.federated.client import MakeOptimizer
from hcqsfl.federated.guard import TrunkGuard
from hcqsfl.federated.secure_aggregation import SecureAggregator
from hcqsfl.federated.update import Aggregator, State, StatefulAggregator, Update, serialise

Privatise = Callable[[nn.Module, torch.optim.Optimizer, str], torch.optim.Optimizer]
"""From a half, its optimiser and the part's name to an optimiser that protects single windows."""

RULES = ("average", "relay", "keep", "shared")


@dataclass(eq=False)
class Part:
    """One half of the network of some clients.

    An optimiser lives as long as the weights it moves: it is new in each turn where the weights were set to somebody
    else's (average, relay), and lasts through the training where they stay (keep, shared).

    Attributes:
        name: ``"client"``, ``"trunk"``, or one of these with a data set: ``"client:wesad"``.
        rule: one of ``RULES``.
        modules: each client's copy; with ``shared``, the same module for every client.
        make_optimizer: makes what moves a copy.
        aggregator: makes the next global state, with ``average``.
        crosses: whether its states travel between client and fed server; a trunk's copies stay where they are.
        guard: judges what each turn did to a shared module, and may shorten it or take it back.
        privatise: makes each optimiser one that protects single windows.
        state: the global state, with ``average`` and ``relay``.
        optimizers: what moves each client's copy.

    Raises:
        ValueError: there is no such rule, or the rule lacks what it needs.
    """

    name: str
    rule: str
    modules: Mapping[str, nn.Module]
    make_optimizer: MakeOptimizer
    aggregator: Aggregator | None = None
    crosses: bool = True
    guard: TrunkGuard | None = None
    privatise: Privatise | None = None
    state: State = field(default_factory=dict)
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"part {self.name} follows the rule {self.rule!r}; known: {', '.join(RULES)}")
        if self.rule == "average" and self.aggregator is None:
            raise ValueError(f"part {self.name} is to be averaged, but no aggregation rule was given")
        if self.guard is not None and self.rule != "shared":
            raise ValueError(f"part {self.name} has a guard, but its rule is {self.rule}: a guard is for a shared part")
        first = next(iter(self.modules))
        self.state = self.state or copy_state(self.modules[first])
        for client, module in self.modules.items():
            same = self.rule == "shared" and client != first
            self.optimizers[client] = self.optimizers[first] if same else self._new_optimizer(module)

    def _new_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        # a half without anything to train has an optimiser of nothing, so that nobody need ask
        made = self.make_optimizer(
            [p for p in module.parameters() if p.requires_grad] or [nn.Parameter(torch.empty(0))]
        )
        return made if self.privatise is None else self.privatise(module, made, self.name)

    @property
    def state_bytes(self) -> tuple[int, int]:
        """Bytes that a client receives before its turn, and sends after it, as serialised."""
        if not self.crosses or self.rule not in ("average", "relay"):
            return 0, 0
        if self.rule == "average" and isinstance(self.aggregator, SecureAggregator):
            sent, received = self.aggregator.wire_bytes(self.state)
            return received, sent
        size = len(serialise(self.state))
        return size, size

    def expect(self, roster: Sequence[str]) -> None:
        """Tell an aggregator that hides single updates who takes part in the round."""
        if isinstance(self.aggregator, SecureAggregator):
            self.aggregator.expect([client for client in roster if client in self.modules])

    def shown(self, updates: Sequence[Update]) -> Sequence[Update]:
        """Return what whoever aggregates sees of the updates of the round just aggregated."""
        return self.aggregator.shown(updates) if isinstance(self.aggregator, SecureAggregator) else updates

    def hand_out(self, client: str) -> None:
        """Set a client's copy up for its turn."""
        if self.rule in ("average", "relay"):
            self.modules[client].load_state_dict(dict(self.state))
            self._forget(client)

    def begin_turn(self, client: str, number: int) -> None:
        """Tell an optimiser that draws noise whose turn it is, so that a resumed run draws the same."""
        begin = getattr(self.optimizers[client], "begin_turn", None)
        if begin is not None:
            begin(client, number)

    def _forget(self, client: str) -> None:
        optimizer = self.optimizers[client]
        # in place: a server may hold this optimiser
        optimizer.state.clear()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def snapshot(self, client: str) -> "Snapshot | None":
        """Return what a guarded part looks like before a turn."""
        return None if self.guard is None else Snapshot.of(self, client)

    def judge(self, client: str, before: "Snapshot | None") -> float:
        """Let the guard judge a turn; return what share of the turn's update stays, 1.0 without a guard."""
        if self.guard is None or before is None:
            return 1.0
        module = self.modules[client]
        after = copy_state(module)
        share = self.guard.share(client, before.state, after)
        if share <= 0:
            self.take_back(client, before)
        elif share < 1.0:
            module.load_state_dict({name: base + share * (after[name] - base) for name, base in before.state.items()})
        return share

    def take_back(self, client: str, before: "Snapshot") -> None:
        """Leave a client's copy, and what its optimiser remembers, as they were before a turn."""
        self.modules[client].load_state_dict(before.state)
        self.optimizers[client].load_state_dict(before.optimizer)

    def take_in(self, client: str, num_examples: int, base_version: int) -> Update | None:
        """Take a client's copy back after its turn."""
        if self.rule in ("average", "relay"):
            # gradients and moments of a turn that is over: a hundred clients' would outweigh their states
            self._forget(client)
        if self.rule == "relay":
            self.state = copy_state(self.modules[client])
        if self.rule == "average":
            return Update(client, copy_state(self.modules[client]), base_version, num_examples)
        return None

    def aggregate(self, updates: Sequence[Update]) -> None:
        """Make the next global state out of updates.

        Raises:
            ValueError: the rule's precondition does not hold for these updates.
        """
        if self.rule == "average" and self.aggregator is not None and updates:
            self.state = self.aggregator(self.state, updates)

    def final_states(self) -> dict[str, State]:
        """Return the states to evaluate: one for all under ``""``, or each client's own."""
        if self.rule in ("average", "relay"):
            return {"": self.state}
        if self.rule == "shared":
            return {"": copy_state(next(iter(self.modules.values())))}
        return {client: copy_state(module) for client, module in self.modules.items()}

    def _owned(self) -> dict[str, nn.Module]:
        """Return the modules whose weights and optimisers outlast a round."""
        if self.rule == "keep":
            return dict(self.modules)
        if self.rule == "shared":
            return dict([next(iter(self.modules.items()))])
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next round depends on, as named tensors."""
        held: dict[str, Tensor] = {}
        if self.rule in ("average", "relay"):
            held |= {f"{self.name}/state/{name}": tensor for name, tensor in self.state.items()}
        if isinstance(self.aggregator, StatefulAggregator):
            held |= {f"{self.name}/aggregator/{name}": tensor for name, tensor in self.aggregator.tensors().items()}
        if self.guard is not None:
            held |= {f"{self.name}/guard/{name}": tensor for name, tensor in self.guard.tensors().items()}
        for client, module in self._owned().items():
            held |= {f"{self.name}/module/{client}/{k}": t for k, t in module.state_dict().items()}
            moments = optimizer_tensors(self.optimizers[client])
            held |= {f"{self.name}/optimizer/{client}/{k}": t for k, t in moments.items()}
        return held

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken.

        Raises:
            ValueError: the tensors are not this part's.
        """
        try:
            if self.rule in ("average", "relay"):
                self.state = {name: held[f"{self.name}/state/{name}"].clone() for name in self.state}
            if isinstance(self.aggregator, StatefulAggregator):
                self.aggregator.load_tensors(below(held, f"{self.name}/aggregator/"))
            if self.guard is not None:
                self.guard.load_tensors(below(held, f"{self.name}/guard/"))
            for client, module in self._owned().items():
                module.load_state_dict({k: held[f"{self.name}/module/{client}/{k}"] for k in module.state_dict()})
                load_optimizer(self.optimizers[client], below(held, f"{self.name}/optimizer/{client}/"))
        except KeyError as error:
            raise ValueError(f"the checkpoint is of another federation: it lacks {error}") from None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A client's copy of a part before a turn, and what its optimiser remembered."""

    state: dict[str, Tensor]
    optimizer: dict[str, object]

    @classmethod
    def of(cls, part: Part, client: str) -> "Snapshot":
        """Return what a client's copy is like now; later training leaves it alone."""
        # a state_dict holds the very moments that a turn moves
        return cls(copy_state(part.modules[client]), copy.deepcopy(part.optimizers[client].state_dict()))


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's state that later training leaves alone."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def below(held: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return copies of the tensors whose names start with ``prefix``, without it."""
    return {name[len(prefix) :]: tensor.clone() for name, tensor in held.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimiser remembers, as tensors named ``parameter/slot``."""
    state = optimizer.state_dict()["state"]
    return {f"{i}/{slot}": torch.as_tensor(value) for i, slots in state.items() for slot, value in slots.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, held: Mapping[str, Tensor]) -> None:
    """Let an optimiser go on from where ``optimizer_tensors`` was taken."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in held.items():
        i, _, slot = name.partition("/")
        state.setdefault(int(i), {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
