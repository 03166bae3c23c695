"""Areas under curves, fast enough to resample."""

import numpy as np
from scipy.stats import rankdata


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a positive outranks a negative, ties counted half.

    Args:
        scores: ``(n,)``, the higher the likelier positive.
        positive: ``(n,)`` bool.

    Returns:
        The area; NaN where all rows are of one kind.

    Source: Hanley & McNeil (1982), The meaning and use of the area under a ROC curve, section 3 (Wilcoxon statistic).
    """
    return float(areas(np.asarray(scores)[:, None], np.asarray(positive, dtype=bool)[:, None])[0])


def areas(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return ``auc`` of each column of ``scores (n, k)`` and ``positive (n, k)``."""
    n_pos = np.count_nonzero(positive, axis=0)
    pairs = n_pos * (len(positive) - n_pos)
    above = (rankdata(scores, axis=0) * positive).sum(axis=0) - n_pos * (n_pos + 1) / 2
    return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)
