"""Classification metrics, each with its convention in words.

Metrics of the predicted class are functions of a confusion matrix, metrics of the ranking are functions of the
cumulated weights of true and false positives; both take any number of leading axes, so that thousands of bootstrap
resamples are scored at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.registry import lookup


@dataclass(frozen=True)
class Metric:
    """A number in [0, 1] (MCC: [-1, 1]) that says how good predictions are; higher is better.

    Attributes:
        name: key in results.
        title: for tables.
        convention: what it is where definitions differ, in words for the reader of a report.
        of_confusion: ``(..., k, k)`` counts (true class, predicted class) -> ``(...)``.
        of_ranking: cumulated positives and negatives ``(..., n_thresholds)``, from the highest score down -> ``(...)``.
    """

    name: str
    title: str
    convention: str
    of_confusion: Callable[[np.ndarray], np.ndarray] | None = None
    of_ranking: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: float) -> np.ndarray:
    """Return ``above / below``, and ``otherwise`` where ``below`` is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    return np.divide(above, below, out=np.full(above.shape, otherwise), where=below != 0)


def _true(c: np.ndarray) -> np.ndarray:
    return np.diagonal(c, axis1=-2, axis2=-1)  # (..., k)


def _accuracy(c: np.ndarray) -> np.ndarray:
    return _ratio(_true(c).sum(-1), c.sum((-2, -1)), np.nan)


def _balanced_accuracy(c: np.ndarray) -> np.ndarray:
    support = c.sum(-1)
    recall = _ratio(_true(c), support, 0.0)
    return _ratio(recall.sum(-1), (support > 0).sum(-1), np.nan)


def _f1(c: np.ndarray) -> np.ndarray:
    return _ratio(2 * _true(c), c.sum(-1) + c.sum(-2), 0.0)  # (..., k)


def _macro_f1(c: np.ndarray) -> np.ndarray:
    return np.where(c.sum((-2, -1)) > 0, _f1(c).mean(-1), np.nan)


def _weighted_f1(c: np.ndarray) -> np.ndarray:
    return _ratio((_f1(c) * c.sum(-1)).sum(-1), c.sum((-2, -1)), np.nan)


def _mcc(c: np.ndarray) -> np.ndarray:
    c = c.astype(float)
    n, true, predicted = c.sum((-2, -1)), c.sum(-1), c.sum(-2)
    covariance = _true(c).sum(-1) * n - (true * predicted).sum(-1)
    spread = (n**2 - (predicted**2).sum(-1)) * (n**2 - (true**2).sum(-1))
    return np.where(n > 0, _ratio(covariance, np.sqrt(spread), 0.0), np.nan)


def _auroc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    steps = np.diff(negatives, axis=-1, prepend=0)
    # a tie counts half: the trapezium between the positives above and those above or equal
    area = (steps * (positives - np.diff(positives, axis=-1, prepend=0) / 2)).sum(-1)
    return _ratio(area, positives[..., -1] * negatives[..., -1], np.nan)


def _auprc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    precision = _ratio(positives, positives + negatives, 0.0)
    area = (np.diff(positives, axis=-1, prepend=0) * precision).sum(-1)
    defined = (positives[..., -1] > 0) & (negatives[..., -1] > 0)
    return np.where(defined, _ratio(area, positives[..., -1], np.nan), np.nan)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", "Share of rows whose class is predicted.", _accuracy),
        Metric(
            "balanced_accuracy",
            "Balanced accuracy",
            "Mean recall over the classes that occur in the rows scored; a class without a row is left out.",
            _balanced_accuracy,
        ),
        Metric(
            "macro_f1",
            "Macro-F1",
            "Mean F1 over the full label set, always: a class that is absent, or that is never predicted, counts 0.",
            _macro_f1,
        ),
        Metric(
            "weighted_f1",
            "Weighted F1",
            "Mean F1 weighted by the rows of each true class; a class that is never predicted counts 0.",
            _weighted_f1,
        ),
        Metric(
            "mcc",
            "MCC",
            "Matthews correlation (Gorodkin's for more than two classes); 0 where only one class is true or predicted.",
            _mcc,
        ),
        Metric(
            "auroc",
            "AUROC",
            "Binary only, the second class is positive; ties count half; undefined without rows of both classes. "
            "Over folds the scores are pooled, so the models of the folds are compared on one scale.",
            of_ranking=_auroc,
        ),
        Metric(
            "auprc",
            "AUPRC",
            "Binary only, the second class is positive; average precision, no interpolation; the trivial level is the "
            "share of positives; undefined without rows of both classes.",
            of_ranking=_auprc,
        ),
    )
}


