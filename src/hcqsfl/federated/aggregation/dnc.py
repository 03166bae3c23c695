"""Divide and conquer (DnC): leave out who stands out along the main direction."""

import math

import torch
from torch import Tensor

from hcqsfl.federated.aggregation.flat import Updates, check_attackers, on_updates
from hcqsfl.federated.update import Aggregator
from hcqsfl.randomness import torch_generator


def dnc(
    n_attackers: int, n_coordinates: int = 10_000, iterations: int = 1, filter_fraction: float = 1.0, seed: int = 0
) -> Aggregator:
    """Average the updates that never stand out along the main direction of a random choice of coordinates.

    In each iteration the updates' squared projections on the first right singular vector, after centring, are their
    outlier scores, and the ceil(c f) highest are left out; what is left in every iteration is averaged. Of a tie, the
    client last by name is left out. Clients count alike, whatever number of examples they claim.

    Args:
        n_attackers: f, how many clients may attack; 0 makes it the mean.
        n_coordinates: how many coordinates are drawn in an iteration, at least 1; all of them if there are fewer.
        iterations: at least 1.
        filter_fraction: c, above 0: how many clients are left out for each attacker.
        seed: root seed of the draws, which also depend on the round.

    Returns:
        The rule. It raises ``ValueError`` when n <= 2f, when no client would be left, or none was left.

    Raises:
        ValueError: an option is out of range.

    Source: Shejwalkar and Houmansadr (2021), Manipulating the Byzantine: optimizing model poisoning attacks and
    defenses for federated learning, algorithm 2.
    """
    check_attackers("dnc", n_attackers)
    if n_coordinates < 1 or iterations < 1 or not 0 < filter_fraction < math.inf:
        raise ValueError("dnc needs at least 1 coordinate, at least 1 iteration and a filter fraction above 0")
    n_left_out = math.ceil(filter_fraction * n_attackers)

    def combine(updates: Updates) -> Tensor:
        n = len(updates)
        needed = max(2 * n_attackers, n_left_out) + 1
        if n < needed:
            raise ValueError(
                f"dnc with {n_attackers} attackers leaves out {n_left_out} clients and needs at least {needed}; "
                f"this round has {n}"
            )
        generator = torch_generator(seed, "dnc", updates.version)
        kept = torch.ones(n, dtype=torch.bool)
        for _ in range(iterations):
            drawn = torch.randperm(updates.rows.shape[1], generator=generator)[:n_coordinates].sort().values
            order = torch.argsort(outlier_scores(updates.rows[:, drawn]), stable=True)
            kept[order[n - n_left_out :]] = False
        if not kept.any():
            raise ValueError(f"dnc left out every one of {n} clients in {iterations} iterations; use fewer iterations")
        return updates.rows[kept].mean(dim=0)

    return on_updates("dnc", combine)


def outlier_scores(rows: Tensor) -> Tensor:
    """Return the squared projections of ``rows (n, n_values)``, centred, on their first right singular vector.

    They are scaled by a common factor, so that large rows do not overflow.
    """
    centred = rows - rows.mean(dim=0)
    centred = centred / centred.abs().max().clamp(min=1e-300)
    # the eigenvectors of the n x n products are the left singular vectors; projection = singular value times entry
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    return values[-1] * vectors[:, -1] ** 2
