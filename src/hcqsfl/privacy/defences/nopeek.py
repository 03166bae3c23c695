"""Train the front such that its smashed data correlate less with the windows (NoPeek)."""

import torch
from torch import Tensor

from hcqsfl.models.defence import Defence


class NoPeek(Defence):
    """Adds the distance correlation between windows and smashed data to the loss: ``(1 - alpha) CE + alpha dCor``.

    It gives no guarantee. Distance correlation is no measure of privacy either: a decoder that is trained on the
    defended front may read what the correlation does not show.

    Args:
        alpha: weight of the distance correlation, in [0, 1); 0 leaves the loss as it is.
        seed, client: not used; nothing is drawn.

    Raises:
        ValueError: ``alpha`` is out of range.

    Source: Vepakomma et al. (2020), NoPeek: information leakage reduction to share activations in distributed deep
    learning, equation 1.
    """

    acts_in_evaluation = False
    couples_windows = True

    def __init__(self, alpha: float = 0.5, *, seed: int = 0, client: str = "") -> None:
        super().__init__()
        if not 0 <= alpha < 1:
            raise ValueError(f"nopeek has alpha {alpha}; it must be at least 0 and below 1")
        self.alpha = alpha

    def penalty(self, x: Tensor, smashed: Tensor) -> Tensor | None:
        """Return ``alpha * dCor``, or ``None`` where that is nothing."""
        return self.alpha * distance_correlation(x, smashed) if self.alpha and len(x) > 1 else None

    def weight(self) -> float:
        """Return ``1 - alpha``."""
        return 1.0 - self.alpha


def distance_correlation(x: Tensor, z: Tensor) -> Tensor:
    """Return the distance correlation of the rows of ``x`` and ``z``, a scalar in [0, 1], differentiable.

    It is the biased sample version, which reads far above 0 for independent data in few rows: right for a penalty,
    wrong for a measurement.

    Args:
        x, z: ``(b, ...)``, at least two rows.

    Source: Szekely, Rizzo & Bakirov (2007), Measuring and testing dependence by correlation of distances, definitions
    4 and 5.
    """
    a, b = _centred(x), _centred(z)
    tiny = torch.finfo(a.dtype).tiny ** 0.5
    variances = ((a * a).mean() * (b * b).mean()).clamp_min(tiny)
    return ((a * b).mean().clamp_min(tiny) / variances.sqrt()).clamp_min(tiny).sqrt()


def _centred(rows: Tensor) -> Tensor:
    """Return the doubly centred matrix of distances ``(b, b)``."""
    flat = rows.flatten(1)
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return distances - distances.mean(0, keepdim=True) - distances.mean(1, keepdim=True) + distances.mean()
