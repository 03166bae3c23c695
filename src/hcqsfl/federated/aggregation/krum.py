"""Krum: the update that is nearest to its neighbours."""

import torch
from torch import Tensor

from hcqsfl.federated.aggregation.flat import Updates, check_attackers, check_clients, on_updates, squared_distances
from hcqsfl.federated.update import Aggregator


def krum(n_attackers: int) -> Aggregator:
    """Take the one update with the smallest sum of squared distances to its n - f - 2 nearest others.

    Of a tie, the client first by name is taken. Clients count alike, whatever number of examples they claim.

    Args:
        n_attackers: f, how many clients may attack.

    Returns:
        The rule. It raises ``ValueError`` in a round of fewer than 2f + 3 clients.

    Raises:
        ValueError: ``n_attackers`` is negative.

    Source: Blanchard et al. (2017), Machine learning with adversaries: Byzantine tolerant gradient descent, section 4.
    """
    check_attackers("krum", n_attackers)

    def combine(updates: Updates) -> Tensor:
        check_clients("krum", len(updates), n_attackers, 2 * n_attackers + 3, "n >= 2f + 3")
        return updates.rows[ranking(updates.rows, n_attackers)[0]]

    return on_updates("krum", combine)


def ranking(rows: Tensor, n_attackers: int) -> Tensor:
    """Return the places of ``rows (n, n_values)`` from the smallest Krum score to the largest; ties in order."""
    return torch.argsort(scores(squared_distances(rows), n_attackers), stable=True)


def scores(distances: Tensor, n_attackers: int) -> Tensor:
    """Return each row's sum of squared distances to its n - f - 2 nearest others, at least one other.

    Args:
        distances: ``(n, n)`` squared distances.
        n_attackers: f.
    """
    neighbours = max(len(distances) - n_attackers - 2, 1)
    # the nearest of all is the row itself, at zero
    return distances.sort(dim=1).values[:, 1 : neighbours + 1].sum(dim=1)
