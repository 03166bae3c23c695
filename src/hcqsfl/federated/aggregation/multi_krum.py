"""Multi-Krum: the mean of the updates that Krum likes best."""

from torch import Tensor

from hcqsfl.federated.aggregation.flat import Updates, check_attackers, check_clients, on_updates
from hcqsfl.federated.aggregation.krum import ranking
from hcqsfl.federated.update import Aggregator


def multi_krum(n_attackers: int, n_selected: int | None = None) -> Aggregator:
    """Average the m updates with the smallest Krum scores; with m = 1 it is Krum.

    Of a tie, clients first by name are taken. Clients count alike, whatever number of examples they claim.

    Args:
        n_attackers: f, how many clients may attack.
        n_selected: m, at least 1; n - f - 2 unless given, the most for which robustness is proven.

    Returns:
        The rule. It raises ``ValueError`` in a round of fewer than 2f + 3 clients, or of fewer than m + f + 2.

    Raises:
        ValueError: ``n_attackers`` is negative or ``n_selected`` below 1.

    Source: Blanchard et al. (2017), Machine learning with adversaries: Byzantine tolerant gradient descent, section 4;
    Damaskinos et al. (2019), AggregaThor: Byzantine machine learning via robust gradient aggregation, section 2, for m.
    """
    check_attackers("multi_krum", n_attackers)
    if n_selected is not None and n_selected < 1:
        raise ValueError(f"multi_krum was asked to select {n_selected} updates; n_selected must be at least 1")

    def combine(updates: Updates) -> Tensor:
        n = len(updates)
        check_clients("multi_krum", n, n_attackers, 2 * n_attackers + 3, "n >= 2f + 3")
        if n_selected is not None:
            needed = n_selected + n_attackers + 2
            check_clients("multi_krum", n, n_attackers, needed, f"n >= m + f + 2 to select m = {n_selected}")
        chosen = ranking(updates.rows, n_attackers)[: n_selected or n - n_attackers - 2]
        # in order of names, not of scores: a sum depends on its order
        return updates.rows[chosen.sort().values].mean(dim=0)

    return on_updates("multi_krum", combine)
