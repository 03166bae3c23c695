"""How close a reconstructed window is to the true one, and to what a guess without any data at the cut would give.

No single number tells whether a signal leaked. The mean squared error is blind to shape, correlation to level, warping
to time, and structural similarity reads 0.9 for a signal upside down; averages hide the few windows that came out
whole. So each is given, beside the same number for the trivial guesses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import periodogram

from hcqsfl.randomness import numpy_generator

Array = np.ndarray

PULSE = ("ppg", "bvp", "pleth", "ecg", "ekg", "abp", "art", "pap", "pulse")
"""Parts of the names of channels that carry a pulse."""
PULSE_BAND = (0.7, 3.5)
"""Hz: 42 to 210 beats a minute."""
LAG_SECONDS = 1.0
"""About a beat: how far a reconstruction may be shifted for the second correlation."""
RECOVERED = 0.9
"""Correlation above which a window counts as recovered."""
TOLERANCE = 0.05
"""Standard deviations within which a value of a table counts as matched."""
_FLAT = 1e-6

BETTER = {
    "nmse": "lower",
    "mse": "lower",
    "r": "higher",
    "r_lagged": "higher",
    "r_unsigned": "higher",
    "recovered": "higher",
    "ssim": "higher",
    "psnr": "higher",
    "dtw": "lower",
    "heart_rate_error": "lower",
    "exact_match": "higher",
}
"""Metric to whether a higher or a lower score is the better attack."""


def nmse(truth: Array, guess: Array, scale: Array | None = None) -> Array:
    """Return the squared error over the window's own variation, ``(n,)``; 1.0 is a guess of each channel's mean.

    Args:
        truth, guess: ``(n, n_chans, n_times)``.
        scale: ``(n_chans, 1)`` deviations to take in place of the window's own variation: for rows of a table, which
            do not vary within themselves.

    Returns:
        NaN where the window does not vary.
    """
    error = ((guess - truth) ** 2).sum(axis=(1, 2))
    own = (_centred(truth) ** 2).sum(axis=(1, 2))
    return _ratio(error, own if scale is None else np.full(len(truth), (scale**2).sum()))


def mse(truth: Array, guess: Array) -> Array:
    """Return the mean squared error in the units of the scaled data, ``(n,)``."""
    found: Array = ((guess - truth) ** 2).mean(axis=(1, 2))
    return found


def correlation(truth: Array, guess: Array) -> Array:
    """Return Pearson's r of each window and channel ``(n, n_chans)``.

    A flat guess has none and scores 0; where the truth is flat there is nothing to find, and the score is NaN.
    """
    a, b = _centred(truth), _centred(guess)
    both = (a * b).sum(axis=2)
    size_a, size_b = np.linalg.norm(a, axis=2), np.linalg.norm(b, axis=2)
    flat = _FLAT * np.sqrt(truth.shape[2])
    r = np.divide(both, size_a * size_b, out=np.zeros_like(both), where=(size_a > flat) & (size_b > flat))
    return np.where(size_a > flat, np.clip(r, -1, 1), np.nan)


def lagged_correlation(truth: Array, guess: Array, max_lag: int, *, signed: bool = True) -> Array:
    """Return r after the best shift of up to ``max_lag`` samples either way, ``(n, n_chans)``.

    At least half of the window must overlap. Without the sign, a guess upside down counts as one the right way up: a
    server that trains a shadow front cannot tell the two apart, and whoever looks at the signal can.
    """
    n_times = truth.shape[2]
    found = [correlation(truth, guess)]
    for lag in range(1, min(max_lag, n_times // 2) + 1):
        found.append(correlation(truth[:, :, lag:], guess[:, :, :-lag]))
        found.append(correlation(truth[:, :, :-lag], guess[:, :, lag:]))
    with_nan = np.stack(found)
    with_nan = with_nan if signed else abs(with_nan)
    known = np.isfinite(with_nan[0])
    return np.where(known, np.max(np.nan_to_num(with_nan, nan=-1.0), axis=0), np.nan)


def ssim(truth: Array, guess: Array, low: Array, high: Array, width: int = 7) -> Array:
    """Return structural similarity over time, ``(n,)``, of signals scaled to [0, 1].

    Never to be read alone: on signals around zero, one turned upside down scores 0.9.

    Args:
        truth, guess: ``(n, n_chans, n_times)``.
        low, high: ``(n_chans, 1)`` what becomes 0 and 1; values outside are clipped.
        width: samples of the sliding window; windows shorter than that have no score.

    Source: Wang et al. (2004), Image quality assessment, equation 13, with a uniform window over one axis.
    """
    if truth.shape[2] < width:
        return np.full(len(truth), np.nan)
    a, b = (np.clip((x - low) / np.maximum(high - low, _FLAT), 0, 1) for x in (truth, guess))
    unbiased = width / (width - 1)
    inside = slice(width // 2, truth.shape[2] - (width - 1) // 2)

    def local(x: Array) -> Array:
        return uniform_filter1d(x, width, axis=2)[:, :, inside]

    mean_a, mean_b = local(a), local(b)
    var_a, var_b = (unbiased * (local(x * x) - m * m) for x, m in ((a, mean_a), (b, mean_b)))
    cov = unbiased * (local(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    found: Array = similar.mean(axis=(1, 2))
    return found


def psnr(truth: Array, guess: Array, low: Array, high: Array) -> Array:
    """Return the peak signal-to-noise ratio in dB, ``(n,)``, on the range from ``low`` to ``high (n_chans, 1)``."""
    error = (((guess - truth) / np.maximum(high - low, _FLAT)) ** 2).mean(axis=(1, 2))
    return -10 * np.log10(np.maximum(error, 1e-12))


def dtw(truth: Array, guess: Array, band: float = 0.1) -> Array:
    """Return the dynamic-time-warping distance of z-normalised channels over the window's length, ``(n,)``.

    Args:
        truth, guess: ``(n, n_chans, n_times)``.
        band: Sakoe-Chiba band, share of the length.

    Raises:
        ImportError: dtaidistance is not installed; the message says how to.
    """
    try:
        from dtaidistance import dtw as warping
    except ImportError as error:
        raise ImportError("warped distances need dtaidistance: pip install 'hcqsfl[privacy]'") from error
    fast = warping.try_import_c()
    a, b = (_centred(x) / np.maximum(x.std(axis=2, keepdims=True), _FLAT) for x in (truth, guess))
    n_times = truth.shape[2]
    # the library's window counts the diagonal
    window = max(1, round(band * n_times)) + 1
    found = np.empty(truth.shape[:2])
    for i, j in np.ndindex(found.shape):
        pair = (np.ascontiguousarray(x[i, j], dtype=np.double) for x in (a, b))
        found[i, j] = warping.distance(*pair, window=window, use_c=fast) / n_times
    means: Array = found.mean(axis=1)
    return means


def pulse_channels(channels: Sequence[str]) -> list[int]:
    """Return the places of the channels whose names tell of a pulse."""
    return [i for i, name in enumerate(channels) if any(part in name.lower() for part in PULSE)]


def heart_rate(x: Array, sfreq: float, prominence: float = 0.4) -> Array:
    """Return the heart rate of signals ``(n, n_times)`` in beats per minute, from the spectral peak.

    Args:
        x: pulse signals.
        sfreq: samples per second.
        prominence: least share of the power from 0.7 to 3.5 Hz within 0.2 Hz of the peak and of its first harmonic.

    Returns:
        ``(n,)``; NaN where no peak stands out.

    Raises:
        ValueError: the signals are too short, or sampled too slowly, to tell a heart rate.
    """
    low, high = PULSE_BAND
    if sfreq < 2 * high or x.shape[1] < 5 * sfreq:
        raise ValueError(
            f"a heart rate needs at least 5 s at {2 * high:g} Hz; these are {x.shape[1] / sfreq:g} s at {sfreq:g} Hz"
        )
    n_fft = max(x.shape[1], round(sfreq * 60))  # bins of one beat per minute
    frequency, power = periodogram(x, sfreq, window="hann", nfft=n_fft, detrend="linear", axis=1)
    inside = (frequency >= low) & (frequency <= high)
    frequency, power = frequency[inside], power[:, inside]
    peak = frequency[power.argmax(axis=1)][:, None]
    near = (abs(frequency - peak) <= 0.2) | (abs(frequency - 2 * peak) <= 0.2)
    total = power.sum(axis=1)
    share = np.divide((power * near).sum(axis=1), total, out=np.zeros_like(total), where=total > 0)
    return np.where(share >= prominence, 60 * peak[:, 0], np.nan)


def exact_match(truth: Array, guess: Array, scale: Array, tolerance: float = TOLERANCE) -> Array:
    """Return the share of a row's values that were found, ``(n,)``: within ``tolerance`` of their deviation ``scale``.

    Args:
        truth, guess: ``(n, n_chans, 1)``.
        scale: ``(n_chans, 1)`` standard deviation of each column; columns that do not vary are not counted.
        tolerance: in deviations.
    """
    varies = (scale > _FLAT)[:, 0]
    if not varies.any():
        return np.full(len(truth), np.nan)
    hit = abs(guess - truth) <= tolerance * scale
    share: Array = hit[:, varies, 0].mean(axis=1)
    return share


def measures(
    truth: Array, auxiliary: Array, channels: Sequence[str] = (), sfreq: float = 1.0
) -> dict[str, Callable[[Array], Array]]:
    """Return what is measured on windows like these: metric to a function of guesses, ``(n, c, t)`` to ``(n,)``.

    Args:
        truth: ``(n, n_chans, n_times)`` what is to be found.
        auxiliary: ``(m, n_chans, n_times)`` what the attacker holds: the ranges that SSIM and PSNR need come from it.
        channels: their names.
        sfreq: samples per second.
    """
    if truth.shape[2] == 1:
        scale = auxiliary.std(axis=0)
        return {
            "nmse": lambda guess: nmse(truth, guess, scale),
            "mse": lambda guess: mse(truth, guess),
            "exact_match": lambda guess: exact_match(truth, guess, scale),
        }
    low, high = (np.quantile(auxiliary, q, axis=(0, 2))[:, None] for q in (0.005, 0.995))
    max_lag = max(1, round(LAG_SECONDS * sfreq))

    def recovered(guess: Array) -> Array:
        r = correlation(truth, guess)
        return _mean_known(np.where(np.isfinite(r), r > RECOVERED, np.nan))

    return {
        "nmse": lambda guess: nmse(truth, guess),
        "mse": lambda guess: mse(truth, guess),
        "r": lambda guess: _mean_known(correlation(truth, guess)),
        "r_lagged": lambda guess: _mean_known(lagged_correlation(truth, guess, max_lag)),
        "r_unsigned": lambda guess: _mean_known(lagged_correlation(truth, guess, max_lag, signed=False)),
        "recovered": recovered,
        "ssim": lambda guess: ssim(truth, guess, low, high),
        "psnr": lambda guess: psnr(truth, guess, low, high),
        "dtw": lambda guess: dtw(truth, guess),
    }


def trivial_guesses(
    auxiliary: Array, auxiliary_y: Array, y: Array, n_classes: int, seed: int, truth: Array | None = None
) -> dict[str, Array]:
    """Return what one would guess without any data at the cut: name to ``(n, n_chans, n_times)``.

    The guesses of a class are given the true class, so that an attack must find more than that.

    Args:
        auxiliary: ``(m, n_chans, n_times)``, of other people.
        auxiliary_y: ``(m,)`` their classes.
        y: ``(n,)`` classes of the windows asked about.
        n_classes: how many there are.
        seed: of the random window.
        truth: if given, the auxiliary window that is nearest to the truth is among them as ``nearest window``. It is
            no guess that anybody could make, but the limit of handing out real windows of other people.
    """
    level = auxiliary.mean(axis=0)
    rng = numpy_generator(seed, "trivial guesses")
    of_class = [auxiliary[auxiliary_y == k] for k in range(n_classes)]
    of_class = [each if len(each) else auxiliary for each in of_class]
    found = {
        "zeros": np.zeros((len(y), *auxiliary.shape[1:])),  # the mean of scaled data, which needs no auxiliary window
        "mean signal": np.repeat(level[None], len(y), axis=0),
        "class mean": np.stack([of_class[k].mean(axis=0) for k in y]),
        "random window of the class": np.stack([of_class[k][rng.integers(len(of_class[k]))] for k in y]),
    }
    if auxiliary.shape[2] == 1:
        found["column medians"] = np.repeat(np.median(auxiliary, axis=0)[None], len(y), axis=0)
    if truth is not None:
        flat, own = truth.reshape(len(truth), -1), auxiliary.reshape(len(auxiliary), -1)
        distance = (flat**2).sum(1)[:, None] - 2 * flat @ own.T + (own**2).sum(1)[None]
        found["nearest window"] = auxiliary[distance.argmin(axis=1)]
    return found


@dataclass(frozen=True, eq=False)
class Scored:
    """One metric of a reconstruction, window by window, beside the same of the trivial guesses.

    Attributes:
        metric, better: a key of ``BETTER``, and what it holds.
        own: ``(n,)`` scores of the attack; NaN where a window has none.
        baselines: name to ``(n,)`` scores of a trivial guess.
        facts: what averages hide: the score of the 5 % of windows that came out best, that of the nearest auxiliary
            window, scores by channel, ranges.
    """

    metric: str
    better: str
    own: Array
    baselines: Mapping[str, Array]
    facts: Mapping[str, Any]

    @property
    def scored(self) -> Array:
        """Places of the windows where the attack and every trivial guess have a score."""
        known = np.isfinite(self.own)
        for each in self.baselines.values():
            known &= np.isfinite(each)
        return np.flatnonzero(known)


def score(
    guess: Array,
    truth: Array,
    y: Array,
    auxiliary: Array,
    auxiliary_y: Array,
    n_classes: int,
    *,
    channels: Sequence[str] = (),
    sfreq: float = 1.0,
    seed: int = 0,
) -> list[Scored]:
    """Score a reconstruction by every metric that fits the windows.

    Args:
        guess, truth: ``(n, n_chans, n_times)``.
        y: ``(n,)`` classes.
        auxiliary, auxiliary_y: ``(m, n_chans, n_times)`` and ``(m,)`` what the attacker held.
        n_classes: how many there are.
        channels, sfreq: names, and samples per second.
        seed: of the trivial guesses.

    Raises:
        ValueError: guess and truth differ in shape.
        ImportError: an optional package is missing.
    """
    if guess.shape != truth.shape:
        raise ValueError(f"a reconstruction has shape {guess.shape}, but the windows asked about have {truth.shape}")
    guess, truth, auxiliary = (np.asarray(each, dtype=np.float64) for each in (guess, truth, auxiliary))
    trivial = trivial_guesses(auxiliary, auxiliary_y, y, n_classes, seed, truth)
    nearest = trivial.pop("nearest window")
    found = []
    for metric, measure in measures(truth, auxiliary, channels, sfreq).items():
        own, near = measure(guess), measure(nearest)
        facts: dict[str, Any] = {
            "best_5_percent": tail(own, BETTER[metric]),
            "nearest_window": float(np.nanmean(near)) if np.isfinite(near).any() else None,
        }
        if metric == "r":
            facts["by_channel"] = _by_channel(correlation(truth, guess), channels)
        if metric == "psnr":
            facts["range"] = "0.5 % to 99.5 % quantile of each channel of the auxiliary windows"
        baselines = {name: measure(each) for name, each in trivial.items()}
        found.append(Scored(metric, BETTER[metric], own, baselines, facts))
    return found + _heart_rates(guess, truth, y, auxiliary, auxiliary_y, channels, sfreq)


def tail(scores: Array, better: str, share: float = 0.05) -> float | None:
    """Return the mean score of the windows that came out best: the worst for the people they belong to."""
    known = np.sort(scores[np.isfinite(scores)])
    if not len(known):
        return None
    k = max(1, round(share * len(known)))
    return float((known[-k:] if better == "higher" else known[:k]).mean())


def _heart_rates(
    guess: Array,
    truth: Array,
    y: Array,
    auxiliary: Array,
    auxiliary_y: Array,
    channels: Sequence[str],
    sfreq: float,
) -> list[Scored]:
    """Score the heart rate of the first channel with a pulse against those usual in people, and in the class."""
    found = pulse_channels(channels)
    if not found or sfreq < 2 * PULSE_BAND[1] or truth.shape[2] < 5 * sfreq:
        return []
    i = found[0]
    rate, known = heart_rate(truth[:, i], sfreq), heart_rate(auxiliary[:, i], sfreq)
    if not np.isfinite(known).any():
        return []
    usual = float(np.nanmean(known))
    of_class = {
        k: float(np.nanmean(known[auxiliary_y == k])) if np.isfinite(known[auxiliary_y == k]).any() else usual
        for k in np.unique(y).tolist()
    }
    # a reconstruction without a clear peak tells its reader nothing, who then says what is usual
    told = heart_rate(guess[:, i], sfreq)
    silent = ~np.isfinite(told)
    error = abs(np.where(silent, usual, told) - rate)
    baselines = {
        "mean heart rate": abs(usual - rate),
        "mean heart rate of the class": abs(np.array([of_class[k] for k in y.tolist()]) - rate),
    }
    facts = {
        "channel": channels[i],
        "unit": "beats/min",
        "no_clear_peak_in_truth": float((~np.isfinite(rate)).mean()),
        "no_clear_peak_in_guess": float(silent.mean()),
        "best_5_percent": tail(error, "lower"),
    }
    return [Scored("heart_rate_error", "lower", error, baselines, facts)]


def _by_channel(r: Array, channels: Sequence[str]) -> dict[str, float | None]:
    names = channels if len(channels) == r.shape[1] else [str(i) for i in range(r.shape[1])]
    return {name: float(np.nanmean(r[:, i])) if np.isfinite(r[:, i]).any() else None for i, name in enumerate(names)}


def _centred(x: Array) -> Array:
    return x - x.mean(axis=2, keepdims=True)


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > _FLAT)


def _mean_known(r: Array) -> Array:
    """Return the mean over channels, those without a score left out."""
    known = np.isfinite(r)
    return _ratio(np.where(known, r, 0.0).sum(axis=1), known.sum(axis=1).astype(float))
