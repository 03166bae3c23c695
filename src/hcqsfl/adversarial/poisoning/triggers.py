"""What a backdoor answers to: small changes of a window, whole or in parts.

Windows are those that the network sees, scaled; sizes are in their units.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hcqsfl.registry import lookup


class Trigger:
    """Replaces some values of a window.

    Args:
        kind: ``patch`` (the last samples of every channel at one level), ``sinusoid`` (a sine added to every channel)
            or ``rare_value`` (some channels at one level that is rare among honest rows).
        level: of the patch and the rare value, and amplitude of the sine, in the scaled windows' units, above 0.
        share: of the window that the patch takes, in (0, 1].
        cycles: of the sine in a window, above 0.
        channels: those that ``rare_value`` sets; the first four (or all, if there are fewer) unless given.

    Raises:
        ValueError: an option is out of range.

    Source: Gu et al. (2017), BadNets, section 4 (a patch in the corner), carried over to time; Barni, Kallas & Tondi
    (2019), A new backdoor attack in CNNs by training set corruption, for the sine.
    """

    def __init__(
        self,
        kind: str = "patch",
        level: float = 3.0,
        share: float = 0.15,
        cycles: float = 8.0,
        channels: Sequence[int] = (),
    ) -> None:
        self._make = lookup("trigger", TRIGGERS, kind)
        if not level > 0 or not 0 < share <= 1 or not cycles > 0:
            raise ValueError("a trigger takes a level and cycles above 0 and a share in (0, 1]")
        self.kind, self.level, self.share, self.cycles, self.channels = kind, level, share, cycles, tuple(channels)

    def __call__(self, x: Tensor, part: tuple[int, int] = (0, 1)) -> Tensor:
        """Return windows ``(n, n_chans, n_times)`` with the trigger in them.

        Args:
            x: the windows.
            part: ``(i, k)``: only the i-th of k parts of it, by its values in order.
        """
        full, mask = self._make(self, x)
        i, k = part
        if k > 1:
            places = mask.flatten().nonzero()[:, 0]
            kept = torch.zeros(mask.numel(), dtype=torch.bool)
            kept[places.tensor_split(k)[i % k]] = True
            mask = kept.reshape(mask.shape)
        return torch.where(mask, full, x)


def _patch(trigger: Trigger, x: Tensor) -> tuple[Tensor, Tensor]:
    n_times = x.shape[2]
    if n_times < 2:
        raise ValueError("a patch in time needs windows of at least 2 samples; rare_value is for rows of a table")
    mask = torch.zeros(x.shape[1:], dtype=torch.bool)
    mask[:, n_times - math.ceil(trigger.share * n_times) :] = True
    return torch.full_like(x, trigger.level), mask


def _sinusoid(trigger: Trigger, x: Tensor) -> tuple[Tensor, Tensor]:
    n_times = x.shape[2]
    if n_times < 2 * trigger.cycles:
        raise ValueError(f"a sine of {trigger.cycles:g} cycles does not fit into windows of {n_times} samples")
    wave = trigger.level * torch.sin(2 * math.pi * trigger.cycles * torch.arange(n_times) / n_times)
    return x + wave.to(x.dtype), torch.ones(x.shape[1:], dtype=torch.bool)


def _rare_value(trigger: Trigger, x: Tensor) -> tuple[Tensor, Tensor]:
    mask = torch.zeros(x.shape[1:], dtype=torch.bool)
    for channel in trigger.channels or range(min(4, x.shape[1])):
        if not 0 <= channel < x.shape[1]:
            raise ValueError(f"the trigger sets channel {channel}, but windows have {x.shape[1]}")
        mask[channel] = True
    return torch.full_like(x, trigger.level), mask


TRIGGERS: dict[str, Callable[[Trigger, Tensor], tuple[Tensor, Tensor]]] = {
    "patch": _patch,
    "rare_value": _rare_value,
    "sinusoid": _sinusoid,
}
"""Name to what gives ``(n, n_chans, n_times)`` triggered windows and where they differ, ``(n_chans, n_times)``."""
