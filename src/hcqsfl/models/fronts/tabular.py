"""A front for rows of a table."""

from torch import nn


class TabularFront(nn.Sequential):
    """Two dense layers over all values of a window, then a bottleneck; a network can be cut after any of them.

    Args:
        n_chans: columns.
        n_times: rows of a window; 1 for flows.
        n_smashed: width of the bottleneck.
        width: units of each dense layer.
        dropout: share of units dropped in training.
    """

    def __init__(self, n_chans: int, n_times: int, n_smashed: int, width: int = 128, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Sequential(nn.Flatten(), nn.Linear(n_chans * n_times, width), nn.LayerNorm(width), nn.GELU()),
            nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()),
            nn.Linear(width, n_smashed),
        )
