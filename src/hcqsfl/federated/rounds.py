"""One engine for every protocol: what becomes of each half of the network, round by round.

A network falls into parts (the client's half, the trunk). In each round every client trains, one after the other, and
each part follows one of four rules:

========  =============================================  ==========================================
rule      before a client's turn                         after the round
========  =============================================  ==========================================
average   its copy is set to the global state            the copies are aggregated
relay     its copy is set to the last client's state     the last client's state stays
keep      nothing: the copy is the client's own          nothing
shared    nothing: there is one module for all           nothing
========  =============================================  ==========================================

======================  =============  =======
protocol                client's half  trunk
======================  =============  =======
centralised             keep           keep       (one client that holds everything)
local_only              keep           keep
federated               average        average
sequential              relay          shared
splitfed_v1             average        average
splitfed_v2             average        shared
======================  =============  =======

Source: Gupta & Raskar (2018) for sequential split learning; Thapa et al. (2022), SplitFed: when federated learning
meets split learning, algorithms 1-2, for v1 and v2; McMahan et al. (2017) for federated averaging.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hcqsfl.federated.client import Client, LocalTraining, MakeOptimizer
from hcqsfl.federated.update import Aggregator, State, Update, serialise
from hcqsfl.randomness import numpy_generator

RULES = ("average", "relay", "keep", "shared")


@dataclass(eq=False)
class Part:
    """One half of the network, and what becomes of it.

    An optimiser lives as long as the weights it moves: it is new in each turn where the weights were set to somebody
    else's (average, relay), and lasts through the training where they stay (keep, shared).

    Attributes:
        name: ``"client"`` or ``"trunk"``.
        rule: one of ``RULES``.
        modules: each client's copy; with ``shared``, the same module for every client.
        optimizers: what moves each client's copy.
        make_optimizer: makes a new one.
        aggregator: makes the next global state, with ``average``.
        crosses: whether its states travel between client and fed server; a trunk's copies stay where they are.
        state: the global state, with ``average`` and ``relay``.
    """

    name: str
    rule: str
    modules: Mapping[str, nn.Module]
    make_optimizer: MakeOptimizer
    aggregator: Aggregator | None = None
    crosses: bool = True
    state: State = field(default_factory=dict)
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"part {self.name} follows the rule {self.rule!r}; known: {', '.join(RULES)}")
        if self.rule == "average" and self.aggregator is None:
            raise ValueError(f"part {self.name} is to be averaged, but no aggregation rule was given")
        if not self.state:
            self.state = copy_state(next(iter(self.modules.values())))
        first = next(iter(self.modules))
        for client, module in self.modules.items():
            same = self.rule == "shared" and client != first
            self.optimizers[client] = self.optimizers[first] if same else self._new_optimizer(module)

    def _new_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return self.make_optimizer([p for p in module.parameters() if p.requires_grad])

    def state_bytes(self) -> int:
        """Return how many bytes a client receives before its turn, and sends after it, as serialised."""
        return len(serialise(self.state)) if self.crosses and self.rule in ("average", "relay") else 0

    def hand_out(self, client: str) -> None:
        """Set a client's copy up for its turn."""
        if self.rule in ("average", "relay"):
            self.modules[client].load_state_dict(dict(self.state))
            # in place: a server may hold this optimiser
            self.optimizers[client].state.clear()

    def take_in(self, client: str, num_examples: int, number: int) -> Update | None:
        """Take a client's copy back after its turn."""
        if self.rule == "relay":
            self.state = copy_state(self.modules[client])
        if self.rule == "average":
            return Update(client, copy_state(self.modules[client]), number, num_examples)
        return None

    def aggregate(self, updates: Sequence[Update]) -> None:
        """Make the next global state out of a round's updates."""
        if self.rule == "average" and self.aggregator is not None:
            self.state = self.aggregator(self.state, updates)

    def final_states(self) -> dict[str, State]:
        """Return the states to evaluate: one for all under ``""``, or each client's own."""
        if self.rule in ("average", "relay"):
            return {"": self.state}
        if self.rule == "shared":
            return {"": copy_state(next(iter(self.modules.values())))}
        return {client: copy_state(module) for client, module in self.modules.items()}

    def owned(self) -> dict[str, nn.Module]:
        """Return the modules whose weights and optimisers outlast a round."""
        if self.rule == "keep":
            return dict(self.modules)
        if self.rule == "shared":
            return dict([next(iter(self.modules.items()))])
        return {}


