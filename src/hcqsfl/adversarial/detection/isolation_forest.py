"""Isolation forest: rows that few random cuts set apart are unlike the rest.

Source: Liu, Ting and Zhou (2008), Isolation forest, ICDM; scikit-learn's implementation.
"""

import numpy as np
from sklearn.ensemble import IsolationForest

from hcqsfl.adversarial.detection import check_rows


class Detector:
    """The negative mean depth, normalised as in the paper: in [0, 1].

    Args:
        n_trees: how many.
        seed: of the cuts.
    """

    def __init__(self, n_trees: int = 200, seed: int = 0) -> None:
        self.n_trees, self.seed = n_trees, seed

    def fit(self, x: np.ndarray) -> "Detector":
        """Learn from normal rows ``(n, n_features)``."""
        self._forest = IsolationForest(n_estimators=self.n_trees, random_state=self.seed % 2**32).fit(check_rows(x))
        return self

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return the score of rows ``(n,)``."""
        rows = check_rows(x, 0)
        found: np.ndarray = -self._forest.score_samples(rows) if len(rows) else np.empty(0)
        return found
