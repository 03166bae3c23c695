"""Several fronts side by side, one for each group of sensors (vertical split)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class PartiesFront(nn.Module):
    """One front a party, each of which sees its own channels alone; their smashed data side by side.

    Args:
        fronts: party to its front, ``(b, n_own_chans, n_times)`` to ``(b, n_own_smashed)``.
        channels: party to the indices of its channels in the window.

    Raises:
        ValueError: fronts and channels name different parties, or a channel is seen by two.

    Source: Vepakomma et al. (2018), Split learning for health, section 3 (vertically partitioned data); Ceballos et al.
    (2020), SplitNN-driven vertical partitioning (concatenation).
    """

    def __init__(self, fronts: Mapping[str, nn.Module], channels: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        if fronts.keys() != channels.keys():
            raise ValueError(f"there are fronts for {', '.join(fronts)} but channels for {', '.join(channels)}")
        seen = [c for group in channels.values() for c in group]
        if len(set(seen)) < len(seen):
            raise ValueError("a channel belongs to two parties")
        self.fronts = nn.ModuleDict(fronts)
        self.channels = {party: list(group) for party, group in channels.items()}

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(b, sum of the parties' widths)`` of windows ``(b, n_chans, n_times)``."""
        return torch.cat([front(x[:, self.channels[party]]) for party, front in self.fronts.items()], dim=1)
