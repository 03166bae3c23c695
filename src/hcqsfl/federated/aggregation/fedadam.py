"""Adam at the server."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from hcqsfl.federated.aggregation.flat import move, stack, weighted_mean
from hcqsfl.federated.aggregation.memory import Memory
from hcqsfl.federated.update import Aggregator, State, Update


def fedadam(learning_rate: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> Aggregator:
    """Take the averaged update for a gradient, and let Adam make the step.

    ``m = beta1 m + (1 - beta1) d``, ``v = beta2 v + (1 - beta2) d^2``, ``state += learning_rate m / (sqrt(v) + tau)``
    for the mean update ``d``, clients weighted by their examples; ``v`` starts at ``tau^2``, without bias correction,
    as published.

    Args:
        learning_rate: of the server, above 0.
        beta1, beta2: decay of the first and second moment, in [0, 1).
        tau: how adaptive the step is, above 0: the smaller, the more.

    Returns:
        The rule, an object that keeps both moments: each part of a network needs its own.

    Raises:
        ValueError: an option is out of range.

    Source: Reddi et al. (2021), Adaptive federated optimization, algorithm 2 (FedAdam).
    """
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= beta < 1:
            raise ValueError(f"fedadam was given a {name} of {beta:g}; it must be at least 0 and below 1")
    for name, value in (("learning rate", learning_rate), ("tau", tau)):
        if not 0 < value < float("inf"):
            raise ValueError(f"fedadam was given a {name} of {value:g}; it must be above 0")
    return _FedAdam(learning_rate, beta1, beta2, tau)


class _FedAdam:
    def __init__(self, learning_rate: float, beta1: float, beta2: float, tau: float) -> None:
        self.learning_rate, self.beta1, self.beta2, self.tau = learning_rate, beta1, beta2, tau
        self._memory = Memory("fedadam", ["first", "second"])

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        if not updates:
            return state
        stacked = stack("fedadam", state, updates)
        mean = weighted_mean("fedadam", stacked.rows, stacked.examples, "their examples")
        first, second = self._memory.recall(stacked.layout, starts=(0.0, self.tau**2))
        first = self.beta1 * first + (1 - self.beta1) * mean
        second = self.beta2 * second + (1 - self.beta2) * mean**2
        step = self.learning_rate * first / (second.sqrt() + self.tau)
        moved = move("fedadam", state, updates, stacked.layout, step)
        self._memory.keep(stacked.layout, first, second)
        return moved

    def tensors(self) -> dict[str, Tensor]:
        return self._memory.tensors()

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        self._memory.load_tensors(held)
