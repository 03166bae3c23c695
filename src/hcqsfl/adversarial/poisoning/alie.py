"""A little is enough (ALIE)."""

from math import floor

from scipy.stats import norm
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack


class Attack(PoisoningAttack):
    """Hand in the benign mean, moved by as many deviations as a majority of clients would still look like.

    ``mean + z std``, coordinate by coordinate, with ``z = Phi^-1((n - m - s) / (n - m))`` and
    ``s = floor(n / 2 + 1) - m``; with few attackers z is 0 and nothing happens.

    Args:
        z: how many deviations; without it, as above.

    Source: Baruch, Baruch & Goldberg (2019), A little is enough: circumventing defenses for distributed learning,
    algorithm 3; mean and population deviation are those of the benign updates here (omniscient).
    """

    source = "Baruch, Baruch & Goldberg (2019), A little is enough, algorithm 3"

    def __init__(self, z: float | None = None) -> None:
        self.z = z

    def joint(self, joint: Joint) -> Tensor:
        """Return the moved mean, for each attacker."""
        z = z_max(joint.n, joint.m) if self.z is None else self.z
        return joint.all_alike(joint.benign.mean(dim=0) + z * joint.benign.std(dim=0, correction=0))


def z_max(n: int, m: int) -> float:
    """Return the number of deviations by which ``m`` of ``n`` clients may move unnoticed."""
    s = floor(n / 2 + 1) - m
    return float(norm.ppf((n - m - s) / (n - m)))
