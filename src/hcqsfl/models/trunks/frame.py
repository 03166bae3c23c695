"""The frame that every trunk shares."""

import math

from torch import Tensor, nn


class Trunk(nn.Module):
    """Bound the smashed data to angles, pass them through a middle layer, and widen what comes out.

    Angles are ``pi * tanh``: an unbounded angle would alias by ``2 pi``, so that smashed data far apart would become
    one state. Where that is wanted they are ``wrapped`` instead, to the remainder within one turn.

    Args:
        n_smashed: width of the cut.
        n_angles: inputs of the middle layer; where they differ from ``n_smashed``, a linear layer stands between.
        middle: maps ``(b, n_angles)`` to ``(b, n_middle)``.
        n_middle: outputs of the middle layer.
        n_features: width of what goes back to the client.
        angles: ``bounded`` or ``wrapped``.
    """

    def __init__(
        self,
        n_smashed: int,
        n_angles: int,
        middle: nn.Module,
        n_middle: int,
        n_features: int,
        angles: str = "bounded",
    ) -> None:
        super().__init__()
        self.wraps = angles == "wrapped"
        self.project = nn.Identity() if n_smashed == n_angles else nn.Linear(n_smashed, n_angles)
        self.middle = middle
        self.widen = nn.Linear(n_middle, n_features)

    def forward(self, smashed: Tensor) -> Tensor:
        """Return features ``(b, n_features)`` of smashed data ``(b, n_smashed)``."""
        features: Tensor = self.widen(self.middle(self.bound(self.project(smashed))))
        return features

    def bound(self, given: Tensor) -> Tensor:
        """Return angles within a turn, of what the projection gives."""
        return (given + math.pi).remainder(2 * math.pi) - math.pi if self.wraps else math.pi * given.tanh()
