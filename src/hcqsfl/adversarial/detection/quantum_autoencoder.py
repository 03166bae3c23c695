"""A quantum autoencoder: a circuit that learns to leave some qubits of every normal row's state in zero.

What fits into the other qubits is compressed without loss; a row whose state leaves something in the trash qubits is
unlike the normal ones.

Source:
    Romero, Olson and Aspuru-Guzik (2017), Quantum autoencoders for efficient compression of quantum data, Quantum Sci.
    Technol. 2, 045001: the cost is one minus the chance that all trash qubits are zero.
"""

import math

import numpy as np
import torch
from torch import Tensor

from hcqsfl.adversarial.detection import check_rows
from hcqsfl.adversarial.detection.feature_map import as_tensor, median_bandwidth
from hcqsfl.quantum.circuits import make
from hcqsfl.quantum.kernel import QuantumKernel
from hcqsfl.quantum.states import states
from hcqsfl.randomness import numpy_generator, torch_generator


class Detector:
    """One minus the chance that all trash qubits are found in zero.

    Args:
        n_trash: qubits to empty, the last ones; half of them if None.
        n_layers: strongly entangling layers of the encoder.
        steps, batch_size, learning_rate: of Adam.
        bandwidth: factor of the features; by the median rule if None.
        seed: of weights and batches.
    """

    def __init__(
        self,
        n_trash: int | None = None,
        n_layers: int = 3,
        steps: int = 200,
        batch_size: int = 128,
        learning_rate: float = 0.05,
        bandwidth: float | None = None,
        seed: int = 0,
    ) -> None:
        self.n_trash, self.n_layers, self.steps, self.batch_size = n_trash, n_layers, steps, batch_size
        self.learning_rate, self.bandwidth, self.seed = learning_rate, bandwidth, seed

    def fit(self, x: np.ndarray) -> "Detector":
        """Learn from normal rows ``(n, n_features)``.

        Raises:
            ValueError: the rows are too few or not finite, or ``n_trash`` leaves nothing or takes nothing.
        """
        rows = check_rows(x)
        n = rows.shape[1]
        self._trash = n // 2 if self.n_trash is None else self.n_trash
        if not 1 <= self._trash < n:
            raise ValueError(f"an autoencoder of {n} qubits empties 1 to {n - 1} of them, not {self._trash}")
        self._circuit = make("strongly_entangling", n, self.n_layers)
        generator = torch_generator(self.seed, "quantum autoencoder")
        weights = torch.rand(self._circuit.weight_shape, generator=generator) * 2 * math.pi
        self.chosen_bandwidth = self.bandwidth or median_bandwidth(
            QuantumKernel(self._circuit, weights=weights), rows, self.seed
        )
        turned = as_tensor(rows, self.chosen_bandwidth)
        self._weights = weights.requires_grad_()
        optimizer = torch.optim.Adam([self._weights], lr=self.learning_rate)
        batches = numpy_generator(self.seed, "quantum autoencoder", "batches")
        self.losses: list[float] = []
        for _ in range(self.steps):
            batch = turned[batches.integers(len(turned), size=min(self.batch_size, len(turned)))]
            loss = self._left_over(batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.losses.append(loss.item())
        return self

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return what rows leave in the trash qubits, ``(n,)`` in [0, 1]."""
        with torch.no_grad():
            parts = [self._left_over(part) for part in as_tensor(check_rows(x, 0), self.chosen_bandwidth).split(4096)]
        return torch.cat(parts).double().numpy()

    def _left_over(self, turned: Tensor) -> Tensor:
        found = states(self._circuit, turned, self._weights)
        kept = found[:, :: 2**self._trash]  # the last qubits all zero
        return 1 - (kept.real.square() + kept.imag.square()).sum(1)
