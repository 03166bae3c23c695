"""The attack that is tailored to the server's rule, whatever it is."""

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack
from hcqsfl.adversarial.poisoning.directions import DIRECTIONS
from hcqsfl.federated.aggregation.flat import squared_distances
from hcqsfl.registry import lookup


class Attack(PoisoningAttack):
    """Push away from the benign mean by the gamma for which the server's own rule ends farthest from that mean.

    The rule is asked what it would make of each gamma, with all that it remembers, and with the detector that screens
    clients before it, if there is one: an attacker who knows the defence. Gammas are tried on a geometric grid around
    the largest distance of two benign updates.

    Args:
        direction: ``unit``, ``sign`` or ``std``.
        n_gammas: how many are tried, at least 1.

    Raises:
        ValueError: an option is out of range.

    Source: Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 1 (AGR-tailored); gamma is searched on
    a grid here, where they halve a step.
    """

    source = "Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 1"

    def __init__(self, direction: str = "unit", n_gammas: int = 10) -> None:
        if n_gammas < 1:
            raise ValueError(f"agr_tailored was to try {n_gammas} gammas; at least 1 is needed")
        self.direction, self.n_gammas = lookup("direction", DIRECTIONS, direction), n_gammas

    @property
    def knowledge(self) -> str:
        """What it takes, in words."""
        return "benign updates and the server's rule (omniscient)"

    def joint(self, joint: Joint) -> Tensor:
        """Return the update that does most, for each attacker."""
        mean = joint.benign.mean(dim=0)
        push = self.direction(joint.benign)
        unit = squared_distances(joint.benign).max().sqrt() / push.norm().clamp(min=1e-300)
        best, farthest = mean, -1.0
        for power in torch.linspace(-4, 5, self.n_gammas, dtype=torch.float64).tolist():
            tried = mean + 2.0**power * unit * push
            away = float((joint.aggregate(joint.all_alike(tried)) - mean).norm())
            if away > farthest:
                best, farthest = tried, away
        return joint.all_alike(best)
