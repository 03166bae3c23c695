"""The geometric median (robust federated aggregation, RFA)."""

import torch
from torch import Tensor

from hcqsfl.federated.aggregation.flat import Updates, on_updates, sorted_columns, weighted_mean
from hcqsfl.federated.aggregation.median import middle
from hcqsfl.federated.update import Aggregator


def geometric_median(
    nu: float = 1e-6, max_iterations: int = 100, tolerance: float = 1e-9, by_examples: bool = False
) -> Aggregator:
    """Take the point with the smallest sum of distances to the updates, by the smoothed Weiszfeld algorithm.

    It stays near the honest updates as long as attackers hold less than half of the weight. It starts from the
    coordinate-wise median and not, as published, from the mean, which a far attacker can put out of reach of any
    number of iterations.

    Args:
        nu: distances below this count as this, above 0; the smoothing.
        max_iterations: steps at most, at least 1. The published experiments make 3.
        tolerance: stop when a step is shorter than this share of the median distance to the updates.
        by_examples: weight clients by their examples, as published; an attacker may then claim any weight.

    Returns:
        The rule. It raises ``ValueError`` when the examples weigh and no client has one.

    Raises:
        ValueError: an option is out of range.

    Source: Pillutla, Kakade and Harchaoui (2022), Robust aggregation for federated learning, algorithm 2.
    """
    if not nu > 0:
        raise ValueError(f"geometric_median was given nu = {nu:g}; it must be above 0")
    if max_iterations < 1 or not tolerance >= 0:
        raise ValueError("geometric_median needs at least 1 iteration and a tolerance of at least 0")

    def combine(updates: Updates) -> Tensor:
        weights = updates.examples if by_examples else torch.ones_like(updates.examples)
        if not weights.any():
            raise ValueError("geometric_median weights clients by their examples, and no client has one")
        point, away = middle(sorted_columns(updates.rows)), torch.empty_like(updates.rows)
        for _ in range(max_iterations):
            distances = torch.sub(updates.rows, point, out=away).norm(dim=1).clamp(min=nu)
            before, point = point, weighted_mean("geometric_median", updates.rows, weights / distances, "nearness")
            # the median, for an attacker can make the largest distance as large as it likes
            if (point - before).norm() <= tolerance * distances.median():
                break
        return point

    return on_updates("geometric_median", combine)