def copy_state(module: nn.Module) -> State:
    """Return a copy of a module's state that later training leaves alone."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@dataclass(frozen=True)
class Round:
    """What came of a round.

    Attributes:
        number: the round, from 1.
        trained: what came of each client's turn.
        state_bytes: bytes of states that all clients together received from the fed server, and as many sent back.
    """

    number: int
    trained: Mapping[str, LocalTraining]
    state_bytes: int

    @property
    def loss(self) -> float:
        """Mean training loss, each client weighted by its windows."""
        total = sum(result.num_examples for result in self.trained.values())
        return sum(result.loss * result.num_examples for result in self.trained.values()) / total


@dataclass(eq=False)
class Federation:
    """Clients, the parts of their network, and the round they have reached.

    Attributes:
        clients: the participants; a client's own optimiser is that of the part called ``"client"``.
        parts: the parts of the network.
        seed: root seed.
        round: rounds done.
    """

    clients: Sequence[Client]
    parts: Sequence[Part]
    seed: int
    round: int = 0

    def run_round(self) -> Round:
        """Run one round: each client's turn in a drawn order, then aggregation."""
        number = self.round + 1
        order = numpy_generator(self.seed, "turns", number).permutation(len(self.clients))
        updates: dict[str, list[Update]] = {part.name: [] for part in self.parts}
        results: dict[str, LocalTraining] = {}
        for client in (self.clients[i] for i in order):
            for part in self.parts:
                part.hand_out(client.name)
            results[client.name] = client.train(self._optimizer(client.name), self.seed, number)
            for part in self.parts:
                update = part.take_in(client.name, client.num_examples, number - 1)
                if update is not None:
                    updates[part.name].append(update)
        for part in self.parts:
            part.aggregate(updates[part.name])
        self.round = number
        state_bytes = len(self.clients) * sum(part.state_bytes() for part in self.parts)
        return Round(number, {client.name: results[client.name] for client in self.clients}, state_bytes)

    def _optimizer(self, client: str) -> torch.optim.Optimizer:
        (part,) = [part for part in self.parts if part.name == "client"]
        return part.optimizers[client]

    def final_states(self) -> list[dict[str, State]]:
        """Return the networks to evaluate as ``{part name: state}``: one, or one a client where halves are kept."""
        by_part = {part.name: part.final_states() for part in self.parts}
        names = sorted({name for states in by_part.values() for name in states if name}) or [""]
        return [{part: states.get(name, states.get("", {})) for part, states in by_part.items()} for name in names]

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next round depends on, as named tensors."""
        held: dict[str, Tensor] = {"round": torch.tensor(self.round)}
        for part in self.parts:
            if part.rule in ("average", "relay"):
                held |= {f"{part.name}/state/{name}": tensor for name, tensor in part.state.items()}
            for client, module in part.owned().items():
                held |= {f"{part.name}/module/{client}/{k}": t for k, t in module.state_dict().items()}
                for i, slots in part.optimizers[client].state_dict()["state"].items():
                    held |= {f"{part.name}/optimizer/{client}/{i}/{k}": torch.as_tensor(v) for k, v in slots.items()}
        return held

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken.

        Raises:
            ValueError: the tensors belong to another federation.
        """
        if "round" not in held:
            raise ValueError("the checkpoint lacks its round")
        for part in self.parts:
            try:
                if part.rule in ("average", "relay"):
                    part.state = {name: held[f"{part.name}/state/{name}"].clone() for name in part.state}
                for client, module in part.owned().items():
                    module.load_state_dict({k: held[f"{part.name}/module/{client}/{k}"] for k in module.state_dict()})
                    _load_optimizer(part.optimizers[client], held, f"{part.name}/optimizer/{client}/")
            except KeyError as error:
                raise ValueError(f"the checkpoint is of another federation: it lacks {error}") from None
        self.round = int(held["round"])


def _load_optimizer(optimizer: torch.optim.Optimizer, held: Mapping[str, Tensor], prefix: str) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in held.items():
        if name.startswith(prefix):
            i, _, slot = name[len(prefix) :].partition("/")
            state.setdefault(int(i), {})[slot] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
