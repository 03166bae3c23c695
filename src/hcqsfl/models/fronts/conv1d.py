"""A convolutional front for raw signals."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class Conv1dFront(nn.Sequential):
    """A few strided convolutions over time, mean and deviation over what is left of it, then a bottleneck.

    Legend: b windows, c channels, t times, w width::

        (b, c, t) -conv-> (b, w, t/2) -conv-> (b, 2w, t/4) -conv-> (b, 2w, t/8)
        -mean and deviation over time-> (b, 4w) -linear-> (b, n_smashed)

    Each convolution, with its normalisation and GELU, is one block, and so are the pooling and the bottleneck: a
    network can be cut after any of them. Normalisation is by group, never by batch: batch statistics would tie the
    clients' windows together, and per-sample gradients (DP-SGD) need each window on its own.

    Args:
        n_chans: channels of a window.
        n_times: samples of a window.
        n_smashed: width of the bottleneck.
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
        if width % 4:
            raise ValueError(f"conv1d has width {width}; it must be a multiple of 4, the number of its groups")
        if n_times < 2**n_layers:
            raise ValueError(
                f"conv1d halves the window {n_layers} times, but a window has {n_times} samples; at least "
                f"{2**n_layers} are needed: lengthen the window or lower model.front_options.n_layers"
            )
        widths = [n_chans, width] + [2 * width] * (n_layers - 1)
        blocks = [_block(n_in, n_out, kernel_size) for n_in, n_out in pairwise(widths)]
        bottleneck = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * widths[-1], n_smashed))
        super().__init__(*blocks, MeanAndDeviation(), bottleneck)


def _block(n_in: int, n_out: int, kernel_size: int) -> nn.Module:
    conv = nn.Conv1d(n_in, n_out, kernel_size, stride=2, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(4, n_out), nn.GELU())


class MeanAndDeviation(nn.Module):
    """Pool over time: ``(b, w, t)`` to ``(b, 2w)``, means first."""

    def forward(self, x: Tensor) -> Tensor:
        """Return mean and standard deviation of each filter."""
        level = x.mean(dim=2)
        spread = (x.var(dim=2, unbiased=False) + 1e-6).sqrt()
        return torch.cat([level, spread], dim=1)
