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
    positive = np.asarray(positive, dtype=bool)
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if not n_pos or not n_neg:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))