def applicable(n_classes: int) -> tuple[str, ...]:
    """Return the names of the metrics that are defined for so many classes."""
    return tuple(name for name, metric in METRICS.items() if metric.of_confusion or n_classes == 2)


def confusion(p: Predictions) -> np.ndarray:
    """Return ``(k, k)`` int64 counts: row the true class, column the predicted one."""
    k = p.n_classes
    return np.bincount(p.y * k + p.predicted, minlength=k * k).reshape(k, k)


def confusion_by_subject(p: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the subjects ``(m,)`` in sorted order, and ``(m, k, k)`` int64 counts of each."""
    k = p.n_classes
    subjects, place = np.unique(p.subject, return_inverse=True)
    cell = (place * k + p.y) * k + p.predicted
    return subjects, np.bincount(cell, minlength=len(subjects) * k * k).reshape(-1, k, k)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows of a binary problem from the highest score to the lowest.

    Attributes:
        order: ``(n,)`` row at each rank.
        positive: ``(n,)`` bool, whether that row is of the second class.
        ends: ``(n_thresholds,)`` last rank of each run of equal scores.
    """

    order: np.ndarray
    positive: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, p: Predictions) -> "Ranking":
        """Rank the rows of ``p`` by the log-odds of the second class."""
        odds = p.scores[:, 1] - p.scores[:, 0]
        order = np.argsort(-odds, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(odds[order]) != 0, True))
        return cls(order=order, positive=p.y[order] == 1, ends=ends)

    def cumulate(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum ``(..., n)`` weights by rank, as ``(..., n_thresholds)`` positives and negatives."""
        all_rows = np.cumsum(weights, axis=-1)[..., self.ends]
        positives = np.cumsum(weights * self.positive, axis=-1)[..., self.ends]
        return positives, all_rows - positives


def value(p: Predictions, metric: str) -> float | None:
    """Score predictions with one metric; None where it is undefined.

    Raises:
        ValueError: there is no such metric.
    """
    how = lookup("metric", METRICS, metric)
    if how.of_confusion:
        number = float(how.of_confusion(confusion(p)))
    elif how.of_ranking and p.n_classes == 2:
        number = float(how.of_ranking(*Ranking.of(p).cumulate(np.ones(len(p)))))
    else:
        return None
    return None if np.isnan(number) else number


def scores(p: Predictions) -> dict[str, float | None]:
    """Score predictions with every metric; None where one is undefined."""
    return {name: value(p, name) for name in METRICS}


def per_subject(p: Predictions) -> dict[str, dict[str, float | None]]:
    """Score the rows of each subject apart; None where a metric is undefined for a subject."""
    subjects, counts = confusion_by_subject(p)
    columns: dict[str, list[float | None]] = {}
    for name, metric in METRICS.items():
        if metric.of_confusion:
            columns[name] = [None if np.isnan(v) else float(v) for v in metric.of_confusion(counts)]
    table = {str(s): {name: column[i] for name, column in columns.items()} for i, s in enumerate(subjects)}
    ranked = [name for name in METRICS if name not in columns]
    if p.n_classes != 2:
        return {s: row | dict.fromkeys(ranked) for s, row in table.items()}
    order = np.argsort(p.subject, kind="stable")
    ends = np.cumsum(counts.sum((1, 2)))
    for s, rows in zip(subjects, np.split(order, ends[:-1]), strict=True):
        table[str(s)] |= {name: value(_take(p, rows), name) for name in ranked}
    return table


def _take(p: Predictions, rows: np.ndarray) -> Predictions:
    return replace(p, y=p.y[rows], scores=p.scores[rows], subject=p.subject[rows])


def majority(y_train: np.ndarray, test: Predictions) -> Predictions:
    """Predict for every test row what the training rows are most often, and nothing else.

    The scores are the logarithms of the class shares in training, the same for each row, so AUROC is 0.5. A class
    without a training row takes half a row's share, which ranks it last and keeps its logarithm finite.

    Args:
        y_train: ``(n_train,)`` classes of the training rows.
        test: any predictions on the test rows; only their truth, subjects and classes are used.

    Raises:
        ValueError: there is no training row.
    """
    if len(y_train) == 0:
        raise ValueError("the majority class was asked for, but there is no training row")
    counts = np.bincount(np.asarray(y_train), minlength=test.n_classes)
    log_share = np.log(np.maximum(counts, 0.5) / len(y_train))
    return replace(test, scores=np.tile(log_share, (len(test), 1)))
