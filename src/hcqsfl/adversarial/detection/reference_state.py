"""The distance of a row's state from one reference state: the mixture of all normal rows' states.

With ``rho`` the mixture, a row's pure state has fidelity ``<psi|rho|psi>`` with it. Their trace distance needs no
eigenvalues of a matrix for each row: ``|psi><psi| - rho`` has one positive eigenvalue, which is the distance, and which
solves ``sum_i |<i|psi>|^2 / (t + r_i) = 1`` over the eigenvalues ``r_i`` of ``rho``.

Source:
    Nielsen and Chuang (2010), Quantum Computation and Quantum Information, section 9.2 (both distances);
    Golub (1973), Some modified matrix eigenvalue problems, SIAM Review 15, 318, section 5 (rank-one change).
"""

import numpy as np
import torch

from hcqsfl.adversarial.detection import check_rows
from hcqsfl.adversarial.detection.feature_map import angles, median_bandwidth, quantum_kernel
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.registry import lookup

DISTANCES = {"fidelity": "one minus the fidelity", "trace": "trace distance"}


class Detector:
    """The distance from the mixture of normal states, in [0, 1].

    Args:
        distance: a key of ``DISTANCES``.
        circuit: name of the feature map, or the circuit itself.
        n_layers: layers of a circuit given by name.
        bandwidth: factor of the features; by the median rule if None.
        seed: of weights and bandwidth.
    """

    def __init__(
        self,
        distance: str = "fidelity",
        circuit: str | Circuit = "iqp",
        n_layers: int = 0,
        bandwidth: float | None = None,
        seed: int = 0,
    ) -> None:
        lookup("distance from a reference state", DISTANCES, distance)
        self.distance, self.circuit, self.n_layers = distance, circuit, n_layers
        self.bandwidth, self.seed = bandwidth, seed

    def fit(self, x: np.ndarray) -> "Detector":
        """Mix the states of normal rows ``(n, n_features)``.

        Raises:
            ValueError: the rows are too few, not finite, or do not fit the circuit.
        """
        rows = check_rows(x)
        self._kernel = quantum_kernel(rows.shape[1], self.circuit, "fidelity", 1.0, self.n_layers, self.seed)
        self.chosen_bandwidth = self.bandwidth or median_bandwidth(self._kernel, rows, self.seed)
        found = self._kernel.embed_all(angles(rows, self.chosen_bandwidth)).to(torch.complex128)
        values, vectors = torch.linalg.eigh(found.T @ found.conj() / len(found))
        self._values, self._vectors = values.clamp(min=0).numpy(), vectors
        return self

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return the distance of rows ``(n,)``."""
        turned = angles(check_rows(x, 0), self.chosen_bandwidth)
        if not len(turned):
            return np.empty(0)
        found = self._kernel.embed_all(turned).to(torch.complex128)
        share = (found @ self._vectors.conj()).abs().square().numpy()  # (n, 2**n_qubits)
        share /= share.sum(1, keepdims=True)
        if self.distance == "fidelity":
            outside: np.ndarray = 1 - share @ self._values
            return outside
        return trace_distances(share, self._values)


def trace_distances(share: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the trace distances ``(n,)`` of pure states from a mixture.

    Args:
        share: ``(n, d)`` squared overlap of each state with the mixture's eigenvectors.
        values: ``(d,)`` the mixture's eigenvalues.
    """
    low, high = np.zeros(len(share)), np.ones(len(share))
    for _ in range(54):  # to the last bit of [0, 1]
        middle = (low + high) / 2
        # the sum falls with t, and is 1 at the eigenvalue
        above = (share / (middle[:, None] + values)).sum(1) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
