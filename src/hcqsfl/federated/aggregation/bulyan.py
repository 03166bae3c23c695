"""Bulyan: Krum chooses, and a trimmed mean around the median averages."""

import torch
from torch import Tensor

from hcqsfl.federated.aggregation.flat import (
    Updates,
    check_attackers,
    check_clients,
    on_updates,
    sorted_columns,
    squared_distances,
)
from hcqsfl.federated.aggregation.krum import scores
from hcqsfl.federated.aggregation.median import middle
from hcqsfl.federated.update import Aggregator


def bulyan(n_attackers: int) -> Aggregator:
    """Choose n - 2f updates by Krum, one after the other, then average the n - 4f values nearest to their median.

    Krum is run again on what is left after each choice, with as many neighbours as that leaves (at least one). Of a
    tie between updates, the client first by name is chosen; of a tie between values, the lower one. Clients count
    alike, whatever number of examples they claim.

    Args:
        n_attackers: f, how many clients may attack.

    Returns:
        The rule. It raises ``ValueError`` in a round of fewer than 4f + 3 clients.

    Raises:
        ValueError: ``n_attackers`` is negative.

    Source: El Mhamdi, Guerraoui and Rouault (2018), The hidden vulnerability of distributed learning in Byzantium,
    section 4.
    """
    check_attackers("bulyan", n_attackers)

    def combine(updates: Updates) -> Tensor:
        n = len(updates)
        check_clients("bulyan", n, n_attackers, 4 * n_attackers + 3, "n >= 4f + 3")
        chosen = _choose(squared_distances(updates.rows), n - 2 * n_attackers, n_attackers)
        return mean_around_median(updates.rows[chosen], n - 4 * n_attackers)

    return on_updates("bulyan", combine)


def _choose(distances: Tensor, n_chosen: int, n_attackers: int) -> list[int]:
    left = list(range(len(distances)))
    chosen = []
    for _ in range(n_chosen):
        among = distances[left][:, left]
        chosen.append(left.pop(int(torch.argsort(scores(among, n_attackers), stable=True)[0])))
    return chosen


def mean_around_median(rows: Tensor, n_kept: int) -> Tensor:
    """Return the mean of each column's ``n_kept`` values nearest to its median; of a tie, the lower one."""
    ascending = sorted_columns(rows)
    median = middle(ascending)
    # in ascending order the nearest are neighbours; their first moves up while the value after their last is nearer
    n_moves = len(rows) - n_kept
    nearer = ascending[n_kept:] - median < median - ascending[:n_moves]  # (n_moves, n_values)
    first = nearer.sum(dim=0)
    means = torch.empty_like(median)
    for i in range(n_moves + 1):
        here = first == i
        means[here] = ascending[i : i + n_kept, here].mean(dim=0)
    return means
