"""How much of the labels an attack got back."""

import numpy as np

from hcqsfl.privacy.metrics.ranking import areas


def top_1(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return 1 where the class of the highest score ``(n, n_outputs)`` is the label ``(n,)``, else 0."""
    hits: np.ndarray = (np.asarray(scores).argmax(axis=1) == np.asarray(y)).astype(np.float64)
    return hits


def leak_auc(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the leak AUC: of the second class where there are two, else the mean over classes against the rest.

    Args:
        scores: ``(n, n_outputs)`` of the classes.
        y: ``(n,)`` labels; classes without a row, or with all rows, are left out of the mean.

    Returns:
        The area; NaN where one class has all rows.

    Source: Li et al. (2022), Label leakage and protection in two-party split learning, section 3 (leak AUC).
    """
    scores, y = np.asarray(scores), np.asarray(y)
    classes = np.array([1]) if scores.shape[1] == 2 else np.arange(scores.shape[1])
    each = areas(scores[:, classes], y[:, None] == classes)
    defined = each[np.isfinite(each)]
    return float(defined.mean()) if len(defined) else float("nan")


def majority(y: np.ndarray, n_outputs: int) -> np.ndarray:
    """Return scores ``(n, n_outputs)`` that name the most frequent class of the rows asked about, always.

    That is more than a trivial attacker knows, who would take the class that is most frequent elsewhere.
    """
    counts = np.bincount(np.asarray(y), minlength=n_outputs).astype(np.float64)
    return np.tile(counts, (len(y), 1))
