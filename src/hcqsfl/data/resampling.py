"""Bring signals and labels to another sampling frequency: signals through an anti-alias filter, labels unanimously."""

from fractions import Fraction

import numpy as np
from scipy.signal import resample_poly

from hcqsfl.data.recording import IGNORED

MAX_FACTOR = 2000
"""Largest up- or down-factor: the filter is 20 times as long."""


def rate_ratio(old: float, new: float) -> Fraction:
    """Return ``new / old`` in small integers.

    Raises:
        ValueError: a rate is not positive, or the ratio needs integers above ``MAX_FACTOR``.
    """
    if not (0 < old < np.inf and 0 < new < np.inf):
        raise ValueError(f"cannot resample from {old:g} Hz to {new:g} Hz: both must be above 0")
    ratio = Fraction(new / old).limit_denominator(MAX_FACTOR)
    if not 0 < ratio.numerator <= MAX_FACTOR or abs(float(ratio) / (new / old) - 1) > 1e-9:
        raise ValueError(
            f"cannot resample from {old:g} Hz to {new:g} Hz: the ratio is not one of whole numbers up to {MAX_FACTOR}"
        )
    return ratio


def resample(signal: np.ndarray, old: float, new: float) -> np.ndarray:
    """Resample with a polyphase low-pass (SciPy's ``resample_poly``, Kaiser 5.0, cut at the lower Nyquist frequency).

    Sample ``k`` of the result lies at ``k / new`` s. The signal is taken to go on at its first and last value beyond
    its ends. A NaN makes NaN of every sample whose filter touches it: ten samples to either side at the lower rate.

    Args:
        signal: ``(n_chans, n_samples)``.
        old: its sampling frequency in Hz.
        new: the one wanted.

    Returns:
        ``(n_chans, ceil(n_samples * new / old))`` of the same dtype.

    Raises:
        ValueError: see ``rate_ratio``.
    """
    ratio = rate_ratio(old, new)
    if ratio == 1 or signal.shape[1] == 0:
        return signal
    # a channel at a time in float64: SciPy's float32 filter would lose the last digits of 32.86 degrees
    rows = [resample_poly(row.astype(np.float64), ratio.numerator, ratio.denominator, padtype="edge") for row in signal]
    return np.stack(rows).astype(signal.dtype)


def resample_labels(labels: np.ndarray, old: float, new: float, n_samples: int) -> np.ndarray:
    """Label each new sample with what all old samples within half a new sample say, or ``IGNORED`` if they differ.

    So a new sample at a transition belongs to no class, and no window near one can be given the wrong label.

    Args:
        labels: ``(n_old,)`` integers at ``old`` Hz.
        old: their rate in Hz.
        new: the rate wanted; above ``old``, each new sample takes the nearest old one's label.
        n_samples: how many new samples there are; beyond the old ones they are ``IGNORED``.

    Returns:
        ``(n_samples,)`` labels of the same dtype.
    """
    step = float(1 / rate_ratio(old, new))  # old samples a new one
    centre = np.arange(n_samples) * step
    first = np.clip(np.ceil(centre - step / 2 - 1e-6).astype(np.int64), 0, None)
    last = np.ceil(centre + step / 2 - 1e-6).astype(np.int64) - 1
    nearest = np.floor(centre + 0.5 - 1e-6).astype(np.int64)
    first, last = np.where(last < first, nearest, first), np.where(last < first, nearest, last)
    there = centre <= len(labels) - 0.5
    last = np.clip(last, 0, len(labels) - 1)
    first = np.minimum(first, last)
    changes = np.concatenate([[0], np.cumsum(np.diff(labels) != 0)])  # up to and with each old sample
    return np.where(there & (changes[first] == changes[last]), labels[first], IGNORED).astype(labels.dtype)
