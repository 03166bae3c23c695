"""One client's turn as a task and its result: what crosses between the fed server and a client, twice a round.

What the next turn depends on lies with the server and travels with the task: the client's half, an optimiser that
outlasts the turn, and what a codec remembers. So a client that was killed has lost nothing that matters.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.deployment import record
from hcqsfl.deployment.record import below
from hcqsfl.federated.client import LocalTraining
from hcqsfl.federated.parts import Part, copy_state, load_optimizer, optimizer_tensors
from hcqsfl.federated.rounds import Federation, Memory
from hcqsfl.federated.sealed import SealedAggregator

LASTING = "keep"
"""The rule under which a client's optimiser outlasts its turn."""


@dataclass(frozen=True)
class Where:
    """Which turn: the training it belongs to, its number, and how often it has been begun.

    Attributes:
        arm, seed, fold: the training.
        round: the turn.
        attempt: 1, or more where a client was lost in the middle.
    """

    arm: str
    seed: int
    fold: str
    round: int
    attempt: int

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> "Where":
        """Read it from the words of a record.

        Raises:
            ValueError: they do not tell.
        """
        try:
            return cls(
                str(words["arm"]),
                int(words["seed"]),
                str(words["fold"]),
                int(words["round"]),
                int(words["attempt"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the task does not say which turn it is for: {error}") from None

    def words(self) -> dict[str, Any]:
        """Return it as words of a record."""
        return dict(vars(self))


def client_part(federation: Federation, client: str) -> Part:
    """Return the part that the client itself holds."""
    return next(part for part in federation.parts_of(client) if part.name.partition(":")[0] == "client")


def sealed(part: Part) -> bool:
    """Return whether a part's updates are summed without the server ever holding one: results go without them."""
    return isinstance(part.aggregator, SealedAggregator)


def memory_of(federation: Federation, client: str) -> Memory | None:
    """Return what the client's codec remembers."""
    return federation.memories.get(f"client/{client}")


def carried(part: Part, memory: Memory | None, client: str) -> dict[str, Tensor]:
    """Return everything of a client that a turn starts from, or has reached."""
    held = {f"state/{name}": tensor for name, tensor in part.modules[client].state_dict().items()}
    if part.rule == LASTING:
        held |= {f"optimizer/{k}": t for k, t in optimizer_tensors(part.optimizers[client]).items()}
    if memory is not None:
        held |= {f"memory/{k}": t for k, t in memory.tensors().items()}
    return held


def set_down(part: Part, memory: Memory | None, client: str, held: Mapping[str, Tensor]) -> None:
    """Bring a client's half to where ``carried`` was taken.

    Raises:
        ValueError: the tensors are not those of this half; it is left as it was.
    """
    state = below(held, "state/")
    if why := misfit(state, part.modules[client]):
        raise ValueError(f"the state of client {client} {why}")
    moments = below(held, "optimizer/")
    if why := odd_moments(moments, part.optimizers[client]):
        raise ValueError(f"the optimiser of client {client} {why}")
    part.modules[client].load_state_dict(state)
    if part.rule == LASTING:
        load_optimizer(part.optimizers[client], moments)
    if memory is not None:
        memory.load_tensors(below(held, "memory/"))


def misfit(state: Mapping[str, Tensor], module: nn.Module) -> str:
    """Return what keeps a state from being this module's, or an empty string."""
    own = module.state_dict()
    if odd := sorted(own.keys() ^ state.keys()):
        return f"lacks {odd[0]!r}" if odd[0] in own else f"has a tensor {odd[0]!r} that is not asked for"
    for name, tensor in own.items():
        if state[name].shape != tensor.shape or state[name].dtype != tensor.dtype:
            return (
                f"has {name!r} of shape {tuple(state[name].shape)} and type {state[name].dtype}, not "
                f"{tuple(tensor.shape)} and {tensor.dtype}"
            )
    return ""


def odd_moments(moments: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> str:
    """Return what keeps tensors from being this optimiser's, or an empty string."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in moments.items():
        i, _, slot = name.partition("/")
        if not i.isdecimal() or int(i) >= len(parameters) or not slot:
            return f"has a tensor {name!r} that is not asked for"
        if tensor.ndim and tensor.shape != parameters[int(i)].shape:
            return f"has {name!r} of shape {tuple(tensor.shape)}, not {tuple(parameters[int(i)].shape)}"
        if not tensor.isfinite().all():
            return f"holds NaN or infinity in {name!r}"
    return ""


def task(where: Where, federation: Federation, client: str) -> bytes:
    """Return the task of a turn."""
    part = client_part(federation, client)
    return record.pack(where.words(), carried(part, memory_of(federation, client), client))


def result(where: Where, training: LocalTraining, federation: Federation, client: str) -> bytes:
    """Return the result of a turn; of a half that is to be sealed, without its state."""
    part = client_part(federation, client)
    words = where.words() | {
        "loss": training.loss,
        "steps": training.steps,
        "num_examples": training.num_examples,
    }
    held = carried(part, memory_of(federation, client), client)
    if sealed(part):
        held = {name: tensor for name, tensor in held.items() if not name.startswith("state/")}
    return record.pack(words, held)


def take_result(data: bytes, where: Where, federation: Federation, client: str) -> tuple[float, int, int]:
    """Take a client's result in; return its loss, its steps and its number of windows.

    Raises:
        ValueError: it is no result, or that of another turn; the client's half is left as it was.
    """
    words, tensors = record.unpack(data)
    if Where.of(words) != where:
        raise ValueError(f"client {client} handed in the result of another turn: {Where.of(words)}")
    try:
        loss, steps, num_examples = float(words["loss"]), int(words["steps"]), int(words["num_examples"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the result of client {client} does not tell of its training: {error}") from None
    if not math.isfinite(loss) or steps < 0 or num_examples < 0:
        raise ValueError(f"client {client} tells of a loss of {loss}, {steps} steps and {num_examples} windows")
    part = client_part(federation, client)
    if part.rule != "average":  # what is averaged is judged with all others, as in a simulation
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise ValueError(f"the result of client {client} holds NaN or infinity in {name!r}")
    if sealed(part):
        if any(name.startswith("state/") for name in tensors):
            raise ValueError(f"client {client} handed in its half in clear, which secaggplus is to hide; it is dropped")
        tensors |= {f"state/{name}": tensor for name, tensor in part.modules[client].state_dict().items()}
    set_down(part, memory_of(federation, client), client, tensors)
    return loss, steps, num_examples


class Before:
    """What a turn may move at the server, as it was before: a turn that was lost in the middle leaves no trace.

    Args:
        federation: whose.
        client: whose turn.
        shared: whether to keep what other clients train too, which is only of use where they wait meanwhile.
    """

    def __init__(self, federation: Federation, client: str, *, shared: bool) -> None:
        self.parts = [part for part in federation.parts_of(client) if shared or part.rule != "shared"]
        self.client = client
        self.states = [copy_state(part.modules[client]) for part in self.parts]
        self.optimizers = [copy.deepcopy(part.optimizers[client].state_dict()) for part in self.parts]
        own = {f"client/{client}", f"server/{client}"}
        self.memories = [
            (memory, copy.deepcopy(memory.tensors())) for k, memory in federation.memories.items() if k in own
        ]

    def restore(self) -> None:
        """Go back there."""
        for part, state, moments in zip(self.parts, self.states, self.optimizers, strict=True):
            part.modules[self.client].load_state_dict(state)
            part.optimizers[self.client].load_state_dict(copy.deepcopy(moments))
        for memory, held in self.memories:
            memory.load_tensors(copy.deepcopy(held))
