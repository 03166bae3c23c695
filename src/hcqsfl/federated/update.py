"""What a client hands in after its local training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import safetensors.torch
from torch import Tensor

State = Mapping[str, Tensor]
"""Named tensors of one half of the network, as ``nn.Module.state_dict`` gives them."""


@dataclass(frozen=True, eq=False)
class Update:
    """The state that a client reached, and where it started.

    Attributes:
        client: who trained.
        state: the state after local training.
        base_version: the round whose global state the training started from.
        num_examples: windows that the client trained on.
    """

    client: str
    state: State
    base_version: int
    num_examples: int


def unfit(update: Update, state: State, newest: int) -> str:
    """Return what makes an update unfit to be aggregated into ``state``, or an empty string.

    Args:
        update: what a client handed in.
        state: the global state.
        newest: the newest version that there is.
    """
    if update.num_examples <= 0:
        return f"counts {update.num_examples} examples"
    if not 0 <= update.base_version <= newest:
        return f"starts from version {update.base_version}, but the newest is {newest}"
    if odd := sorted(state.keys() ^ update.state.keys()):
        return f"lacks {odd[0]!r}" if odd[0] in state else f"has a tensor {odd[0]!r} that is not asked for"
    for name, base in state.items():
        tensor = update.state[name]
        if tensor.shape != base.shape or tensor.dtype != base.dtype:
            return (
                f"has {name!r} of shape {tuple(tensor.shape)} and type {tensor.dtype}, "
                f"not {tuple(base.shape)} and {base.dtype}"
            )
        if not tensor.isfinite().all():
            return f"holds NaN or infinity in {name!r}"
    return ""


def serialise(state: State) -> bytes:
    """Return a state as the bytes that cross between a client and the fed server (safetensors)."""
    data: bytes = safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()})
    return data


class Undecided(ValueError):
    """A round's updates give a rule nothing to go on, though its precondition holds: nobody is trusted, say."""


class Aggregator(Protocol):
    """A pure function from the global state and the round's updates to the next global state.

    It works on each update minus the global state, and its result does not depend on the order of the updates.
    """

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        """Return the next global state.

        Raises:
            ValueError: the rule's precondition does not hold for these updates.
        """
        ...


@runtime_checkable
class StatefulAggregator(Protocol):
    """An aggregator that also remembers something from round to round: momentum, moments, a centre.

    What it remembers belongs to the tensors it was called with, so that each part of a network needs an aggregator of
    its own, and belongs in a checkpoint. A call that raises leaves it as it was.
    """

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        """Return the next global state, as ``Aggregator``."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return what it remembers, as named tensors; nothing before the first round."""
        ...

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken.

        Raises:
            ValueError: the tensors are not what this aggregator remembers.
        """
        ...
