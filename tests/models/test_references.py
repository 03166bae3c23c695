import numpy as np
import pytest

from hcqsfl.models.references import features, scores


def test_features_are_what_numpy_says_of_a_sine() -> None:
    """A sine of 5 cycles about 2 in 200 samples."""
    t = np.arange(200) / 200
    wave = 2 + 3 * np.sin(2 * np.pi * 5 * t)
    mean, deviation, least, greatest, _step, _trend, strongest, _share = features(wave[None, None])[0]
    np.testing.assert_allclose([mean, deviation, least, greatest], [2, 3 / np.sqrt(2), -1, 5], atol=1e-3)
    assert strongest == 5


def test_a_trend_is_its_slope_over_half_a_window() -> None:
    np.testing.assert_allclose(features(np.linspace(-4, 4, 50)[None, None])[0, 5], 4)


def test_rows_of_a_table_are_taken_as_they_are() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3, 1))
    np.testing.assert_array_equal(features(x), x[:, :, 0])


def test_the_forest_finds_what_there_is_to_find_and_knows_classes_it_never_saw() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4, 1)), rng.integers(0, 2, 200)
    x[:, 1, 0] += 3 * y
    s = scores("random_forest", x[:150], y[:150], x[150:], 3, seed=0)
    assert s.shape == (50, 3)
    assert (s.argmax(1) == y[150:]).mean() > 0.85
    assert (s[:, 2] < -10).all()


def test_an_unknown_reference_is_refused() -> None:
    x = np.zeros((2, 1, 1))
    with pytest.raises(ValueError, match="did you mean 'random_forest'"):
        scores("random_forrest", x, np.array([0, 1]), x, 2, seed=0)
