import errno
import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from evaluation.examples import noisy
from hcqsfl.evaluation import files
from hcqsfl.evaluation.predictions import Predictions, concatenate


@given(
    names=st.lists(st.text("abcäß 0é", min_size=1, max_size=5), min_size=1, max_size=6),
    classes=st.lists(st.text("xyzµ", min_size=1, max_size=4), min_size=2, max_size=4, unique=True),
    unit=st.sampled_from(["subject", "host", "row"]),
    data=st.data(),
)
def test_what_is_saved_is_what_is_loaded(tmp_path_factory, names, classes, unit, data):
    y = data.draw(st.lists(st.integers(0, len(classes) - 1), min_size=len(names), max_size=len(names)))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    rows = st.lists(finite, min_size=len(classes), max_size=len(classes))
    scores = data.draw(st.lists(rows, min_size=len(names), max_size=len(names)))
    p = Predictions(np.array(y), np.array(scores), np.array(names), tuple(classes), unit)
    path = tmp_path_factory.mktemp("saved") / "p.npz"
    p.save(path)
    q = Predictions.load(path)
    assert np.array_equal(p.y, q.y)
    assert np.array_equal(p.scores, q.scores)
    assert p.subject.tolist() == q.subject.tolist() == names
    assert (q.classes, q.unit) == (tuple(classes), unit)


def test_probabilities_are_scipys_softmax_and_sum_to_one():
    p = noisy()
    assert np.allclose(np.log(p.probabilities), log_softmax(p.scores, axis=1))
    assert np.allclose(p.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"y": np.array([0, 3])}, "y runs from 0 to 3, but there are 2 classes"),
        ({"y": np.array([-1, 0])}, "y runs from -1"),
        ({"y": np.array([0.0, 1.0])}, "y must be integers"),
        ({"y": np.array([], dtype=int)}, "at least one row"),
        ({"scores": np.zeros((2, 3))}, r"shape \(2, 3\)"),
        ({"scores": np.array([[0, 1], [np.nan, 0]])}, "row 1 .subject b. are not finite"),
        ({"subject": np.array(["a"])}, "there are 2 rows"),
        ({"classes": ("same", "same")}, "different names"),
        ({"unit": "window"}, "not by 'window'"),
    ],
)
def test_predictions_that_make_no_sense_are_refused(change, says):
    good = {"y": np.array([0, 1]), "scores": np.zeros((2, 2)), "subject": np.array(["a", "b"]), "classes": ("n", "p")}
    Predictions(**good)
    with pytest.raises(ValueError, match=says):
        Predictions(**(good | change))


def test_a_file_cut_off_anywhere_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "p.npz"
    noisy(n=20).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"p\.npz does not hold predictions"):
            Predictions.load(path)


def test_a_pickle_inside_the_archive_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    buffer = io.BytesIO()
    np.savez(
        buffer, **{name: np.array([Bomb()], dtype=object) for name in ("y", "scores", "subject", "classes", "unit")}
    )
    assert pickle.dumps(Bomb()) is not None
    (tmp_path / "p.npz").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="does not hold predictions"):
        Predictions.load(tmp_path / "p.npz")


def test_a_full_disk_leaves_the_earlier_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "p.npz"
    noisy(seed=1).save(path)
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        noisy(seed=2).save(path)
    assert path.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["p.npz"]


def test_folds_are_pooled_in_order():
    a, b = noisy(seed=1, n=30), noisy(seed=2, n=50, truth=5)
    both = concatenate([a, b])
    assert np.array_equal(both.y, np.concatenate([a.y, b.y]))
    assert np.array_equal(both.scores[30:], b.scores)
    with pytest.raises(ValueError, match="cannot be pooled"):
        concatenate([a, noisy(n_classes=2)])
    with pytest.raises(ValueError, match="no predictions"):
        concatenate([])
