"""Whether one arm is better than another, paired over subjects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata, wilcoxon

from hcqsfl.evaluation.bootstrap import count_units, percentiles, replicates_of_each, same_rows
from hcqsfl.evaluation.classification import METRICS, confusion_by_subject, per_subject, value
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.randomness import numpy_generator
from hcqsfl.registry import lookup

FEWEST_PAIRS = 6
MOST_EXACT = 500


@dataclass(frozen=True)
class Comparison:
    """The difference of two arms in one metric, first minus second.

    Attributes:
        metric: its name.
        difference: mean over subjects of the difference (by row: difference of the pooled metric), mean over seeds;
            None where the metric is undefined.
        low, high: ends of the 95 % bootstrap interval, None where there is none.
        p_value: two-sided, None where no test can be made; ``test`` says why.
        n_units: pairs of subjects or hosts, or rows.
        test: what was done, in words.
    """

    metric: str
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n_units: int
    test: str


def paired(
    a: Sequence[Predictions], b: Sequence[Predictions], metric: str, *, seed: int, n_resamples: int = 2000
) -> Comparison:
    """Compare two arms on the same test rows: ``a`` minus ``b``.

    With two or more subjects (or hosts) the metric of each subject is averaged over seeds and the differences are
    paired over subjects: bootstrap interval of their mean, and Wilcoxon's signed-rank test from six pairs on, exact up
    to 500 (with five pairs its smallest two-sided p-value is 0.0625). With rows as units, or one subject, rows are
    resampled in pairs and the difference is that of the pooled metric.

    Args:
        a: predictions of the first arm, one for each training seed, folds pooled.
        b: those of the second arm, seed by seed on the same rows.
        metric: name in ``METRICS``.
        seed: root seed of the resampling.
        n_resamples: how many resamples.

    Raises:
        ValueError: the arms differ in seeds or in test rows, or there is no such metric.
    """
    lookup("metric", METRICS, metric)
    if len(a) != len(b) or not a:
        raise ValueError(f"arms are paired seed by seed, but the first has {len(a)} seeds and the second {len(b)}")
    for i, (one, other) in enumerate(zip(a, b, strict=True)):
        if one.classes != other.classes or one.unit != other.unit or not same_rows([one, other]):
            raise ValueError(f"the arms were not tested on the same rows at seed number {i}, so they cannot be paired")
    if a[0].unit == "row" or count_units([*a]) == 1:
        return _over_rows(a, b, metric, seed, n_resamples)
    return _over_subjects(a, b, metric, seed, n_resamples)


def _over_subjects(
    a: Sequence[Predictions], b: Sequence[Predictions], metric: str, seed: int, n_resamples: int
) -> Comparison:
    unit = a[0].unit
    first, second = _subject_means(a, metric), _subject_means(b, metric)
    subjects = [s for s in first if s in second]
    left_out = count_units(a) - len(subjects)
    note = f"; {left_out} {unit}s left out, {metric} is undefined for them" if left_out else ""
    d = np.array([first[s] - second[s] for s in subjects])
    n = len(d)
    if n == 0:
        return Comparison(metric, None, None, None, None, 0, f"{metric} is undefined for every {unit}")
    low = high = None
    if n >= 2:
        draws = numpy_generator(seed, "bootstrap").multinomial(n, np.full(n, 1 / n), size=n_resamples)
        low, high, _ = percentiles(draws @ d / n, 0.95)
    if n < FEWEST_PAIRS:
        test = (
            f"no test: with {n} {unit}{'s' * (n > 1)} the smallest exact two-sided p-value is {0.5 ** (n - 1):g}{note}"
        )
        return Comparison(metric, float(d.mean()), low, high, None, n, test)
    exact = n <= MOST_EXACT
    p_value = signed_rank(d) if exact else float(wilcoxon(d, method="asymptotic").pvalue)
    how = "exact Wilcoxon signed-rank" if exact else "Wilcoxon signed-rank, normal approximation,"
    return Comparison(metric, float(d.mean()), low, high, p_value, n, f"{how} over {n} {unit}s, two-sided{note}")


def _subject_means(runs: Sequence[Predictions], metric: str) -> dict[str, float]:
    """Return the metric of each subject, mean over the seeds in which it is defined."""
    found: dict[str, list[float]] = {}
    for p in runs:
        for subject, number in _by_subject(p, metric).items():
            if number is not None:
                found.setdefault(subject, []).append(number)
    return {subject: float(np.mean(numbers)) for subject, numbers in sorted(found.items())}


def _by_subject(p: Predictions, metric: str) -> dict[str, float | None]:
    of_confusion = METRICS[metric].of_confusion
    if of_confusion:
        subjects, counts = confusion_by_subject(p)
        return dict(zip(subjects.tolist(), of_confusion(counts).tolist(), strict=True))
    return {subject: row[metric] for subject, row in per_subject(p).items()}


def _over_rows(
    a: Sequence[Predictions], b: Sequence[Predictions], metric: str, seed: int, n_resamples: int
) -> Comparison:
    rows = [replace(p, unit="row") for p in (*a, *b)]
    one_subject = a[0].unit != "row"
    n = len(rows[0])
    differences = [
        one - other
        for one, other in zip([value(p, metric) for p in a], [value(p, metric) for p in b], strict=True)
        if one is not None and other is not None
    ]
    if not differences:
        return Comparison(metric, None, None, None, None, n, f"{metric} is undefined for these rows")
    if same_rows(rows):
        each = replicates_of_each(rows, metric, seed=seed, n_resamples=n_resamples)  # (2 * n_seeds, n_resamples)
        drawn = (each[: len(a)] - each[len(a) :]).mean(axis=0)
        over = f"the {n} test rows"
    else:
        # rows of different seeds cannot be drawn together: average rank by rank, as if the seeds erred together
        each = np.stack(
            [
                np.subtract(*replicates_of_each([one, other], metric, seed=seed, n_resamples=n_resamples))
                for one, other in zip(rows[: len(a)], rows[len(a) :], strict=True)
            ]
        )
        drawn = np.sort(each, axis=1).mean(axis=0)
        over = "the test rows of each seed"
    low, high, note = percentiles(drawn, 0.95)
    test = f"paired bootstrap over {over}, {len(drawn)} resamples{note}"
    difference = float(np.mean(differences))
    if one_subject:
        why = f"; all rows are of one {a[0].unit} and not independent, so there is no p-value"
        return Comparison(metric, difference, low, high, None, 1, test + why)
    drawn = drawn[~np.isnan(drawn)]
    smaller = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (smaller + 1) / (len(drawn) + 1))
    return Comparison(metric, difference, low, high, p_value, n, test + ", two-sided")


def signed_rank(d: np.ndarray) -> float:
    """Return the exact two-sided p-value of Wilcoxon's signed-rank test of paired differences.

    Differences of zero are left out; equal ones share their mean rank, and the null distribution is that of the
    ranks at hand, so that it is exact with ties as well (where ``scipy.stats.wilcoxon(method="exact")`` is not).
    The null distribution is counted rank by rank: each is positive or negative with chance one half.

    Args:
        d: ``(n,)`` differences; they are compared after rounding to 12 decimals, so that rounding makes no ranks.
    """
    d = np.round(np.asarray(d, float), 12)
    d = d[d != 0]
    if len(d) == 0:
        return 1.0
    doubled = np.round(2 * rankdata(np.abs(d))).astype(int)  # mean ranks are multiples of one half
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1.0
    for rank in doubled:
        moved = np.zeros_like(chance)
        moved[rank:] = chance[: len(chance) - rank]
        chance = (chance + moved) / 2
    positive = int(doubled[d > 0].sum())
    smaller = min(positive, int(doubled.sum()) - positive)
    return float(min(1.0, 2 * chance[: smaller + 1].sum()))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values so that the chance of any false rejection among them stays below the level (Holm's step-down).

    Args:
        p_values: in any order; None where no test was made, which stays None and is not counted.

    Returns:
        Adjusted p-values in the same order, each at most 1.

    Raises:
        ValueError: a p-value is outside [0, 1].

    Source:
        Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6:65-70.
    """
    made = [(p, i) for i, p in enumerate(p_values) if p is not None]
    for p, _ in made:
        if not 0 <= p <= 1:
            raise ValueError(f"a p-value lies between 0 and 1; this one is {p}")
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(sorted(made)):
        highest = max(highest, min(1.0, p * (len(made) - rank)))
        adjusted[i] = highest
    return adjusted
