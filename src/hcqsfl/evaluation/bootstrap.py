"""Bootstrap intervals over what is independent: subjects, hosts, or rows.

Windows of one subject resemble one another, so whole subjects are drawn with replacement and every window of a drawn
subject comes along. Only sums are needed for that: the confusion matrix of a resample is the sum of those of the
subjects in it, each as often as it was drawn. Rows with the same truth and predictions are alike, so drawing rows is
drawing from the few patterns there are. A ranking is cumulated with each row weighted by how often it was drawn.

Source:
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13 (percentile interval);
    Field and Welsh (2007), Bootstrapping clustered data, section 3 (whole clusters are drawn).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hcqsfl.evaluation.classification import METRICS, Ranking, confusion_by_subject, value
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.randomness import numpy_generator
from hcqsfl.registry import lookup

# how many weights are held at once (those of a ranking in the processor's cache: four times as fast), and how many rows
# one ranking metric may visit before it resamples less often
_HELD = 4_000_000
_HELD_RANKED = 50_000
_VISITS = 50_000_000
_FEWEST = 500


@dataclass(frozen=True)
class Interval:
    """A metric and what it would be on other subjects.

    Attributes:
        value: on all rows, mean over seeds; None where the metric is undefined.
        low, high: ends of the percentile interval; both None where there is none, and ``method`` says why.
        n_units: how many subjects, hosts or rows were resampled.
        method: how, in words.
    """

    value: float | None
    low: float | None
    high: float | None
    n_units: int
    method: str


def interval(p: Predictions, metric: str, *, seed: int, n_resamples: int = 2000, level: float = 0.95) -> Interval:
    """Give the bootstrap interval of one metric of one run. See ``intervals``."""
    return interval_over_seeds([p], metric, seed=seed, n_resamples=n_resamples, level=level)


def interval_over_seeds(
    runs: Sequence[Predictions], metric: str, *, seed: int, n_resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Give the bootstrap interval of one metric, averaged over training seeds. See ``intervals``."""
    return intervals(runs, [metric], seed=seed, n_resamples=n_resamples, level=level)[metric]


