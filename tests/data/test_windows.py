import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcqsfl.data.recording import IGNORED, Recording
from hcqsfl.data.windows import slide, slide_all


def recording(labels, sfreq: float = 4.0, subject: str = "S2", **parts) -> Recording:
    labels = np.asarray(labels)
    signal = parts.pop("signal", np.stack([np.arange(len(labels)), -np.arange(len(labels))]).astype(np.float32))
    return Recording(signal, labels, sfreq, ("a", "b"), ("mV", "mV"), subject, ("rest", "stress"), **parts)


@given(
    st.lists(st.integers(-1, 1), min_size=1, max_size=80),
    st.integers(1, 10),
    st.sampled_from([0.0, 0.25, 0.5, 0.9]),
)
def test_windows_are_those_that_a_loop_would_cut(labels, n_times, overlap) -> None:
    r = recording(labels)
    if n_times > len(labels):
        return
    windows = slide(r, n_times / 4.0, overlap)
    hop = max(1, round(n_times * (1 - overlap)))
    expected, i = [], 0
    while i < len(labels):  # runs of one label, one by one
        j = i
        while j < len(labels) and labels[j] == labels[i]:
            j += 1
        if labels[i] != IGNORED:
            expected += list(range(i, j - n_times + 1, hop))
        i = j
    assert windows.start.tolist() == expected
    for k, start in enumerate(expected):
        np.testing.assert_array_equal(windows.x[k], r.signal[:, start : start + n_times])
        assert set(labels[start : start + n_times]) == {windows.y[k]}


def test_a_window_never_straddles_a_jump_in_position() -> None:
    windows = slide(recording([0] * 8, position=np.array([0, 1, 2, 7, 8, 9, 10, 11])), 0.75)
    assert windows.start.tolist() == [0, 7]


def test_a_window_with_a_missing_sample_is_left_out_and_counted() -> None:
    signal = np.ones((2, 8), dtype=np.float32)
    signal[1, 5] = np.nan
    windows = slide(recording([0] * 8, signal=signal), 0.5)
    assert windows.start.tolist() == [0, 2, 6]
    assert windows.dropped == 1


def test_a_channel_of_nothing_but_nan_is_named() -> None:
    signal = np.ones((2, 8), dtype=np.float32)
    signal[1] = np.nan
    with pytest.raises(ValueError, match=r"channel b of subject S2 .* holds no finite value"):
        slide(recording([0] * 8, signal=signal), 0.5)


def test_a_window_longer_than_the_recording_is_refused_in_seconds_and_samples() -> None:
    with pytest.raises(ValueError, match=r"a window of 60 s is 240 samples at 4.0 Hz, .* subject S2 has 40"):
        slide(recording([0] * 40), 60)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 1.5])
def test_an_overlap_outside_zero_to_one_is_refused(overlap: float) -> None:
    with pytest.raises(ValueError, match="overlap"):
        slide(recording([0] * 40), 1, overlap)


def test_windows_of_all_recordings_keep_apart_whose_they_are() -> None:
    both = slide_all([recording([0] * 8), recording([1] * 8, subject="S3"), recording([1] * 2, subject="S4")], 1.0)
    assert both.subject.tolist() == ["S2", "S2", "S3", "S3"]
    assert both.recording.tolist() == [0, 0, 1, 1]
    assert both.y.tolist() == [0, 0, 1, 1]


def test_recordings_of_different_rates_are_not_mixed() -> None:
    with pytest.raises(ValueError, match=r"differ in sfreq: 4.0 and 8.0"):
        slide_all([recording([0] * 8), recording([0] * 8, sfreq=8.0)], 1.0)


def test_no_window_at_all_is_an_error_that_says_why() -> None:
    with pytest.raises(ValueError, match="no window of 2 s fits"):
        slide_all([recording([0, 1] * 8)], 2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(7, dtype=int)}, "8 samples of signal but labels"),
        ({"channels": ("a",)}, "2 channels of signal, 1 names"),
        ({"channels": ("a", "a")}, "appears twice"),
        ({"labels": np.full(8, 2)}, "labels run from 2 to 2, but there are 2 classes"),
        ({"sfreq": 0.0}, "sampling frequency"),
        ({"signal": np.zeros((2, 8), dtype=int)}, "must be floating"),
    ],
)
def test_a_recording_whose_parts_contradict_one_another_is_refused(change, message) -> None:
    parts = {
        "signal": np.zeros((2, 8)),
        "labels": np.zeros(8, dtype=int),
        "sfreq": 4.0,
        "channels": ("a", "b"),
        "units": ("mV", "mV"),
        "subject": "S2",
        "classes": ("rest", "stress"),
    }
    with pytest.raises(ValueError, match=message):
        Recording(**(parts | change))
