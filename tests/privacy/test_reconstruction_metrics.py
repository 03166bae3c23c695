"""Metrics of reconstruction and dependence, each against another's code or a sum that a reader can do."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from hcqsfl.privacy.metrics import dependence
from hcqsfl.privacy.metrics.reconstruction import (
    correlation,
    dtw,
    exact_match,
    heart_rate,
    lagged_correlation,
    nmse,
    psnr,
    score,
    ssim,
    tail,
    trivial_guesses,
)

RNG = np.random.default_rng(0)
T = np.arange(160) / 16.0  # 10 s at 16 Hz


def pulse(rate: float, phase: float = 0.0) -> np.ndarray:
    return np.sin(2 * np.pi * rate / 60 * T + phase)


def test_a_guess_of_the_windows_own_mean_has_an_nmse_of_one() -> None:
    x = RNG.normal(size=(5, 2, 30))
    np.testing.assert_allclose(nmse(x, np.broadcast_to(x.mean(axis=2, keepdims=True), x.shape)), 1.0)
    np.testing.assert_allclose(nmse(np.array([[[0.0, 2.0]]]), np.array([[[1.0, 2.0]]])), 0.5)  # 1 / (1 + 1)
    assert np.isnan(nmse(np.ones((1, 1, 4)), np.zeros((1, 1, 4)))).all()


def test_correlation_is_scipys_channel_by_channel_and_a_flat_guess_has_none() -> None:
    a, b = RNG.normal(size=(2, 4, 3, 20))
    expected = [[pearsonr(a[i, j], b[i, j])[0] for j in range(3)] for i in range(4)]
    np.testing.assert_allclose(correlation(a, b), expected)
    assert correlation(a, np.zeros_like(b)).max() == 0
    assert np.isnan(correlation(np.ones_like(a), b)).all()


def test_the_lagged_correlation_finds_a_shifted_copy() -> None:
    long = RNG.normal(size=(1, 1, 60))
    a, b = long[:, :, 5:55], long[:, :, 2:52]
    assert correlation(a, b)[0, 0] < 0.5
    assert lagged_correlation(a, b, 3)[0, 0] == pytest.approx(1)
    assert lagged_correlation(a, b, 2)[0, 0] < 0.5
    assert lagged_correlation(a, -b, 3, signed=False)[0, 0] == pytest.approx(1)


def test_structural_similarity_is_wangs_formula_in_every_window() -> None:
    a, b = RNG.uniform(size=(2, 1, 1, 12))
    low, high = np.zeros((1, 1)), np.ones((1, 1))
    local = []
    for i in range(12 - 6):
        x, y = a[0, 0, i : i + 7], b[0, 0, i : i + 7]
        c = np.cov(x, y)  # divides by n - 1
        local.append(
            (2 * x.mean() * y.mean() + 1e-4)
            * (2 * c[0, 1] + 9e-4)
            / ((x.mean() ** 2 + y.mean() ** 2 + 1e-4) * (c[0, 0] + c[1, 1] + 9e-4))
        )
    assert ssim(a, b, low, high)[0] == pytest.approx(np.mean(local))
    assert ssim(a, a, low, high)[0] == pytest.approx(1)


def test_psnr_is_in_decibels_of_the_stated_range() -> None:
    truth, low, high = np.zeros((1, 1, 4)), np.array([[0.0]]), np.array([[10.0]])
    assert psnr(truth, truth + 1, low, high)[0] == pytest.approx(20)  # a tenth of the range


def test_warping_is_the_textbook_recurrence_within_a_band() -> None:
    a, b = RNG.normal(size=(2, 1, 1, 20))
    x, y = ((s[0, 0] - s[0, 0].mean()) / s[0, 0].std() for s in (a, b))
    cost = np.full((21, 21), np.inf)
    cost[0, 0] = 0
    for i in range(1, 21):
        for j in range(max(1, i - 2), min(20, i + 2) + 1):  # 10 % of 20 samples either way
            cost[i, j] = (x[i - 1] - y[j - 1]) ** 2 + min(cost[i - 1, j], cost[i, j - 1], cost[i - 1, j - 1])
    assert dtw(a, b)[0] == pytest.approx(np.sqrt(cost[20, 20]) / 20)
    assert dtw(a, 3 * a + 1)[0] == pytest.approx(0, abs=1e-6)


def test_the_heart_rate_is_neurokits_and_noise_has_none() -> None:
    import neurokit2 as nk

    ppg = nk.ppg_simulate(duration=30, sampling_rate=50, heart_rate=77, random_state=1, frequency_modulation=0)
    peaks = nk.ppg_findpeaks(ppg, sampling_rate=50)["PPG_Peaks"]
    assert heart_rate(ppg[None], 50.0)[0] == pytest.approx(60 * 50 / np.diff(peaks).mean(), abs=3)
    assert heart_rate(np.stack([pulse(60), pulse(90)]), 16.0) == pytest.approx([60, 90], abs=1)
    assert np.isnan(heart_rate(RNG.normal(size=(40, 640)), 16.0)).mean() > 0.8
    with pytest.raises(ValueError, match="at least 5 s at 7 Hz; these are 40 s at 4 Hz"):
        heart_rate(np.zeros((1, 160)), 4.0)


def test_exact_matches_are_counted_over_the_columns_that_vary() -> None:
    truth = np.array([[[1.0], [2.0], [7.0]]])
    guess = np.array([[[1.04], [2.2], [9.0]]])
    assert exact_match(truth, guess, np.array([[1.0], [1.0], [0.0]]))[0] == 0.5


def test_the_tail_shows_what_the_mean_hides() -> None:
    scores = np.r_[np.zeros(95), np.ones(5)]
    assert tail(scores, "higher") == 1
    assert tail(1 - scores, "lower") == 0


def test_trivial_guesses_are_what_they_say() -> None:
    auxiliary = np.array([[[0.0, 1]], [[2.0, 3]], [[10.0, 20]]])
    made = trivial_guesses(auxiliary, np.array([0, 0, 1]), np.array([1, 0]), 2, 0, truth=np.array([[[2.0, 2]]] * 2))
    assert made["mean signal"][0].tolist() == [[4, 8]]
    assert made["class mean"].tolist() == [[[10, 20]], [[1, 2]]]
    assert made["random window of the class"][0].tolist() == [[10, 20]]
    assert made["nearest window"][0].tolist() == [[2, 3]]


def test_the_truth_scores_perfectly_and_a_random_window_gains_nothing() -> None:
    n = 60
    rates = RNG.uniform(55, 110, n)
    truth, auxiliary = (
        np.stack([pulse(r, p) for r, p in zip(RNG.permutation(rates), RNG.uniform(0, 6, n), strict=True)])[:, None]
        for _ in range(2)
    )
    y = np.zeros(n, dtype=int)
    found = score(truth, truth, y, auxiliary, y, 1, channels=("PPG",), sfreq=16.0)
    perfect = {
        "nmse": 0,
        "mse": 0,
        "r": 1,
        "r_lagged": 1,
        "r_unsigned": 1,
        "recovered": 1,
        "ssim": 1,
        "psnr": 120,
        "dtw": 0,
    }
    perfect["heart_rate_error"] = 0
    assert {s.metric: round(float(s.own.mean()), 6) for s in found} == perfect
    assert all(len(s.scored) == n for s in found)
    other = score(auxiliary[::-1], truth, y, auxiliary, y, 1, channels=("PPG",), sfreq=16.0)
    for s in other:
        if s.metric in ("nmse", "r", "heart_rate_error"):
            trivial = [each.mean() for each in s.baselines.values()]
            assert s.own.mean() > min(trivial) if s.better == "lower" else s.own.mean() < max(trivial) + 0.1
    with pytest.raises(ValueError, match=r"shape \(60, 1, 9\), but the windows asked about have \(60, 1, 160\)"):
        score(truth[:, :, :9], truth, y, auxiliary, y, 1)


def test_distance_correlation_is_dcors_and_of_independent_rows_it_is_nothing() -> None:
    import dcor

    x, z = RNG.normal(size=(60, 40)), RNG.normal(size=(60, 3))
    found = dependence.distance_correlation(x, z, 0, 99)
    assert found.value == pytest.approx(float(dcor.u_distance_correlation_sqr(x, z, method="naive")))
    assert found.value < found.floor
    assert found.p > 0.05
    linked = dependence.distance_correlation(x, x[:, :3] ** 2 + x[:, 3:6], 0, 99)
    assert linked.value > linked.floor
    assert linked.p == 0.01
    biased = float(dcor.distance_correlation(RNG.normal(size=(32, 1000)), RNG.normal(size=(32, 1000)), method="naive"))
    assert biased > 0.9  # what the usual estimator makes of independent data


def test_mutual_information_of_normals_is_the_closed_form_and_many_dimensions_are_refused() -> None:
    z = RNG.normal(size=(1500, 2))
    x = z.sum(axis=1) + RNG.normal(size=1500)
    assert dependence.mutual_information(x, z) == pytest.approx(0.5 * np.log(3), abs=0.08)  # variance 3, 1 of it noise
    assert dependence.mutual_information(RNG.normal(size=1500), z) < 0.08
    with pytest.raises(ValueError, match="in 9 dimensions; at most 8"):
        dependence.mutual_information(x, np.zeros((1500, 9)))
