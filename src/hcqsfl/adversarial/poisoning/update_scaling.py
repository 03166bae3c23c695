"""Scaled updates."""

from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import PoisoningAttack, Turn


class Attack(PoisoningAttack):
    """Hand in the own, honest update multiplied: above 1 it drowns the others, below 1 it holds them back.

    Args:
        factor: of the update, at least 0.

    Raises:
        ValueError: it is negative.

    Source: Bagdasaryan et al. (2020), How to backdoor federated learning, equation 3, with a factor of one's choice.
    """

    source = "Bagdasaryan et al. (2020), How to backdoor federated learning, equation 3"

    def __init__(self, factor: float = 10.0) -> None:
        if factor < 0:
            raise ValueError(f"update_scaling was given a factor of {factor:g}; sign_flip is what turns updates around")
        self.factor = factor

    def update(self, turn: Turn) -> Tensor:
        """Return the update, scaled."""
        return self.factor * turn.own
