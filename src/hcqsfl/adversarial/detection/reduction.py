"""Many columns to as many features as there are qubits, learnt from normal rows."""

from dataclasses import dataclass

import numpy as np

from hcqsfl.adversarial.detection import check_rows


@dataclass(frozen=True, eq=False)
class Reduction:
    """Principal components of the normal rows, and what they leave over; each of deviation 1 over the normal rows.

    The last feature is the logarithm of the squared distance from the components' plane. An attack often moves in
    directions in which normal rows do not vary, and components alone would not see it.

    Make one with ``fit``.

    Attributes:
        centre: ``(n_columns,)`` mean of the normal rows.
        axes: ``(n_features - 1, n_columns)`` components, of length 1.
        shift, scale: ``(n_features,)`` of the features.

    Source:
        Jackson and Mudholkar (1979), Control procedures for residuals associated with principal component analysis,
        Technometrics 21, 341: components and residual are watched side by side.
    """

    centre: np.ndarray
    axes: np.ndarray
    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, n_features: int) -> "Reduction":
        """Learn from normal rows ``(n, n_columns)``.

        Raises:
            ValueError: fewer than 2 features are asked for, or more than columns and rows allow.
        """
        rows = check_rows(x)
        if not 2 <= n_features <= min(rows.shape) + 1:
            raise ValueError(
                f"{n_features} features cannot be had of {rows.shape[0]} rows of {rows.shape[1]} columns: "
                f"at least 2 and at most {min(rows.shape) + 1}"
            )
        centre = rows.mean(0)
        values, vectors = np.linalg.eigh(np.cov(rows.T).reshape(rows.shape[1], -1))
        axes = vectors[:, np.argsort(-values, kind="stable")[: n_features - 1]].T
        axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]  # a sign that rounding cannot turn
        raw = cls(centre, axes, np.zeros(n_features), np.ones(n_features))(rows)
        deviation = raw.std(0)
        # a feature that never moves in normal rows keeps its own unit
        return cls(centre, axes, raw.mean(0), np.where(deviation > 1e-9, deviation, 1.0))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the features ``(n, n_features)`` of rows ``(n, n_columns)``."""
        centred = np.asarray(x, dtype=np.float64) - self.centre
        along = centred @ self.axes.T
        left = np.square(centred - along @ self.axes).sum(1)
        features = np.concatenate([along, np.log(left + 1e-6)[:, None]], axis=1)
        reduced: np.ndarray = (features - self.shift) / self.scale
        return reduced
