"""An autoencoder: a small network that learns to pass normal rows through a bottleneck of half their width.

Source: Sakurada and Yairi (2014), Anomaly detection using autoencoders with nonlinear dimensionality reduction, MLSDA.
"""

import numpy as np
import torch
from torch import nn

from hcqsfl.adversarial.detection import check_rows
from hcqsfl.randomness import numpy_generator, torch_seeded


class Detector:
    """The mean squared error of the reconstruction.

    Args:
        width: of the hidden layers.
        n_latent: of the bottleneck; half the features if None, as the quantum autoencoder keeps half its qubits.
        steps, batch_size, learning_rate: of Adam.
        seed: of weights and batches.
    """

    def __init__(
        self,
        width: int = 32,
        n_latent: int | None = None,
        steps: int = 600,
        batch_size: int = 128,
        learning_rate: float = 0.005,
        seed: int = 0,
    ) -> None:
        self.width, self.n_latent, self.steps, self.batch_size = width, n_latent, steps, batch_size
        self.learning_rate, self.seed = learning_rate, seed

    def fit(self, x: np.ndarray) -> "Detector":
        """Learn from normal rows ``(n, n_features)``.

        Raises:
            ValueError: the rows are too few or not finite, or the bottleneck is none.
        """
        rows = torch.as_tensor(check_rows(x), dtype=torch.float32)
        n = rows.shape[1]
        latent = max(1, n // 2) if self.n_latent is None else self.n_latent
        if latent < 1:
            raise ValueError(f"the bottleneck of an autoencoder is at least 1 wide, not {latent}")
        with torch_seeded(self.seed, "autoencoder"):
            self._network = nn.Sequential(
                nn.Linear(n, self.width),
                nn.Tanh(),
                nn.Linear(self.width, latent),
                nn.Linear(latent, self.width),
                nn.Tanh(),
                nn.Linear(self.width, n),
            )
        optimizer = torch.optim.Adam(self._network.parameters(), lr=self.learning_rate)
        batches = numpy_generator(self.seed, "autoencoder", "batches")
        for _ in range(self.steps):
            batch = rows[batches.integers(len(rows), size=min(self.batch_size, len(rows)))]
            loss = (self._network(batch) - batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return the error of rows ``(n,)``."""
        rows = torch.as_tensor(check_rows(x, 0), dtype=torch.float32)
        with torch.no_grad():
            found: np.ndarray = (self._network(rows) - rows).square().mean(1).double().numpy()
        return found
