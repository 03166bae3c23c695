import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import LeaveOneGroupOut

from data.made_windows import windows
from hcqsfl.data.folds import chronological, grouped_k_fold, leave_one_subject_out


def five_subjects():
    rng = np.random.default_rng(1)
    return windows(rng.integers(0, 3, 100), rng.choice(["S2", "S3", "S4", "S5", "S6"], 100))


def test_test_sets_are_those_of_scikit_learns_leave_one_group_out() -> None:
    w = five_subjects()
    ours = {tuple(fold.test) for fold in leave_one_subject_out(w)}
    theirs = {tuple(test) for _, test in LeaveOneGroupOut().split(w.x, w.y, w.subject)}
    assert ours == theirs


@given(st.integers(2, 5), st.integers(0, 2), st.integers(0, 5))
def test_no_subject_is_on_two_sides_and_none_is_lost(k: int, n_validation: int, seed: int) -> None:
    w = five_subjects()
    if -(-5 // k) + n_validation + 1 > 5:
        return
    folds = grouped_k_fold(w, k, n_validation=n_validation, seed=seed)
    assert len(folds) == k
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(100))
    for fold in folds:
        sides = [set(w.subject[part]) for part in (fold.train, fold.validation, fold.test)]
        assert len(set.union(*sides)) == sum(map(len, sides))
        assert len(sides[1]) == n_validation
        assert sum(map(len, (fold.train, fold.validation, fold.test))) == 100


def test_the_validation_subject_has_as_many_classes_as_there_are() -> None:
    w = windows([0, 1, 0, 1, 0, 1, 1], ["S2", "S2", "S3", "S3", "S4", "S4", "S9"])
    for seed in range(10):
        for fold in leave_one_subject_out(w, seed=seed):
            assert set(w.subject[fold.validation]) != {"S9"}


def test_leave_one_subject_out_of_one_subject_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs at least 3 subjects; there is 1: S2"):
        leave_one_subject_out(windows([0, 1], ["S2", "S2"]))


def test_three_subjects_do_without_validation() -> None:
    w = windows([0, 1, 0, 1, 0, 1], ["S2", "S2", "S3", "S3", "S4", "S4"])
    folds = leave_one_subject_out(w, n_validation=0)
    assert [len(fold.train) for fold in folds] == [4, 4, 4]
    assert all(len(fold.validation) == 0 for fold in folds)


def test_more_folds_than_subjects_are_refused() -> None:
    with pytest.raises(ValueError, match="at most one a subject, 5"):
        grouped_k_fold(five_subjects(), 6)


def test_each_class_is_cut_in_order_of_time() -> None:
    y = np.repeat([0, 1], [20, 10])
    w = windows(y, "weather", start=np.random.default_rng(0).permutation(30))
    (fold,) = chronological(w, test=0.2, validation=0.1)
    for label in (0, 1):
        part = {name: w.start[i][w.y[i] == label] for name, i in vars(fold).items() if isinstance(i, np.ndarray)}
        assert part["train"].max() < part["validation"].min() <= part["validation"].max() < part["test"].min()
    assert [len(fold.train), len(fold.validation), len(fold.test)] == [14 + 7, 2 + 1, 4 + 2]


def test_a_gap_leaves_windows_out_at_both_borders() -> None:
    (fold,) = chronological(windows([0] * 20, "weather"), test=0.2, validation=0.2, gap=1)
    assert fold.train.tolist() == list(range(11))
    assert fold.validation.tolist() == [12, 13, 14]
    assert fold.test.tolist() == [16, 17, 18, 19]


def test_a_class_too_small_to_be_divided_is_named() -> None:
    with pytest.raises(ValueError, match="class class 1 has a stratum of 2 windows, too"):
        chronological(windows([0] * 20 + [1] * 2, "weather"), test=0.2, validation=0.1)
