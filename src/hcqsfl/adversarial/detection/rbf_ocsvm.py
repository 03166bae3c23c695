"""A one-class support vector machine over a Gaussian kernel: the classical twin of ``quantum_ocsvm``.

Source: Schölkopf et al. (2001), Neural Computation 13, 1443; scikit-learn's implementation.
"""

import math

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.svm import OneClassSVM

from hcqsfl.adversarial.detection import check_rows
from hcqsfl.adversarial.detection.feature_map import ROWS
from hcqsfl.randomness import numpy_generator


class Detector:
    """The distance below the machine's boundary.

    Args:
        gamma: of the kernel; if None such that the median kernel value between normal rows is one half, as for the
            quantum kernel.
        nu: bound on the share of training rows left outside. It sets no threshold here, held-out rows do; with a small
            one the few support vectors are the oddest normal rows, and rows beside them look most normal of all.
        seed: draws the rows of the median.
    """

    def __init__(self, gamma: float | None = None, nu: float = 0.5, seed: int = 0) -> None:
        if not 0 < nu <= 1:
            raise ValueError(f"the nu of a one-class machine lies in (0, 1], not {nu}")
        self.gamma, self.nu, self.seed = gamma, nu, seed

    def fit(self, x: np.ndarray) -> "Detector":
        """Learn from normal rows ``(n, n_features)``."""
        rows = check_rows(x)
        some = rows[numpy_generator(self.seed, "bandwidth").permutation(len(rows))[:ROWS]]
        squared = float(np.median(pdist(some, "sqeuclidean")))
        self.chosen_gamma = self.gamma or (math.log(2) / squared if squared > 0 else 1.0)
        self._machine = OneClassSVM(kernel="rbf", gamma=self.chosen_gamma, nu=self.nu).fit(rows)
        return self

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return how far rows lie outside, ``(n,)``."""
        rows = check_rows(x, 0)
        found: np.ndarray = -self._machine.decision_function(rows) if len(rows) else np.empty(0)
        return found
