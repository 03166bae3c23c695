"""Means with intervals over what is independent, for scores that are not about classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hcqsfl.randomness import numpy_generator

MOST_UNITS = 500
"""Units of which each one's contribution is told."""


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


Statistic = Callable[[np.ndarray], float]
"""From the places of rows, which may repeat, to a score of those rows."""


@dataclass(frozen=True)
class Comparison:
    """A score, a trivial one, and how far apart they are on the same rows.

    Attributes:
        score: of the attack, with its interval over units.
        baseline: of the trivial guess.
        gain: of the attack over the trivial guess, positive where the attack is better; the interval is paired.
        influence: unit to what it contributes to the gain, by the jackknife: the sum of squares is the gain's variance.
            Empty with fewer than two units, with more than ``MOST_UNITS``, or where the gain is not defined without
            one.
        own: the same of the score by itself.
    """

    score: Mean
    baseline: float
    gain: Mean
    influence: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, float] = field(default_factory=dict)


def compare(
    attack: Statistic,
    baseline: Statistic,
    units: Sequence[str],
    seed: int,
    n_resamples: int = 2000,
    level: float = 0.95,
    *,
    higher: bool = True,
) -> Comparison:
    """Return an attack's score beside a trivial one, whole units drawn with replacement for both alike.

    A resample on which a score is not defined (no member drawn, say) is left out.

    Args:
        attack, baseline: score rows by their places.
        units: whose each row is.
        seed: of the resampling.
        n_resamples: how many.
        level: of the intervals.
        higher: whether a higher score is a better attack.

    Raises:
        ValueError: there are no rows.

    Source: Field & Welsh (2007), Bootstrapping clustered data, section 3.
    """
    if not len(units):
        raise ValueError("there are no rows to score")
    names, index = np.unique(np.asarray(units), return_inverse=True)
    members = [np.flatnonzero(index == k) for k in range(len(names))]
    sign = 1.0 if higher else -1.0
    everything = np.arange(len(units))
    score, trivial = attack(everything), baseline(everything)
    drawn = np.empty((0, 2))
    if len(names) > 1:
        generator = numpy_generator(seed, "compare")
        rows = [
            np.concatenate([members[k] for k in generator.integers(len(names), size=len(names))])
            for _ in range(n_resamples)
        ]
        drawn = np.array([(attack(row), baseline(row)) for row in rows])
        drawn = drawn[np.isfinite(drawn).all(axis=1)]

    def mean(value: float, each: np.ndarray) -> Mean:
        if not len(each):
            return Mean(value, None, None, len(names))
        low, high = np.quantile(each, [(1 - level) / 2, (1 + level) / 2])
        return Mean(value, float(low), float(high), len(names))

    gains = sign * (drawn[:, 0] - drawn[:, 1])
    influence: dict[str, float] = {}
    own: dict[str, float] = {}
    if 1 < len(names) <= MOST_UNITS:
        others = [everything[index != k] for k in range(len(names))]
        without = np.array([(attack(rows), baseline(rows)) for rows in others])
        influence = _jackknife(names, sign * (without[:, 0] - without[:, 1]))
        own = _jackknife(names, without[:, 0])
    return Comparison(mean(score, drawn[:, 0]), trivial, mean(sign * (score - trivial), gains), influence, own)


def _jackknife(names: np.ndarray, without: np.ndarray) -> dict[str, float]:
    """Return what each unit contributes, from a statistic's values without each; nothing where one is not defined."""
    if not np.isfinite(without).all():
        return {}
    scale = ((len(names) - 1) / len(names)) ** 0.5
    return dict(zip(names.tolist(), (scale * (without.mean() - without)).tolist(), strict=True))


N_BLOCKS = 50
"""Stretches of time, of as many rows each, that a recording order is cut into."""


def time_blocks(recording: np.ndarray, start: np.ndarray, n_blocks: int = N_BLOCKS) -> list[str]:
    """Return the stretch of time that each row is in: what is resampled where neighbours in time are alike.

    Flows come in bursts, so that rows are far from independent; stretches much longer than a burst nearly are.

    Args:
        recording, start: ``(n,)`` where each row was.
        n_blocks: stretches, as long as one another in rows; no more than half of the rows.

    Source: Künsch (1989), The jackknife and the bootstrap for general stationary observations, section 2 (blocks, here
    without overlap: Carlstein 1986).
    """
    order = np.lexsort((start, recording))
    n = max(1, min(n_blocks, len(order) // 2))
    block = np.empty(len(order), dtype=np.int64)
    block[order] = np.arange(len(order)) * n // max(len(order), 1)
    return [f"stretch {i}" for i in block.tolist()]
