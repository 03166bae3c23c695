"""Means with intervals over what is independent, for scores that are not about classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hcqsfl.randomness import numpy_generator


@dataclass(frozen=True)
class Mean:
    """A mean, and what it would be on other subjects.

    Attributes:
        value: mean of all rows.
        low, high: ends of the 95 % percentile interval; ``None`` with fewer than two units.
        n_units: subjects (or rows, where each is its own).
    """

    value: float
    low: float | None
    high: float | None
    n_units: int


def clustered_mean(
    values: np.ndarray, units: Sequence[str], seed: int, n_resamples: int = 2000, level: float = 0.95
) -> Mean:
    """Return the mean of ``values (n,)`` and its bootstrap interval, whole units drawn with replacement.

    Args:
        values: one score a row.
        units: whose each row is.
        seed: of the resampling.
        n_resamples: how many.
        level: of the interval.

    Raises:
        ValueError: there are no values, or as many units as values are not given.

    Source: Field & Welsh (2007), Bootstrapping clustered data, section 3.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values) or len(values) != len(units):
        raise ValueError(f"{len(values)} scores and {len(units)} units were given; there must be as many, at least 1")
    names, index = np.unique(np.asarray(units), return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    if len(names) < 2:
        return Mean(float(values.mean()), None, None, len(names))
    drawn = numpy_generator(seed, "clustered").integers(len(names), size=(n_resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Mean(float(values.mean()), float(low), float(high), len(names))
