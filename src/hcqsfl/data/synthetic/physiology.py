"""Physiological signals: one cycle that NeuroKit2 simulates, replayed along a phase that speeds up and slows down.

A heart that races under stress needs a rate that moves inside one recording. Simulating every beat is slow; one beat
of NeuroKit2's simulators, read at the running phase ``phi(t) = integral of rate``, is the same wave at any rate.
"""

import functools
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import signal as dsp

GRID = 8.0
"""Rate in Hz of the slow states: arousal, rates, tonic levels."""


def wander(
    n_samples: int, seconds: float, std: float, generator: np.random.Generator, rate: float = GRID
) -> np.ndarray:
    """Return ``(n_samples,)`` of a stationary Ornstein-Uhlenbeck process around 0.

    Args:
        n_samples: length.
        seconds: correlation time in s.
        std: stationary standard deviation.
        generator: source of randomness.
        rate: samples a second.
    """
    keep = np.exp(-1.0 / (seconds * rate))
    kicks = generator.standard_normal(n_samples) * std * np.sqrt(1 - keep**2)
    first = std * generator.standard_normal()
    path, _ = dsp.lfilter([1.0], [1.0, -keep], kicks, zi=[keep * first])
    return np.asarray(path)


def lag(levels: np.ndarray, seconds: float, rate: float = GRID) -> np.ndarray:
    """Return ``levels`` as a body follows them: through a first-order low pass of time constant ``seconds``."""
    keep = np.exp(-1.0 / (seconds * rate))
    followed, _ = dsp.lfilter([1 - keep], [1.0, -keep], levels, zi=[keep * levels[0]])
    return np.asarray(followed)


def at_rate(states: np.ndarray, n_samples: int, rate: float) -> np.ndarray:
    """Read slow states ``(n,)`` given at ``GRID`` at ``n_samples`` ticks of a faster clock, linearly between."""
    return np.interp(np.arange(n_samples) / rate, np.arange(len(states)) / GRID, states)


def phase(per_minute: np.ndarray, n_samples: int, rate: float, delay: float = 0.0) -> np.ndarray:
    """Return ``(n_samples,)`` cycles gone by when the frequency in 1/min at ``GRID`` is ``per_minute``.

    Args:
        per_minute: ``(n,)`` frequency.
        n_samples: length of the result.
        rate: its samples a second.
        delay: s by which the signal trails (the pulse arrives at the wrist after the beat).
    """
    gone = np.concatenate([[0.0], np.cumsum(per_minute / 60.0 / GRID)])
    when = np.arange(n_samples) / rate - delay
    return np.interp(when, np.arange(len(gone)) / GRID, gone) + np.minimum(when, 0.0) * per_minute[0] / 60.0


def replay(cycle: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Return the value of ``cycle`` (one period, evenly sampled) at each phase, between samples linearly."""
    place = (phases % 1.0) * len(cycle)
    left = place.astype(np.int64)
    share = place - left
    closed = np.append(cycle, cycle[0])
    left = np.minimum(left, len(cycle) - 1)  # phase 1 - 1e-17 rounds up
    return np.asarray(closed[left] * (1 - share) + closed[left + 1] * share)


def _simulate(name: str, **options: Any) -> np.ndarray:
    import neurokit2

    with warnings.catch_warnings():
        # its simulators warn on lengths and options that are chosen here on purpose
        warnings.filterwarnings("ignore", module=r"neurokit2\.")
        simulator: Callable[..., Any] = getattr(neurokit2, name)
        return np.asarray(simulator(**options), dtype=float)


@functools.cache
def _ecg(variant: int) -> np.ndarray:
    # The wave amplitudes of ECGSYN, varied as they vary between leads and people
    tallness = np.random.default_rng(variant).uniform(0.75, 1.25, 5)
    amplitudes = tuple((np.array([1.2, -5.0, 30.0, -7.5, 0.75]) * tallness).tolist())
    return _simulate(
        "ecg_simulate", duration=6, sampling_rate=500, heart_rate=60, heart_rate_std=0, noise=0, method="ecgsyn",
        random_state=1, ai=amplitudes,
    )  # fmt: skip


def ecg_cycle(variant: int) -> np.ndarray:
    """Return ``(500,)`` one beat, R peak at phase 0 and of height 1; ``variant`` picks a heart."""
    wave = _ecg(variant)
    peak = 2000 + int(np.argmax(wave[2000:2500]))
    beat = wave[peak - 500 : peak]
    beat = np.roll(beat - np.median(beat), -int(np.argmax(beat)))
    return np.asarray(beat / beat[0])


@functools.cache
def ppg_cycle() -> np.ndarray:
    """Return ``(200,)`` one pulse wave, foot at phase 0, between 0 and 1."""
    wave = _simulate(
        "ppg_simulate", duration=6, sampling_rate=200, heart_rate=60, frequency_modulation=0, ibi_randomness=0,
        drift=0, motion_amplitude=0, powerline_amplitude=0, burst_number=0, random_state=1,
    )  # fmt: skip
    foot = 400 + int(np.argmin(wave[400:600]))
    pulse = wave[foot : foot + 200]
    pulse = pulse - np.linspace(pulse[0], pulse[-1], 200)  # close the loop
    return np.asarray((pulse - pulse.min()) / np.ptp(pulse))


@functools.cache
def breath_cycle() -> np.ndarray:
    """Return ``(250,)`` one breath between -1 and 1, inspiration first."""
    wave = _simulate(
        "rsp_simulate",
        duration=30,
        sampling_rate=50,
        respiratory_rate=12,
        method="breathmetrics",
        noise=0,
        random_state=1,
    )
    rising = np.flatnonzero((wave[:-1] <= 0) & (wave[1:] > 0)) + 1
    first, after = next((a, b) for a, b in itertools.pairwise(rising) if b - a > 50)
    breath = np.interp(np.linspace(0, after - first, 250, endpoint=False), np.arange(after - first), wave[first:after])
    return np.asarray(breath / np.abs(breath).max())


@functools.cache
def skin_response(rate: float) -> np.ndarray:
    """Return one skin conductance response of height 1 at ``rate`` samples a second."""
    # its response is stretched over the whole duration: at 90 s it has the published rise and decay times
    wave = _simulate(
        "eda_simulate", duration=90, sampling_rate=round(rate), scr_number=1, noise=0, drift=0, random_state=1
    )
    wave = wave - wave[0]
    wave[np.abs(wave) < 1e-3] = 0.0
    return np.trim_zeros(wave) / np.abs(wave).max()


def skin_responses(per_minute: np.ndarray, height: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return ``(n,)`` phasic skin conductance at ``GRID``: responses at random moments, of random height.

    Args:
        per_minute: ``(n,)`` responses a minute.
        height: ``(n,)`` mean height of a response, in microsiemens.
        generator: source of randomness.
    """
    happens = generator.random(len(per_minute)) < per_minute / 60.0 / GRID
    impulses = happens * height * generator.exponential(1.0, len(per_minute))
    return np.asarray(np.convolve(impulses, skin_response(GRID))[: len(per_minute)])
