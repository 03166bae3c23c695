"""What both clipping rules share: how long a vector may be."""

from torch import Tensor

from hcqsfl.federated.aggregation.median import middle


def check_radius(rule: str, radius: float | None) -> None:
    """Refuse a radius that is none.

    Raises:
        ValueError: it is not above 0.
    """
    if radius is not None and not 0 < radius < float("inf"):
        raise ValueError(f"{rule} was given a radius of {radius:g}; it must be above 0")


def clipped(rows: Tensor, radius: float | None) -> Tensor:
    """Return ``rows (n, n_values)``, those longer than ``radius`` shortened to it.

    Without a radius it is the median of the rows' own lengths, which fewer than half of the clients cannot move beyond
    the honest ones.
    """
    lengths = rows.norm(dim=1)
    limit = middle(lengths.sort().values) if radius is None else radius
    # a row of no length stays as it is
    return rows * (limit / lengths.clamp(min=1e-300)).clamp(max=1.0)[:, None]
