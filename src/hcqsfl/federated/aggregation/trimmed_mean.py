"""The coordinate-wise trimmed mean."""

import math

from torch import Tensor

from hcqsfl.federated.aggregation.flat import Updates, check_clients, on_updates, sorted_columns
from hcqsfl.federated.update import Aggregator


def trimmed_mean(n_attackers: int | None = None, share: float | None = None) -> Aggregator:
    """Leave the lowest and the highest values of every coordinate out, and average the rest.

    Clients count alike, whatever number of examples they claim.

    Args:
        n_attackers: f: so many values are left out at each end, at least 1; n >= 2f + 1 clients are needed.
        share: instead, the share of a round's clients to leave out at each end, above 0 and below 0.5, rounded down.

    Returns:
        The rule. It raises ``ValueError`` when too few clients are left, or when it would trim nothing.

    Raises:
        ValueError: not exactly one option was given, or it is out of range.

    Source: Yin et al. (2018), Byzantine-robust distributed learning: towards optimal statistical rates, definition 2.
    """
    if (n_attackers is None) == (share is None):
        raise ValueError("trimmed_mean needs either n_attackers or share, to know how much to trim")
    if n_attackers is not None and n_attackers < 1:
        raise ValueError(f"trimmed_mean with n_attackers = {n_attackers} trims nothing; use fedavg for a plain mean")
    if share is not None and not 0 < share < 0.5:
        raise ValueError(f"trimmed_mean was given a share of {share:g}; it must be above 0 and below 0.5")

    def combine(updates: Updates) -> Tensor:
        n = len(updates)
        cut = math.floor(share * n) if share is not None else n_attackers or 0
        if cut < 1:
            raise ValueError(
                f"trimmed_mean trims nothing: a share of {share:g} of {n} clients is less than one client; "
                f"a share of at least {math.ceil(1000 / n) / 1000:g} is needed"
            )
        check_clients("trimmed_mean", n, cut, 2 * cut + 1, "n >= 2f + 1")
        return sorted_columns(updates.rows)[cut : n - cut].mean(dim=0)

    return on_updates("trimmed_mean", combine)
