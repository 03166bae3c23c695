"""Norm clipping."""

from hcqsfl.federated.aggregation.clipping import check_radius, clipped
from hcqsfl.federated.aggregation.flat import on_updates
from hcqsfl.federated.update import Aggregator


def norm_clipping(radius: float | None = None) -> Aggregator:
    """Shorten updates longer than a radius to it, and average.

    f attackers of n move the mean by ``radius * f / n`` at most. Clients count alike, whatever number of examples they
    claim.

    Args:
        radius: longest update that counts in full. Without it, the median length of the round's updates.

    Raises:
        ValueError: ``radius`` is not above 0.

    Source: Sun et al. (2019), Can you really backdoor federated learning?, section 4 (norm thresholding); Nguyen et al.
    (2022), FLAME: taming backdoors in federated learning, section 4.3, for the median length.
    """
    check_radius("norm_clipping", radius)
    return on_updates("norm_clipping", lambda updates: clipped(updates.rows, radius).mean(dim=0))
