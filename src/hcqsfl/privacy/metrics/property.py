"""How well a property that nobody meant to reveal is inferred."""

import numpy as np


def balanced_accuracy(guessed: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over the values that occur of how often each is guessed rightly.

    Args:
        guessed, truth: ``(n,)`` values.

    Source: Brodersen et al. (2010), The balanced accuracy and its posterior distribution, section II.
    """
    guessed, truth = np.asarray(guessed), np.asarray(truth)
    return float(np.mean([(guessed[truth == value] == value).mean() for value in np.unique(truth)]))
