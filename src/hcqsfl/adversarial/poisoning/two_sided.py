"""Both halves at once."""

from torch import Tensor

from hcqsfl.adversarial.poisoning import min_max
from hcqsfl.adversarial.poisoning.attacker import Member


class Attack(min_max.Attack):
    """Poison the client's half by Min-Max updates and the server's half by reversed gradients at the cut.

    In the manner of MISA, which poisons bottom and top model together so that they no longer fit; not its algorithm.

    Args:
        direction: as in ``min_max``.
        scale: of the reversed gradient, above 0.

    Raises:
        ValueError: an option is out of range.

    Source: Wan et al. (2023), MISA: unveiling the vulnerabilities in split federated learning (the idea); Shejwalkar &
    Houmansadr (2021), equation 8, for the updates.
    """

    source = "Wan et al. (2023), MISA: unveiling the vulnerabilities in split federated learning, in its manner"

    def __init__(self, direction: str = "std", scale: float = 1.0) -> None:
        super().__init__(direction)
        if not scale > 0:
            raise ValueError(f"two_sided was given a scale of {scale:g}; it must be above 0")
        self.scale = scale

    def gradient(self, gradient: Tensor, member: Member) -> Tensor:
        """Return the gradient turned around."""
        return -self.scale * gradient
