"""How well members of the training are told from others, where it matters: at few false alarms."""

import numpy as np
from scipy.stats import beta

ENOUGH = 10
"""False alarms that a rate must rest on: a rate of 0.1 % needs 10 000 non-members."""


def tpr_at_fpr(scores: np.ndarray, member: np.ndarray, fpr: float) -> float:
    """Return the share of members above the lowest threshold that at most ``fpr`` of the non-members exceed.

    Args:
        scores: ``(n,)``, the higher the likelier a member.
        member: ``(n,)`` bool.
        fpr: false-positive rate, in [0, 1].

    Returns:
        The true-positive rate; NaN where one kind is absent.

    Source: Carlini et al. (2022), Membership inference attacks from first principles, section 3.
    """
    member = np.asarray(member, dtype=bool)
    inside, outside = scores[member], np.sort(scores[~member])[::-1]
    if not len(inside) or not len(outside):
        return float("nan")
    allowed = int(np.floor(fpr * len(outside) + 1e-9))
    threshold = outside[allowed] if allowed < len(outside) else -np.inf
    return float((inside > threshold).mean())


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a share of ``hits`` in ``n`` independent rows.

    Source: Clopper & Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the binomial.
    """
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def enough(n_outside: int, fpr: float) -> bool:
    """Return whether ``n_outside`` non-members can carry a rate of ``fpr``: ten of them must be false alarms."""
    return n_outside * fpr >= ENOUGH - 1e-9


def roc(scores: np.ndarray, member: np.ndarray, n_points: int = 60) -> tuple[list[float], list[float]]:
    """Return false- and true-positive rates from strict to lax, thinned out evenly on a logarithmic axis.

    Args:
        scores, member: as in ``tpr_at_fpr``.
        n_points: at most so many.
    """
    member = np.asarray(member, dtype=bool)
    n_outside = int((~member).sum())
    counts = np.unique(np.geomspace(1, n_outside, n_points).round().astype(int)) if n_outside else np.array([], int)
    rates = [0.0, *(counts / max(n_outside, 1)).tolist()]
    return rates, [tpr_at_fpr(scores, member, rate) for rate in rates]
