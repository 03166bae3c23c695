"""Reversed gradients at the cut."""

from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Member, PoisoningAttack


class Attack(PoisoningAttack):
    """Send the server ``-scale`` times the gradient of the features: its half climbs the attacker's loss.

    Only where labels stay with the client does the client make that gradient. What comes back is reversed as well, so
    that the attacker's own half climbs with it.

    Args:
        scale: above 0; an optimiser that normalises its steps, such as Adam, undoes it.

    Raises:
        ValueError: it is not.

    Source: Wan et al. (2023), MISA: unveiling the vulnerabilities in split federated learning, for poisoning the
    server's half through the cut; gradient ascent as in Li et al. (2019), RSA, section 5 (sign flipping).
    """

    source = "Wan et al. (2023), MISA: unveiling the vulnerabilities in split federated learning"

    def __init__(self, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"gradient_reversal was given a scale of {scale:g}; it must be above 0")
        self.scale = scale

    def gradient(self, gradient: Tensor, member: Member) -> Tensor:
        """Return the gradient turned around."""
        return -self.scale * gradient
