"""The client's half of the network below the cut: from windows to smashed data."""

from collections.abc import Callable
from typing import Any

from torch import nn

from hcqsfl.models.fronts.conv1d import Conv1dFront
from hcqsfl.models.fronts.tabular import TabularFront
from hcqsfl.registry import lookup

FRONTS: dict[str, Callable[..., nn.Module]] = {
    "conv1d": Conv1dFront,
    "tabular": TabularFront,
}


def make(name: str, n_chans: int, n_times: int, n_smashed: int, **options: Any) -> nn.Module:
    """Return the front called ``name``: ``(b, n_chans, n_times)`` to ``(b, n_smashed)``.

    Raises:
        ValueError: there is no such front, or it cannot take windows of this size.
    """
    return lookup("front", FRONTS, name)(n_chans, n_times, n_smashed, **options)
