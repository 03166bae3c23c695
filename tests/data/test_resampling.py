import numpy as np
import pytest

from hcqsfl.data.resampling import resample, resample_labels


@pytest.mark.parametrize(("old", "new"), [(700, 4), (700, 64), (100, 33), (4, 32), (32, 64)])
def test_a_slow_sine_is_the_same_sine_at_the_new_rate(old, new):
    hz = 0.2 * min(old, new) / 2
    slow = np.sin(2 * np.pi * hz * np.arange(60 * old) / old)[None]
    got = resample(slow, old, new)
    assert got.shape == (1, 60 * new)
    expected = np.sin(2 * np.pi * hz * np.arange(60 * new) / new)
    edge = 15 * max(1, new // old)
    np.testing.assert_allclose(got[0, edge:-edge], expected[edge:-edge], atol=3e-3)


def test_a_tone_above_the_new_nyquist_frequency_is_gone_where_slicing_would_alias_it():
    tone = np.sin(2 * np.pi * 5.0 * np.arange(70_000) / 700)[None]  # 5 Hz, asked for at 4 Hz: an alias at 1 Hz
    sliced = tone[:, ::175]
    assert sliced.std() > 0.5
    assert resample(tone, 700, 4)[:, 10:-10].std() < 0.01


def test_a_constant_stays_constant_to_its_ends_and_in_float32():
    warm = np.full((2, 7000), 32.862244, dtype=np.float32)
    got = resample(warm, 700, 4)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, 32.862244, rtol=1e-5)


def test_what_was_not_measured_is_unknown_only_near_by():
    signal = np.ones((1, 1000))
    signal[0, 500] = np.nan
    missing = np.flatnonzero(np.isnan(resample(signal, 100, 25)[0]))
    assert 125 in missing
    assert missing.min() >= 125 - 11
    assert missing.max() <= 125 + 11


@pytest.mark.parametrize(("old", "new"), [(700, np.pi), (0, 4), (700, -1)])
def test_a_ratio_of_no_whole_numbers_is_refused(old, new):
    with pytest.raises(ValueError, match="cannot resample from"):
        resample(np.ones((1, 10)), old, new)


def test_a_new_sample_at_a_transition_has_no_class():
    labels = np.repeat([0, 1], [30, 34])
    # new sample k speaks for old samples 8k-4 ... 8k+3, so number 4 (28 ... 35) sees both
    assert resample_labels(labels, 64, 8, 8).tolist() == [0, 0, 0, 0, -1, 1, 1, 1]
    assert resample_labels(np.repeat([0, 1], [28, 36]), 64, 8, 8).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_labels_at_a_higher_rate_are_those_of_the_nearest_sample():
    assert resample_labels(np.array([0, 1]), 1, 4, 8).tolist() == [0, 0, 0, 1, 1, 1, 1, -1]


@pytest.mark.parametrize(("old", "new"), [(700, 4), (700, 64), (700, 35), (100, 30)])
def test_labels_follow_the_slow_definition(old, new):
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, 12), rng.integers(1, old, 12))
    n = int(np.ceil(len(labels) * new / old))
    expected = []
    for k in range(n):
        inside = [y for i, y in enumerate(labels) if -0.5 * old <= i * new - k * old < 0.5 * old]
        expected.append(inside[0] if len(set(inside)) == 1 else -1)
    assert resample_labels(labels, old, new, n).tolist() == expected
