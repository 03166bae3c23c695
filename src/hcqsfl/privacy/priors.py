"""What signals look like, for attacks that search among windows: smooth, periodic, bending slowly."""

import torch
from torch import Tensor

LEAST = 0.3
"""Autocorrelation above which a channel counts as periodic."""


def total_variation(x: Tensor) -> Tensor:
    """Return the mean absolute step of windows ``(b, n_chans, n_times)``; 0 where there is one sample.

    Source: Rudin, Osher & Fatemi (1992), Nonlinear total variation based noise removal algorithms, in one dimension.
    """
    return x.diff(dim=2).abs().mean() if x.shape[2] > 1 else x.new_zeros(())


def periods(x: Tensor) -> list[int]:
    """Return each channel's period in samples as seen in windows ``(n, n_chans, n_times)``; 0 where it has none.

    The period is where the mean autocorrelation has its highest peak after it first falls below zero.
    """
    centred = x - x.mean(dim=2, keepdim=True)
    n_times = x.shape[2]
    spectrum = torch.fft.rfft(centred, n=2 * n_times, dim=2).abs() ** 2
    correlation = torch.fft.irfft(spectrum, dim=2)[:, :, :n_times]
    # as many summands are missing at a lag as it is long
    correlation = correlation * n_times / torch.arange(n_times, 0, -1)
    correlation = (correlation / correlation[:, :, :1].clamp_min(1e-12)).mean(dim=0)  # (n_chans, n_times)
    found = []
    for row in correlation:
        below = (row[: n_times // 2] < 0).nonzero()
        if not len(below):
            found.append(0)
            continue
        first = int(below[0])
        lag = first + int(row[first : n_times // 2 + 1].argmax())
        found.append(lag if row[lag] > LEAST else 0)
    return found


def aperiodicity(x: Tensor, lags: list[int]) -> Tensor:
    """Return the mean absolute difference of samples one period apart, over periodic channels; 0 if there are none.

    Source: Meijer et al. (2025), TS-Inverse, for the idea (periodicity regularisation); the formula is this project's.
    """
    terms = [(x[:, c, lag:] - x[:, c, :-lag]).abs().mean() for c, lag in enumerate(lags) if lag]
    return torch.stack(terms).mean() if terms else x.new_zeros(())


def bend(x: Tensor, share: float = 0.25) -> Tensor:
    """Return how much the trend of windows bends: the mean absolute second difference of the moving average.

    Args:
        x: ``(b, n_chans, n_times)``.
        share: of the window that is averaged over.

    Source: Meijer et al. (2025), TS-Inverse, for the idea (trend regularisation); the formula is this project's.
    """
    width = max(1, round(share * x.shape[2]))
    if x.shape[2] - width < 2:
        return x.new_zeros(())
    trend = torch.nn.functional.avg_pool1d(x, width, stride=1)
    return trend.diff(n=2, dim=2).abs().mean()
