"""The quantile scale without its overhead: the arithmetic of scikit-learn's transformer, on tables made once."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri
from sklearn.preprocessing import QuantileTransformer

EDGE = 1e-7
"""How near the ends of the table a value counts as the end, and how near to 0 and 1 its share is held."""
LOWEST, HIGHEST = (float(ndtri(share)) for share in (EDGE - np.spacing(1), 1 - (EDGE - np.spacing(1))))


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Columns to a normal distribution by their quantiles in training, and back. Make one with ``fit``.

    scikit-learn fits. Its transformer takes some 10 ms to scale 64 rows of 15 columns, nearly all of it in the checks
    of ``scipy.stats``; a search among flows asks for that at every step.

    Attributes:
        points: ``(n_columns, n_quantiles)`` each column's quantiles, ascending.
        shares: ``(n_quantiles,)`` from 0 to 1, which they are.
        negated: ``points`` and ``shares`` negated and turned round, so that they ascend again.

    Source: scikit-learn's ``QuantileTransformer`` with ``output_distribution="normal"``, to the bit.
    """

    points: np.ndarray
    shares: np.ndarray
    negated: tuple[np.ndarray, np.ndarray]

    @classmethod
    def fit(cls, values: np.ndarray, seed: int) -> "Quantiles":
        """Learn from ``(n, n_columns)``; up to 1000 quantiles, of up to 10,000 rows that the seed draws."""
        n = min(1000, len(values))
        fitted = QuantileTransformer(n_quantiles=n, output_distribution="normal", random_state=seed).fit(values)
        points, shares = np.ascontiguousarray(fitted.quantiles_.T), fitted.references_
        return cls(points, shares, (np.ascontiguousarray(-points[:, ::-1]), np.ascontiguousarray(-shares[::-1])))

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return ``(n, n_columns)`` normal values; missing ones stay missing.

        A value that many training rows share is a step of the scale, and gets the middle of it.
        """
        made = np.empty(values.shape)
        negated, negated_shares = self.negated
        for i, points in enumerate(self.points):
            x = np.ascontiguousarray(values[:, i])
            rising = np.interp(x, points, self.shares)
            share = 0.5 * (rising - np.interp(-x, negated[i], negated_shares))
            share[x + EDGE > points[-1]] = 1.0
            share[x - EDGE < points[0]] = 0.0
            made[:, i] = share
        return np.clip(ndtri(made), LOWEST, HIGHEST)

    def inverse_transform(self, scaled: np.ndarray) -> np.ndarray:
        """Return ``(n, n_columns)`` values in the columns' own units."""
        shares, made = ndtr(scaled), np.empty(scaled.shape)
        for i, points in enumerate(self.points):
            share = np.ascontiguousarray(shares[:, i])
            value = np.interp(share, self.shares, points)
            value[share + EDGE > 1.0] = points[-1]
            value[share - EDGE < 0.0] = points[0]
            made[:, i] = value
        return made
