"""A front for rows of a table."""

from torch import Tensor, nn


class TabularFront(nn.Module):
    """Two dense layers over all values of a window, then a bottleneck.

    Args:
        n_chans: columns.
        n_times: rows of a window; 1 for flows.
        n_smashed: width of the cut.
        width: units of each dense layer.
        dropout: share of units dropped in training.
    """

    def __init__(self, n_chans: int, n_times: int, n_smashed: int, width: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_chans * n_times, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, n_smashed),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return smashed data ``(b, n_smashed)`` of windows ``(b, n_chans, n_times)``."""
        smashed: Tensor = self.layers(x)
        return smashed
