"""Federated averaging with server momentum."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from hcqsfl.federated.aggregation.flat import move, stack, weighted_mean
from hcqsfl.federated.aggregation.memory import Memory
from hcqsfl.federated.update import Aggregator, State, Update


def fedavgm(momentum: float = 0.9, learning_rate: float = 1.0) -> Aggregator:
    """Add the averaged update to a decaying sum of the earlier ones, and move by that sum.

    ``v = momentum * v + mean(updates)``, ``state += learning_rate * v``; the mean weights clients by their examples.
    With a momentum of 0 and a learning rate of 1 it is federated averaging.

    Args:
        momentum: share of the sum that is kept from round to round, in [0, 1).
        learning_rate: of the server, above 0.

    Returns:
        The rule, an object that keeps ``v``: each part of a network needs its own.

    Raises:
        ValueError: ``momentum`` or ``learning_rate`` is out of range.

    Source: Hsu, Qi and Brown (2019), Measuring the effects of non-identical data distribution for federated visual
    classification, section 4.3.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"fedavgm was given a momentum of {momentum:g}; it must be at least 0 and below 1")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"fedavgm was given a learning rate of {learning_rate:g}; it must be above 0")
    return _FedAvgM(momentum, learning_rate)


class _FedAvgM:
    def __init__(self, momentum: float, learning_rate: float) -> None:
        self.momentum = momentum
        self.learning_rate = learning_rate
        self._memory = Memory("fedavgm", ["momentum"])

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        if not updates:
            return state
        stacked = stack("fedavgm", state, updates)
        mean = weighted_mean("fedavgm", stacked.rows, stacked.examples, "their examples")
        (velocity,) = self._memory.recall(stacked.layout)
        velocity = self.momentum * velocity + mean
        moved = move("fedavgm", state, updates, stacked.layout, self.learning_rate * velocity)
        self._memory.keep(stacked.layout, velocity)
        return moved

    def tensors(self) -> dict[str, Tensor]:
        return self._memory.tensors()

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        self._memory.load_tensors(held)
