from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import PermutationMethod, wilcoxon

from evaluation.examples import noisy
from hcqsfl.evaluation.classification import per_subject
from hcqsfl.evaluation.significance import holm, paired, signed_rank


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.floats(-1, 1).filter(lambda x: abs(x) > 1e-6), min_size=2, max_size=40, unique_by=lambda x: round(abs(x), 9)
    )
)
def test_without_ties_the_signed_rank_test_is_scipys(d):
    assert signed_rank(np.array(d)) == pytest.approx(wilcoxon(d, method="exact").pvalue, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3).filter(bool), min_size=2, max_size=9))
def test_with_ties_the_signed_rank_test_is_the_count_of_all_sign_flips(d):
    every_flip = wilcoxon(np.array(d, float), method=PermutationMethod(n_resamples=2**10)).pvalue
    assert signed_rank(np.array(d, float)) == pytest.approx(every_flip, abs=1e-12)


def test_differences_of_zero_say_nothing():
    assert signed_rank(np.zeros(9)) == 1.0
    assert signed_rank(np.array([0, 0, 1.0, 2, 3, 4, 5, 6])) == 2 / 2**6
    assert signed_rank(np.array([0.1 + 0.2, -0.3, 1])) == signed_rank(np.array([0.3, -0.3, 1]))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "auroc"])
def test_subjects_are_paired_after_averaging_seeds(metric):
    a = [noisy(seed=s, n_classes=2, skill=2) for s in (0, 1)]
    b = [noisy(seed=s, n_classes=2, skill=0.5) for s in (2, 3)]
    got = paired(a, b, metric, seed=0)
    d = [
        np.mean([per_subject(p)[s][metric] for p in a]) - np.mean([per_subject(p)[s][metric] for p in b])
        for s in sorted(set(a[0].subject))
    ]
    assert got.n_units == len(d) == 8
    assert got.difference == pytest.approx(np.mean(d))
    assert got.p_value == pytest.approx(wilcoxon(d, method="exact").pvalue)
    assert got.low < got.difference < got.high
    assert (got.high - got.low) / 3.92 == pytest.approx(np.std(d) / np.sqrt(8), rel=0.15)


def test_swapping_the_arms_turns_the_sign():
    a, b = [noisy(seed=1, skill=1.5)], [noisy(seed=2)]
    one, other = paired(a, b, "accuracy", seed=0), paired(b, a, "accuracy", seed=0)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_value == other.p_value
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_five_pairs_give_no_p_value_and_say_what_the_smallest_would_be():
    got = paired([noisy(seed=1, n_subjects=5, skill=5)], [noisy(seed=2, n_subjects=5)], "accuracy", seed=0)
    assert got.p_value is None
    assert got.low > 0
    assert got.test == "no test: with 5 subjects the smallest exact two-sided p-value is 0.0625"


def test_arms_that_are_the_same_differ_by_nothing():
    for unit in ("subject", "row"):
        p = noisy(unit=unit)
        got = paired([p], [p], "accuracy", seed=0)
        assert (got.difference, got.low, got.high, got.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_rows_are_paired_by_bootstrap(metric):
    a, b = noisy(seed=1, n=900, n_classes=2, skill=1.4, unit="row"), noisy(seed=2, n=900, n_classes=2, unit="row")
    got = paired([a], [b], metric, seed=0)
    assert "paired bootstrap over the 900 test rows" in got.test
    assert got.n_units == 900
    if metric == "accuracy":
        d = (a.predicted == a.y) * 1.0 - (b.predicted == b.y)
        assert got.difference == pytest.approx(d.mean())
        assert (got.high - got.low) / 3.92 == pytest.approx(d.std() / 30, rel=0.08)
        assert got.p_value == pytest.approx(2 / 2001) if d.mean() / (d.std() / 30) > 4 else got.p_value > 2 / 2001


def test_p_values_of_equal_arms_by_row_are_uniform():
    p_values = [
        paired(
            [noisy(seed=i, truth=i, n=150, n_classes=2, unit="row")],
            [noisy(seed=i + 5000, truth=i, n=150, n_classes=2, unit="row")],
            "accuracy",
            seed=i,
            n_resamples=300,
        ).p_value
        for i in range(150)
    ]
    assert np.mean(np.array(p_values) < 0.1) < 0.19  # 0.1 expected, standard error 0.024
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.15)


def test_one_subject_has_no_p_value():
    got = paired([noisy(seed=1, n_subjects=1)], [noisy(seed=2, n_subjects=1)], "accuracy", seed=0)
    assert got.p_value is None
    assert "not independent" in got.test
    assert got.n_units == 1


def test_subjects_for_whom_a_metric_is_undefined_are_left_out_and_counted():
    a, b = noisy(seed=1, n_classes=2), noisy(seed=2, n_classes=2)
    y = np.where(a.subject == "S3", 0, a.y)
    got = paired([replace(a, y=y)], [replace(b, y=y)], "auroc", seed=0)
    assert got.n_units == 7
    assert "1 subjects left out" in got.test


def test_arms_tested_on_different_rows_are_not_paired():
    with pytest.raises(ValueError, match="not tested on the same rows"):
        paired([noisy(truth=1)], [noisy(truth=2)], "accuracy", seed=0)
    with pytest.raises(ValueError, match="the first has 2 seeds and the second 1"):
        paired([noisy(), noisy()], [noisy()], "accuracy", seed=0)


def test_rows_that_differ_between_seeds_are_paired_within_a_seed():
    a = [noisy(seed=s, truth=s, n=300, unit="row", skill=3) for s in range(3)]
    b = [noisy(seed=s + 50, truth=s, n=300, unit="row") for s in range(3)]
    got = paired(a, b, "accuracy", seed=0)
    assert "the test rows of each seed" in got.test
    assert got.low < got.difference < got.high


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 and the last is raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_lowers(p_values):
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    by_p = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)