def intervals(
    runs: Sequence[Predictions],
    metrics: Sequence[str],
    *,
    seed: int,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Give the percentile bootstrap interval of metrics, averaged over training seeds.

    A resample draws units once and scores every seed on them; so the interval speaks of other subjects, not of other
    seeds. The same ``seed`` draws the same subjects for every metric and every arm.

    Args:
        runs: predictions of each training seed; the folds of a seed pooled.
        metrics: names in ``METRICS``.
        seed: root seed of the resampling.
        n_resamples: how many resamples; a ranking metric of very many rows takes fewer, and says so.
        level: share of resamples inside the interval, in (0, 1).

    Raises:
        ValueError: there is no run, no such metric, or the runs differ in classes or unit.
    """
    if not 0 < level < 1 or n_resamples < 1:
        raise ValueError(
            f"an interval of level {level} from {n_resamples} resamples was asked for; the level must be between 0 "
            "and 1 and at least one resample drawn"
        )
    _check_alike(runs)
    unit, n_units = runs[0].unit, count_units(runs)
    result = {}
    for name in metrics:
        found = [v for v in (value(p, name) for p in runs) if v is not None]
        mean = float(np.mean(found)) if found else None
        if mean is None:
            result[name] = Interval(None, None, None, n_units, "undefined for these rows")
        elif n_units < 2:
            result[name] = Interval(mean, None, None, n_units, f"no interval: 1 {unit}, at least 2 are needed")
        else:
            drawn = replicates(runs, name, seed=seed, n_resamples=n_resamples)
            low, high, note = percentiles(drawn, level)
            method = f"percentile bootstrap, {len(drawn)} resamples of {n_units} {unit}s{_seeds(runs)}{note}"
            result[name] = Interval(mean, low, high, n_units, method)
    return result


def _seeds(runs: Sequence[Predictions]) -> str:
    if len(runs) == 1:
        return ""
    if runs[0].unit == "row" and not same_rows(runs):
        return f", ends averaged over {len(runs)} seeds whose test rows differ"
    return f", mean of {len(runs)} seeds"


def percentiles(drawn: np.ndarray, level: float) -> tuple[float | None, float | None, str]:
    """Return both ends of the percentile interval of resampled values, and a note on those that are undefined (NaN)."""
    defined = drawn[~np.isnan(drawn)]
    lost = len(drawn) - len(defined)
    if lost > len(drawn) / 2:
        return None, None, f"; no interval: undefined in {lost} of them"
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), f"; undefined in {lost} of them, left out" if lost else ""


def _check_alike(runs: Sequence[Predictions]) -> None:
    if not runs:
        raise ValueError("there are no predictions to resample")
    for other in runs[1:]:
        if (other.classes, other.unit) != (runs[0].classes, runs[0].unit):
            raise ValueError(
                f"the seeds differ: classes {runs[0].classes} by {runs[0].unit} and {other.classes} by {other.unit}"
            )


def count_units(runs: Sequence[Predictions]) -> int:
    """Return how many units the runs cover together (rows: those of the first run)."""
    if runs[0].unit == "row":
        return len(runs[0])
    return len(np.unique(np.concatenate([np.unique(p.subject) for p in runs])))


def same_rows(runs: Sequence[Predictions]) -> bool:
    """Whether all runs were tested on the same rows in the same order, as far as truth and subject tell."""
    first = runs[0]
    return all(np.array_equal(p.y, first.y) and np.array_equal(p.subject, first.subject) for p in runs[1:])


def replicates(runs: Sequence[Predictions], metric: str, *, seed: int, n_resamples: int) -> np.ndarray:
    """Return ``(n_resamples,)`` values of a metric, mean over the runs, one for each resample of the units.

    Values are NaN where the metric is undefined. Where runs by row were tested on different rows there is no joint
    resample: each run's values are sorted and averaged rank by rank, as if the runs erred together (the widest case).
    """
    each = replicates_of_each(runs, metric, seed=seed, n_resamples=n_resamples)
    if runs[0].unit == "row" and not same_rows(runs):
        each = np.sort(each, axis=1)  # NaN last
    return _mean(each)


def _mean(each: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(each)
    total, count = np.where(defined, each, 0.0).sum(axis=0), defined.sum(axis=0)
    return np.divide(total, count, out=np.full(each.shape[1], np.nan), where=count > 0)


def replicates_of_each(runs: Sequence[Predictions], metric: str, *, seed: int, n_resamples: int) -> np.ndarray:
    """Return ``(n_runs, n_resamples)`` values of a metric; runs on the same units share each resample of them."""
    how = lookup("metric", METRICS, metric)
    if runs[0].unit == "row" and len(runs) > 1 and not same_rows(runs):
        apart = [replicates_of_each([p], metric, seed=seed, n_resamples=n_resamples) for p in runs]
        return np.concatenate(apart)
    if how.of_confusion:
        counts = _by_row(runs) if runs[0].unit == "row" else _by_subject(runs)
        return np.concatenate(
            [
                np.stack([how.of_confusion(_summed(weights, c)) for c in counts.confusions])
                for weights in counts.draw(seed, n_resamples)
            ],
            axis=1,
        )
    if how.of_ranking is None or runs[0].n_classes != 2:
        raise ValueError(f"{metric} is defined for two classes; these predictions have {runs[0].n_classes}")
    n_rows = sum(map(len, runs))
    affordable = min(n_resamples, max(_FEWEST, _VISITS // n_rows))
    rankings = [Ranking.of(p) for p in runs]
    return np.concatenate(
        [
            np.stack([how.of_ranking(*r.cumulate(w[:, r.order])) for r, w in zip(rankings, by_row, strict=True)])
            for by_row in _row_weights(runs, seed, affordable)
        ],
        axis=1,
    )


@dataclass(frozen=True, eq=False)
class _Counts:
    """What is drawn, and the confusion matrix it brings along.

    Attributes:
        share: ``(m,)`` chance of each pattern or subject at one draw.
        n_draws: draws in one resample.
        confusions: for each run ``(m, k, k)``.
    """

    share: np.ndarray
    n_draws: int
    confusions: list[np.ndarray]

    def draw(self, seed: int, n_resamples: int) -> Iterator[np.ndarray]:
        """Yield ``(some, m)`` how often each was drawn, until there are ``n_resamples``."""
        generator = numpy_generator(seed, "bootstrap")
        for some in _chunks(n_resamples, len(self.share)):
            yield generator.multinomial(self.n_draws, self.share, size=some)


def _chunks(n_resamples: int, width: int, held: int = _HELD) -> Iterator[int]:
    at_once = max(1, held // width)
    for first in range(0, n_resamples, at_once):
        yield min(at_once, n_resamples - first)


def _summed(weights: np.ndarray, confusions: np.ndarray) -> np.ndarray:
    m, k, _ = confusions.shape
    return (weights.astype(float) @ confusions.reshape(m, k * k)).reshape(-1, k, k)


def _by_subject(runs: Sequence[Predictions]) -> _Counts:
    k = runs[0].n_classes
    units = np.unique(np.concatenate([np.unique(p.subject) for p in runs]))
    confusions = []
    for p in runs:
        subjects, counts = confusion_by_subject(p)
        spread = np.zeros((len(units), k, k))
        spread[np.searchsorted(units, subjects)] = counts
        confusions.append(spread)
    return _Counts(np.full(len(units), 1 / len(units)), len(units), confusions)


def _by_row(runs: Sequence[Predictions]) -> _Counts:
    k = runs[0].n_classes
    seen = np.stack([runs[0].y, *(p.predicted for p in runs)], axis=1)  # (n, 1 + n_runs)
    patterns, often = np.unique(seen, axis=0, return_counts=True)
    confusions = []
    for run in range(1, seen.shape[1]):
        one = np.zeros((len(patterns), k, k))
        one[np.arange(len(patterns)), patterns[:, 0], patterns[:, run]] = 1
        confusions.append(one)
    return _Counts(often / often.sum(), int(often.sum()), confusions)


def _row_weights(runs: Sequence[Predictions], seed: int, n_resamples: int) -> Iterator[list[np.ndarray]]:
    """Yield for each run ``(some, n)``, how often each of its rows is in a resample."""
    if runs[0].unit == "row":
        n = len(runs[0])
        generator = numpy_generator(seed, "bootstrap", "rows")
        for some in _chunks(n_resamples, n, _HELD_RANKED):
            drawn = [np.bincount(generator.integers(n, size=n), minlength=n) for _ in range(some)]
            yield [np.stack(drawn)] * len(runs)
        return
    counts = _by_subject(runs)
    units = np.unique(np.concatenate([np.unique(p.subject) for p in runs]))
    places = [np.searchsorted(units, p.subject) for p in runs]
    at_once = max(1, _HELD_RANKED // max(map(len, runs)))
    for weights in counts.draw(seed, n_resamples):
        for first in range(0, len(weights), at_once):
            part = weights[first : first + at_once]
            yield [part[:, place] for place in places]
