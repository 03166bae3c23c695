import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from data.made_windows import windows
from hcqsfl.data.quantiles import Quantiles
from hcqsfl.data.scaling import METHODS, Scaler, class_weights


def test_standard_scaling_is_scikit_learns() -> None:
    train, test = windows([0, 1] * 20, "S2"), windows([0, 1] * 5, "S3", seed=1)
    ours = Scaler.fit(train)(test)
    reference = StandardScaler().fit(train.x.transpose(0, 2, 1).reshape(-1, 2))
    theirs = reference.transform(test.x.transpose(0, 2, 1).reshape(-1, 2)).reshape(10, 4, 2).transpose(0, 2, 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_one_hot_columns_are_scikit_learns_and_an_unseen_value_is_all_zeros() -> None:
    train = windows([0, 1, 0], "S2", x=np.array([2.0, 0, 2])[:, None, None], channels=("proto",), units=("category",))
    test = windows([0, 1, 0], "S3", x=np.array([0.0, 1, 2])[:, None, None], channels=("proto",), units=("category",))
    scaler = Scaler.fit(train)
    reference = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train.x[:, 0])
    np.testing.assert_array_equal(scaler(test)[:, :, 0], reference.transform(test.x[:, 0]))
    assert scaler(test)[1].sum() == 0
    assert scaler.n_outputs == 2


@pytest.mark.parametrize("rows", [40, 3000])
def test_the_quantile_scale_is_scikit_learns_to_the_bit(rows: int) -> None:
    """Ties, a column that never moves, values beyond both ends, missing ones, and what comes back."""
    rng = np.random.default_rng(0)
    train = np.stack([rng.normal(0, 50, rows), rng.poisson(2, rows), rng.exponential(1e6, rows), np.full(rows, 3.0)], 1)
    reference = QuantileTransformer(n_quantiles=min(1000, rows), output_distribution="normal", random_state=5)
    reference.fit(train)
    ours = Quantiles.fit(train, 5)
    asked = np.concatenate([train[:30], train[:30] * 1.7 - 20, train.min(0)[None], train.max(0)[None] + 1e-9])
    asked[5, 1] = np.nan
    scaled = reference.transform(asked)
    np.testing.assert_array_equal(ours.transform(asked), scaled)
    back = np.concatenate([scaled, rng.normal(0, 4, (50, 4))])
    np.testing.assert_array_equal(ours.inverse_transform(back), reference.inverse_transform(back))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_is_learnt_does_not_depend_on_what_is_scaled(method: str) -> None:
    """Scaling a window alone gives what scaling it among others gives: no statistic of the test set enters."""
    train, test = windows([0, 1] * 20, "S2"), windows([0, 1] * 5, "S3", seed=1)
    scaler = Scaler.fit(train, method)
    alone = scaler(test.take(np.array([3])))
    np.testing.assert_array_equal(scaler(test)[3:4], alone)
    assert alone.dtype == np.float32


@pytest.mark.parametrize("method", ["standard", "log", "quantile"])
def test_training_windows_come_out_with_mean_zero_and_deviation_one(method: str) -> None:
    train = windows([0, 1] * 50, "S2")
    out = Scaler.fit(train, method)(train).astype(np.float64)
    np.testing.assert_allclose(out.mean(axis=(0, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(out.std(axis=(0, 2)), 1, atol=1e-5)


def test_a_channel_that_never_moved_stays_finite() -> None:
    still = windows([0, 1], "S2", x=np.full((2, 2, 4), 7.0))
    np.testing.assert_array_equal(Scaler.fit(still)(still), 0)


def test_class_weights_are_scikit_learns() -> None:
    y = np.array([0, 0, 0, 2, 2, 1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    np.testing.assert_allclose(class_weights(y, 3), expected)


def test_a_class_without_training_windows_weighs_nothing() -> None:
    np.testing.assert_allclose(class_weights(np.array([0, 0, 2, 2]), 3), [1, 0, 1])


def test_an_unknown_method_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'standard'"):
        Scaler.fit(windows([0, 1], "S2"), "standart")


@pytest.mark.parametrize("method", ["standard", "log", "quantile", "none"])
def test_numbers_scale_as_windows_do_and_come_back(method: str) -> None:
    train = windows([0, 1] * 50, "S2")
    scaler = Scaler.fit(train, method)
    values = train.x[:, :, 0].astype(np.float64)
    scaled = scaler.numbers(values)
    np.testing.assert_allclose(scaled, scaler(train)[:, :, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scaler.back(scaled), values, rtol=1e-3, atol=1e-3)


def test_a_window_scaled_by_itself_does_not_come_back() -> None:
    with pytest.raises(ValueError, match="nothing fitted undoes it"):
        Scaler.fit(windows([0, 1], "S2"), "window").back(np.zeros((1, 2)))
