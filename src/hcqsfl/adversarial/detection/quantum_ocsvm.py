"""A one-class support vector machine over a quantum kernel.

Up to ``NYSTROEM_ABOVE`` training rows the Gram matrix is exact; above, Nyström's features feed a linear machine.

Source:
    Schölkopf et al. (2001), Estimating the support of a high-dimensional distribution, Neural Computation 13, 1443;
    Kölle et al. (2023), Towards efficient quantum anomaly detection: one-class SVMs using variable subsampling and
    randomized measurements, arXiv:2312.09174, for the quantum kernel.
"""

import numpy as np
from sklearn.svm import OneClassSVM

from hcqsfl.adversarial.detection import check_rows
from hcqsfl.adversarial.detection.feature_map import angles, median_bandwidth, quantum_kernel
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.quantum.kernel import NYSTROEM_ABOVE, Nystroem

_ROWS_AT_ONCE = 4096


class Detector:
    """The distance below the machine's boundary.

    Args:
        circuit: name of the feature map, or the circuit itself; one qubit a feature where a name is given.
        n_layers: layers of a circuit given by name.
        kind: ``"fidelity"`` or ``"projected"``.
        gamma: of the projected kernel.
        nu: bound on the share of training rows left outside. It sets no threshold here, held-out rows do; with a small
            one the few support vectors are the oddest normal rows, and rows beside them look most normal of all.
        bandwidth: factor of the features; by the median rule if None.
        n_landmarks: of Nyström's approximation.
        nystroem_above: training rows beyond which it is used.
        seed: of weights, bandwidth and landmarks.
    """

    def __init__(
        self,
        circuit: str | Circuit = "iqp",
        n_layers: int = 0,
        kind: str = "fidelity",
        gamma: float = 1.0,
        nu: float = 0.5,
        bandwidth: float | None = None,
        n_landmarks: int = 500,
        nystroem_above: int = NYSTROEM_ABOVE,
        seed: int = 0,
    ) -> None:
        if not 0 < nu <= 1:
            raise ValueError(f"the nu of a one-class machine lies in (0, 1], not {nu}")
        self.circuit, self.n_layers, self.kind, self.gamma, self.nu = circuit, n_layers, kind, gamma, nu
        self.bandwidth, self.n_landmarks, self.nystroem_above, self.seed = bandwidth, n_landmarks, nystroem_above, seed

    def fit(self, x: np.ndarray) -> "Detector":
        """Learn from normal rows ``(n, n_features)``.

        Raises:
            ValueError: the rows are too few, not finite, or do not fit the circuit.
        """
        rows = check_rows(x)
        self._kernel = quantum_kernel(rows.shape[1], self.circuit, self.kind, self.gamma, self.n_layers, self.seed)
        self.chosen_bandwidth = self.bandwidth or median_bandwidth(self._kernel, rows, self.seed)
        turned = angles(rows, self.chosen_bandwidth)
        self._nystroem: Nystroem | None = None
        if len(rows) > self.nystroem_above:
            self._nystroem = Nystroem.fit(self._kernel, turned, self.n_landmarks, self.seed)
            self._machine = OneClassSVM(kernel="linear", nu=self.nu).fit(self._nystroem(turned))
            return self
        self._machine = OneClassSVM(kernel="precomputed", nu=self.nu).fit(self._kernel.gram(turned))
        # only the support vectors are compared with from now on
        self._support = turned[self._machine.support_]
        self._weights = self._machine.dual_coef_[0]
        return self

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return how far rows lie outside, ``(n,)``."""
        turned = angles(check_rows(x, 0), self.chosen_bandwidth)
        parts = [turned[i : i + _ROWS_AT_ONCE] for i in range(0, len(turned), _ROWS_AT_ONCE)]
        if self._nystroem is not None:
            found = [-self._machine.decision_function(self._nystroem(part)) for part in parts]
        else:
            offset = float(self._machine.offset_[0])
            found = [offset - self._kernel.gram(part, self._support) @ self._weights for part in parts]
        return np.concatenate([np.empty(0), *found])
