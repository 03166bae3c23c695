"""Whole turns added to angles before they are encoded: what hides nothing."""

import math

import torch
from torch import Tensor

from hcqsfl.models.defence import Defence
from hcqsfl.randomness import torch_generator


class TwoPi(Defence):
    """Adds random multiples of ``2 pi`` to each number that is sent.

    A rotation by ``angle + 2 pi k`` is the rotation by ``angle``, so that a server which encodes what it gets as
    rotations computes the same. What it gets looks like noise, but whoever takes the remainder by ``2 pi``, as the
    encoding itself does, has it undone (``without_turns``): this stands here to be measured, not to be used. It needs
    a trunk that wraps angles instead of bounding them (``trunk.angles = "wrapped"``).

    Args:
        turns: largest number of whole turns, either way; 0 adds none.
        seed, client: fix the turns.

    Raises:
        ValueError: ``turns`` is negative.

    Source: Cowlessur et al. (2025), A hybrid quantum neural network for split learning (HQSL), for noise centred on
    multiples of 2 pi as a defence.
    """

    def __init__(self, turns: int = 2, *, seed: int, client: str) -> None:
        super().__init__()
        if turns < 0:
            raise ValueError(f"two_pi has {turns} turns; there must be 0 or more")
        self.turns, self.seed, self.client = turns, seed, client
        self.begin_round(0)

    def begin_round(self, number: int) -> None:
        """Seed the turns of a round."""
        self.generator = torch_generator(self.seed, "defence noise", self.client, number)

    def forward(self, smashed: Tensor, x: Tensor | None = None) -> Tensor:
        """Return ``smashed + 2 pi k``."""
        if not self.turns:
            return smashed
        drawn = torch.randint(-self.turns, self.turns + 1, smashed.shape, generator=self.generator)
        return smashed + 2 * math.pi * drawn.to(smashed.dtype)


def without_turns(sent: Tensor) -> Tensor:
    """Return angles in ``[-pi, pi)``: all that an encoding into rotations sees, and all that the attacker needs."""
    return (sent + math.pi).remainder(2 * math.pi) - math.pi
