"""Centred clipping."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from hcqsfl.federated.aggregation.clipping import check_radius, clipped
from hcqsfl.federated.aggregation.flat import move, stack
from hcqsfl.federated.aggregation.memory import Memory
from hcqsfl.federated.update import Aggregator, State, Update


def centred_clipping(radius: float | None = None, iterations: int = 3) -> Aggregator:
    """Move from the last round's result towards each update, by no more than a radius for each.

    ``v += mean over clients of (update - v) * min(1, radius / |update - v|)``, some times over; ``v`` starts at the
    last round's result, in the first round at zero. f attackers of n move a step by ``radius * f / n`` at most. Clients
    count alike, whatever number of examples they claim.

    Args:
        radius: tau, how far a single client may pull. Without it, the median distance of the updates from ``v``, anew
            in every step: that needs no knowledge of how long updates are, and is not in the publication.
        iterations: steps in a round, at least 1.

    Returns:
        The rule, an object that keeps ``v``: each part of a network needs its own.

    Raises:
        ValueError: an option is out of range.

    Source: Karimireddy, He and Jaggi (2021), Learning from history for Byzantine robust optimization, algorithm 2.
    """
    check_radius("centred_clipping", radius)
    if iterations < 1:
        raise ValueError(f"centred_clipping was given {iterations} iterations; at least 1 is needed")
    return _CentredClipping(radius, iterations)


class _CentredClipping:
    def __init__(self, radius: float | None, iterations: int) -> None:
        self.radius = radius
        self.iterations = iterations
        self._memory = Memory("centred_clipping", ["centre"])

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        if not updates:
            return state
        stacked = stack("centred_clipping", state, updates)
        (centre,) = self._memory.recall(stacked.layout)
        for _ in range(self.iterations):
            centre = centre + clipped(stacked.rows - centre, self.radius).mean(dim=0)
        moved = move("centred_clipping", state, updates, stacked.layout, centre)
        self._memory.keep(stacked.layout, centre)
        return moved

    def tensors(self) -> dict[str, Tensor]:
        return self._memory.tensors()

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        self._memory.load_tensors(held)
