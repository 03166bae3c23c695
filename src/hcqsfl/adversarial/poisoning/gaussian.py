"""Gaussian noise."""

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import PoisoningAttack, Turn


class Attack(PoisoningAttack):
    """Hand in noise instead of an update.

    Args:
        scale: its deviation, in root mean squares of the own update, above 0.

    Raises:
        ValueError: it is not.

    Source: Blanchard et al. (2017), Machine learning with adversaries, section 5 (Gaussian Byzantine workers); measured
    in units of the own update here, where they set a deviation of 200.
    """

    source = "Blanchard et al. (2017), Machine learning with adversaries, section 5"

    def __init__(self, scale: float = 10.0) -> None:
        if not scale > 0:
            raise ValueError(f"gaussian was given a scale of {scale:g}; it must be above 0")
        self.scale = scale

    def update(self, turn: Turn) -> Tensor:
        """Return noise."""
        noise = torch.randn(turn.own.shape, generator=turn.generator, dtype=turn.own.dtype)
        return self.scale * turn.own.square().mean().sqrt() * noise
