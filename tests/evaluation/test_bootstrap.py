from dataclasses import replace

import numpy as np
import pytest

from evaluation.examples import noisy
from hcqsfl.evaluation.bootstrap import _by_subject, interval, interval_over_seeds, replicates
from hcqsfl.evaluation.classification import METRICS, value
from hcqsfl.evaluation.predictions import Predictions


def slowly(p: Predictions, metric: str, weights: np.ndarray) -> float:
    """The metric of the rows of the drawn subjects, each copied as often as it was drawn."""
    rows = np.concatenate(
        [np.tile(np.flatnonzero(p.subject == s), w) for s, w in zip(np.unique(p.subject), weights, strict=True)]
    )
    number = value(replace(p, y=p.y[rows], scores=p.scores[rows], subject=p.subject[rows]), metric)
    return np.nan if number is None else number


@pytest.mark.parametrize("metric", METRICS)
def test_a_resample_is_the_copied_rows_of_the_drawn_subjects(metric):
    p = noisy(n_classes=2, n=60)
    weights = np.concatenate(list(_by_subject([p]).draw(3, 25)))
    assert (weights.sum(axis=1) == 8).all()
    expected = [slowly(p, metric, w) for w in weights]
    assert np.allclose(replicates([p], metric, seed=3, n_resamples=25), expected, equal_nan=True)


def test_accuracy_by_row_is_the_binomial_interval():
    p = noisy(n=2000, n_classes=2, unit="row")
    got = interval(p, "accuracy", seed=0, n_resamples=20_000)
    spread = 1.96 * np.sqrt(got.value * (1 - got.value) / 2000)
    assert got.n_units == 2000
    assert got.low == pytest.approx(got.value - spread, abs=0.0015)
    assert got.high == pytest.approx(got.value + spread, abs=0.0015)


def test_auroc_by_row_has_the_standard_error_of_delong():
    p = noisy(n=600, n_classes=2, unit="row")
    odds = p.scores[:, 1] - p.scores[:, 0]
    wins = (odds[p.y == 1][:, None] > odds[p.y == 0]) + 0.5 * (odds[p.y == 1][:, None] == odds[p.y == 0])
    delong = np.sqrt(
        wins.mean(axis=1).var(ddof=1) / (p.y == 1).sum() + wins.mean(axis=0).var(ddof=1) / (p.y == 0).sum()
    )
    drawn = replicates([p], "auroc", seed=1, n_resamples=4000)
    assert drawn.std() == pytest.approx(delong, rel=0.06)
    assert drawn.mean() == pytest.approx(wins.mean(), abs=0.002)


def test_the_mean_over_subjects_of_one_size_has_the_classical_standard_error():
    p = noisy(n=400, n_subjects=20)
    order = np.argsort(p.y, kind="stable")
    p = replace(p, y=p.y[order], scores=p.scores[order], subject=np.array([f"S{i % 20}" for i in range(400)]))
    each = np.array([(p.predicted == p.y)[p.subject == s].mean() for s in np.unique(p.subject)])
    drawn = replicates([p], "accuracy", seed=0, n_resamples=20_000)
    assert drawn.std() == pytest.approx(each.std() / np.sqrt(20), rel=0.03)


def test_intervals_over_subjects_are_wider_than_over_rows_when_subjects_differ():
    p = noisy(n=2000, skill=1.5)
    by_subject = interval(p, "accuracy", seed=0)
    by_row = interval(replace(p, unit="row"), "accuracy", seed=0)
    assert by_subject.high - by_subject.low > 2 * (by_row.high - by_row.low)
    assert by_subject.value == by_row.value


def test_ninety_five_percent_of_intervals_by_row_hold_the_truth():
    held = []
    for i in range(200):
        p = noisy(seed=i, truth=i + 1000, n=200, n_classes=2, skill=0.0, unit="row")
        got = interval(p, "accuracy", seed=i, n_resamples=400)
        held.append(got.low <= 0.5 <= got.high)
    assert 0.90 <= np.mean(held) <= 0.99


def test_one_subject_gives_a_value_and_says_why_there_is_no_interval():
    got = interval(noisy(n_subjects=1), "macro_f1", seed=0)
    assert got.value is not None
    assert (got.low, got.high, got.n_units) == (None, None, 1)
    assert got.method == "no interval: 1 subject, at least 2 are needed"


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    p = noisy(n_classes=2)
    for metric in ("macro_f1", "auroc"):
        assert interval(p, metric, seed=5) == interval(p, metric, seed=5)
        assert interval(p, metric, seed=5) != interval(p, metric, seed=6)


def test_resamples_without_a_class_are_left_out_and_counted():
    y = np.array([0, 0, 1])
    p = Predictions(y, np.eye(2)[y], np.array(["A", "B", "C"]), ("n", "p"))
    got = interval(p, "auroc", seed=0, n_resamples=500)
    assert got.value == 1.0
    assert "undefined in" in got.method  # no C in (2/3)^3, C only in 1/27: about a third
    lost = int(got.method.split("undefined in ")[1].split(" ")[0])
    assert 0.25 < lost / 500 < 0.42


def test_a_metric_undefined_for_the_rows_has_no_value():
    got = interval(noisy(n_classes=3), "auroc", seed=0)
    assert (got.value, got.low, got.high) == (None, None, None)


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
@pytest.mark.parametrize("unit", ["subject", "row"])
def test_seeds_are_resampled_together(unit, metric):
    runs = [noisy(seed=s, n_classes=2, unit=unit) for s in range(3)]
    got = interval_over_seeds(runs, metric, seed=0)
    assert got.value == pytest.approx(np.mean([value(p, metric) for p in runs]))
    twice = interval_over_seeds([runs[0], runs[0]], metric, seed=0)
    once = interval_over_seeds([runs[0]], metric, seed=0)
    if unit == "subject" or metric == "auroc":
        assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    else:  # the same patterns, drawn in another order
        assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=0.01)


def test_rows_that_differ_between_seeds_are_not_treated_as_independent():
    runs = [noisy(seed=s, truth=s, n=300, unit="row") for s in range(4)]
    widths = [i.high - i.low for i in (interval(p, "accuracy", seed=0) for p in runs)]
    got = interval_over_seeds(runs, "accuracy", seed=0)
    assert got.high - got.low == pytest.approx(np.mean(widths), abs=0.01)
    assert "test rows differ" in got.method


def test_very_many_rows_take_fewer_resamples_of_a_ranking_and_say_so(monkeypatch):
    monkeypatch.setattr("hcqsfl.evaluation.bootstrap._VISITS", 144_000)
    got = interval(noisy(n_classes=2, n=240), "auroc", seed=0)
    assert got.method.startswith("percentile bootstrap, 600 resamples of 8 subjects")


def test_seeds_of_different_problems_are_refused():
    with pytest.raises(ValueError, match="the seeds differ"):
        interval_over_seeds([noisy(), noisy(n_classes=2)], "accuracy", seed=0)
    with pytest.raises(ValueError, match="level 95"):
        interval(noisy(), "accuracy", seed=0, level=95)
