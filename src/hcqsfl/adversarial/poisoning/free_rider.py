"""Free riders."""

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import PoisoningAttack, Turn


class Attack(PoisoningAttack):
    """Do not train: hand back what was handed out, with noise that hides it.

    The noise is ``sigma * number^(-decay)`` times a standard normal draw, so that it shrinks as honest updates do.

    Args:
        sigma: deviation of the noise in the first round; 0 hides nothing.
        decay: how fast it shrinks.

    Raises:
        ValueError: an option is negative.

    Source: Fraboni, Vidal & Lorenzi (2021), Free-rider attacks on model aggregation in federated learning, section 3
    (plain and disguised free-riding).
    """

    source = "Fraboni, Vidal & Lorenzi (2021), Free-rider attacks on model aggregation in federated learning, section 3"
    trains = False

    def __init__(self, sigma: float = 0.0, decay: float = 1.0) -> None:
        if sigma < 0 or decay < 0:
            raise ValueError("free_rider takes a sigma and a decay of at least 0")
        self.sigma, self.decay = sigma, decay

    def update(self, turn: Turn) -> Tensor:
        """Return noise, or nothing."""
        noise = torch.randn(turn.base.shape, generator=turn.generator, dtype=turn.base.dtype)
        return self.sigma * turn.number**-self.decay * noise
