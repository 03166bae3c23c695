"""The coordinate-wise median."""

from torch import Tensor

from hcqsfl.federated.aggregation.flat import on_updates, sorted_columns
from hcqsfl.federated.update import Aggregator


def median() -> Aggregator:
    """Take the median of every coordinate of the updates; of an even number, the mean of the middle two, as NumPy's.

    Clients count alike, whatever number of examples they claim. The result stays between the honest updates, coordinate
    by coordinate, as long as fewer than half of the clients attack.

    Source: Yin et al. (2018), Byzantine-robust distributed learning: towards optimal statistical rates, definition 1.
    """
    return on_updates("median", lambda updates: middle(sorted_columns(updates.rows)))


def middle(ascending: Tensor) -> Tensor:
    """Return the median of each column of ``(n, n_values)``, the columns in ascending order."""
    n = len(ascending)
    return (ascending[(n - 1) // 2] + ascending[n // 2]) / 2
