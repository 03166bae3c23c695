"""A convolutional front for raw signals."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class Conv1dFront(nn.Module):
    """Three to five strided convolutions over time, then a bottleneck.

    Legend: b windows, c channels, t times, w width::

        (b, c, t) -conv-> (b, w, t/2) -conv-> (b, 2w, t/4) -conv-> (b, 2w, t/8)
        -mean and deviation over time-> (b, 4w) -linear-> (b, n_smashed)

    Normalisation is by group, never by batch: batch statistics would tie the clients' windows together, and per-sample
    gradients (DP-SGD) need each window on its own.

    Args:
        n_chans: channels of a window.
        n_times: samples of a window.
        n_smashed: width of the cut.
        width: filters of the first layer; a multiple of 4.
        n_layers: convolutions.
        kernel_size: taps of each; odd.
        dropout: share of pooled features dropped in training.

    Raises:
        ValueError: the window is too short for the convolutions, or ``width`` is no multiple of 4.
    """

    def __init__(
        self,
        n_chans: int,
        n_times: int,
        n_smashed: int,
        width: int = 16,
        n_layers: int = 3,
        kernel_size: int = 7,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"conv1d has width {width}; it must be a multiple of 4, the number of its groups")
        if n_times < 2**n_layers:
            raise ValueError(
                f"conv1d halves the window {n_layers} times, but a window has {n_times} samples; at least "
                f"{2**n_layers} are needed: lengthen the window or lower model.front_options.n_layers"
            )
        widths = [n_chans, width] + [2 * width] * (n_layers - 1)
        blocks: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            conv = nn.Conv1d(n_in, n_out, kernel_size, stride=2, padding=kernel_size // 2, bias=False)
            blocks += [conv, nn.GroupNorm(4, n_out), nn.GELU()]
        self.convolutions = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.bottleneck = nn.Linear(2 * widths[-1], n_smashed)

    def forward(self, x: Tensor) -> Tensor:
        """Return smashed data ``(b, n_smashed)`` of windows ``(b, n_chans, n_times)``."""
        over_time = self.convolutions(x)  # (b, 2w, t / 2^n_layers)
        level = over_time.mean(dim=2)
        spread = (over_time.var(dim=2, unbiased=False) + 1e-6).sqrt()
        pooled = torch.cat([level, spread], dim=1)  # (b, 4w)
        smashed: Tensor = self.bottleneck(self.dropout(pooled))
        return smashed
