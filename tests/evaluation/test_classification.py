import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from evaluation.examples import noisy
from hcqsfl.evaluation.classification import METRICS, applicable, confusion, majority, per_subject, scores, value
from hcqsfl.evaluation.predictions import Predictions


def matthews(p: Predictions) -> float:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A single label was found")
        return sk.matthews_corrcoef(p.y, p.predicted)


def scikit_learns(p: Predictions) -> dict[str, float | None]:
    labels = list(range(p.n_classes))
    both = p.n_classes == 2 and len(set(p.y)) == 2
    odds = p.scores[:, 1] - p.scores[:, 0]
    recalls = [(p.predicted[p.y == c] == c).mean() for c in labels if (p.y == c).any()]
    return {
        "accuracy": sk.accuracy_score(p.y, p.predicted),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": sk.f1_score(p.y, p.predicted, labels=labels, average="macro", zero_division=0),
        "weighted_f1": sk.f1_score(p.y, p.predicted, labels=labels, average="weighted", zero_division=0),
        "mcc": matthews(p),
        "auroc": sk.roc_auc_score(p.y, odds) if both else None,
        "auprc": sk.average_precision_score(p.y, odds) if both else None,
    }


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_metrics_are_scikit_learns(data):
    k, n = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 12))
    y = data.draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    flat = data.draw(st.lists(st.integers(-3, 3), min_size=n * k, max_size=n * k))
    p = Predictions(np.array(y), np.array(flat).reshape(n, k), np.full(n, "S"), tuple("abcd"[:k]))
    expected = scikit_learns(p)
    assert scores(p).keys() == expected.keys() == METRICS.keys()
    for name, number in scores(p).items():
        assert number == pytest.approx(expected[name], abs=1e-12), name


def test_balanced_accuracy_is_scikit_learns_when_every_class_occurs():
    p = noisy()
    assert value(p, "balanced_accuracy") == pytest.approx(sk.balanced_accuracy_score(p.y, p.predicted), abs=1e-12)


def test_confusion_is_scikit_learns():
    p = noisy()
    assert np.array_equal(confusion(p), sk.confusion_matrix(p.y, p.predicted, labels=[0, 1, 2]))


def test_an_absent_class_counts_zero_in_macro_f1():
    y = np.array([0, 0, 1, 1])
    p = Predictions(y, np.eye(3)[y], np.full(4, "S"), ("a", "b", "c"))
    assert value(p, "accuracy") == 1.0
    assert value(p, "macro_f1") == pytest.approx(2 / 3)  # 1, 1 and 0 for the class without a row


@pytest.mark.parametrize("n_classes", [2, 3])
def test_each_subject_is_scored_on_its_own_rows(n_classes):
    p = noisy(n_classes=n_classes, n=90, n_subjects=12)
    table = per_subject(p)
    assert set(table) == set(p.subject)
    for subject, row in table.items():
        mine = p.subject == subject
        assert row == pytest.approx(scikit_learns(Predictions(p.y[mine], p.scores[mine], p.subject[mine], p.classes)))


def test_the_majority_class_ranks_nothing():
    test = noisy(n_classes=2, n=100)
    trivial = majority(np.array([1] * 30 + [0] * 10), test)
    assert set(trivial.predicted) == {1}
    assert np.allclose(trivial.probabilities, [0.25, 0.75])
    assert value(trivial, "auroc") == 0.5
    assert value(trivial, "auprc") == pytest.approx((test.y == 1).mean())
    assert value(trivial, "accuracy") == pytest.approx((test.y == 1).mean())
    assert value(trivial, "mcc") == 0.0


def test_a_class_that_was_never_trained_on_is_ranked_last():
    trivial = majority(np.array([2, 2, 1]), noisy())
    assert np.isfinite(trivial.scores).all()
    assert trivial.scores[0].argsort().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="no training row"):
        majority(np.array([], dtype=int), noisy())


def test_an_unknown_metric_is_refused_with_a_hint():
    with pytest.raises(ValueError, match="did you mean 'macro_f1'"):
        value(noisy(), "makro_f1")


def test_ranking_metrics_apply_to_two_classes_only():
    assert "auroc" in applicable(2)
    assert "auroc" not in applicable(3)
    assert all(metric.convention for metric in METRICS.values())
