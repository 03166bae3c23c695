"""Thresholds, and shares with their intervals."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


def threshold(normal_scores: np.ndarray, false_alarms: float = 0.01) -> float:
    """Return the lowest score that at most a given share of held-out normal rows exceed.

    A row is an alarm where its score is above it. With fewer than ``1 / false_alarms`` rows it is the highest score. It
    is raised by a millionth of the largest score, for rows that are equal may score a rounding apart.

    Args:
        normal_scores: ``(n,)`` scores of normal rows that the detector was not fitted on.
        false_alarms: share of them that may be alarms, in [0, 1).

    Raises:
        ValueError: there is no score, one is not finite, or the share is outside [0, 1).
    """
    scores = np.sort(np.asarray(normal_scores, dtype=np.float64))
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"a threshold needs finite scores of held-out normal rows; there are {len(scores)}")
    if not 0 <= false_alarms < 1:
        raise ValueError(f"the share of false alarms lies in [0, 1), not {false_alarms}")
    highest = scores[len(scores) - 1 - math.floor(false_alarms * len(scores) + 1e-9)]
    return float(highest + 1e-6 * np.abs(scores).max())


@dataclass(frozen=True)
class Share:
    """``count`` of ``total``, and Wilson's interval of the share.

    Attributes:
        count, total: whole numbers.
        low, high: ends of the interval; 0 and 1 where ``total`` is 0.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22, 209.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """The share, or None of nothing."""
        return self.count / self.total if self.total else None

    def __str__(self) -> str:
        if not self.total:
            return "- (0/0)"
        return f"{self.count / self.total:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.count}/{self.total})"


def wilson(count: int, total: int, level: float = 0.95) -> Share:
    """Return a share with Wilson's interval, which holds for trials that are independent.

    Raises:
        ValueError: ``count`` is not between 0 and ``total``, or ``level`` not between 0 and 1.
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count} of {total} is no share")
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, not {level}")
    if not total:
        return Share(0, 0, 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, shrink = count / total, 1 + z**2 / total
    middle = (p + z**2 / (2 * total)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    # at the ends the formula is 0 or 1 but for rounding
    return Share(
        count, total, 0.0 if count == 0 else max(0.0, middle - half), 1.0 if count == total else min(1.0, middle + half)
    )
