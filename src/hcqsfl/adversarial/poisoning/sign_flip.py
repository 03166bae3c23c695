"""Sign flipping."""

from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import PoisoningAttack, Turn


class Attack(PoisoningAttack):
    """Hand in ``-scale`` times the own update.

    Args:
        scale: above 0.

    Raises:
        ValueError: it is not.

    Source: Li et al. (2019), RSA: Byzantine-robust stochastic aggregation methods, section 5 (sign-flipping attack).
    """

    source = "Li et al. (2019), RSA: Byzantine-robust stochastic aggregation methods, section 5"

    def __init__(self, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"sign_flip was given a scale of {scale:g}; it must be above 0")
        self.scale = scale

    def update(self, turn: Turn) -> Tensor:
        """Return the update turned around."""
        return -self.scale * turn.own
