"""Inner-product manipulation (IPM)."""

from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack


class Attack(PoisoningAttack):
    """Hand in ``-epsilon`` times the mean of the benign updates.

    A small epsilon (0.1) stays among the honest updates, where it passes robust rules; a large one (100) turns a mean
    around.

    Args:
        epsilon: above 0.

    Raises:
        ValueError: it is not.

    Source: Xie, Koyejo & Gupta (2020), Fall of empires: breaking Byzantine-tolerant SGD by inner product manipulation,
    section 4.
    """

    source = "Xie, Koyejo & Gupta (2020), Fall of empires, section 4"

    def __init__(self, epsilon: float = 0.1) -> None:
        if not epsilon > 0:
            raise ValueError(f"inner_product was given an epsilon of {epsilon:g}; it must be above 0")
        self.epsilon = epsilon

    def joint(self, joint: Joint) -> Tensor:
        """Return the mean turned around, for each attacker."""
        return joint.all_alike(-self.epsilon * joint.benign.mean(dim=0))
