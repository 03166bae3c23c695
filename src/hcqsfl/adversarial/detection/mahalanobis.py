"""Mahalanobis distance from the mean of the normal rows, the covariance shrunk.

Source: Mahalanobis (1936); Ledoit and Wolf (2004), A well-conditioned estimator for large-dimensional covariance
matrices, J. Multivariate Analysis 88, 365, as in scikit-learn.
"""

import numpy as np
from sklearn.covariance import LedoitWolf

from hcqsfl.adversarial.detection import check_rows


class Detector:
    """The squared distance.

    Args:
        seed: plays no part; nothing is drawn.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, x: np.ndarray) -> "Detector":
        """Learn from normal rows ``(n, n_features)``."""
        self._covariance = LedoitWolf().fit(check_rows(x))
        return self

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return the squared distance of rows ``(n,)``."""
        rows = check_rows(x, 0)
        found: np.ndarray = self._covariance.mahalanobis(rows) if len(rows) else np.empty(0)
        return found
