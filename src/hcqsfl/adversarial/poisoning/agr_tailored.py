"""The attack that is tailored to the server's rule, whatever it is."""

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack
from hcqsfl.adversarial.poisoning.directions import DIRECTIONS
from hcqsfl.federated.aggregation.flat import squared_distances
from hcqsfl.registry import lookup


class Attack(PoisoningAttack):
    """Push away from the benign mean by the gamma that makes the server's own rule go farthest back along that mean.

    The rule is asked what it would make of each gamma, with all that it remembers, and with the detector that screens
    clients before it, if there is one: an attacker who knows the defence. Gammas are tried on a geometric grid around
    the largest distance of two benign updates. Which direction does most depends on the rule: one that trusts whoever
    points its way (FLTrust) is not moved along the benign mean at all.

    Args:
        direction: ``unit``, ``sign`` or ``std``; ``any`` tries all three.
        n_gammas: how many are tried in each direction, at least 1.

    Raises:
        ValueError: an option is out of range.

    Source: Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 1 (AGR-tailored); gamma is searched on
    a grid here, where they halve a step. How far the aggregate goes back is Fang et al. (2020), Local model poisoning
    attacks to Byzantine-robust federated learning, section 4 (directed deviation); along the benign mean it ranks
    gammas as distance does, and it tells directions apart, of which distance prefers the one that is merely long.
    """

    source = "Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 1"

    def __init__(self, direction: str = "any", n_gammas: int = 10) -> None:
        if n_gammas < 1:
            raise ValueError(f"agr_tailored was to try {n_gammas} gammas; at least 1 is needed")
        chosen = lookup("direction", {**dict.fromkeys(DIRECTIONS, (direction,)), "any": tuple(DIRECTIONS)}, direction)
        self.directions, self.n_gammas = [DIRECTIONS[name] for name in chosen], n_gammas

    @property
    def knowledge(self) -> str:
        """What it takes, in words."""
        return "benign updates and the server's rule (omniscient)"

    def joint(self, joint: Joint) -> Tensor:
        """Return the update that does most, for each attacker."""
        mean = joint.benign.mean(dim=0)
        longest = squared_distances(joint.benign).max().sqrt()
        best, least = mean, float("inf")
        for direction in self.directions:
            push = direction(joint.benign)
            unit = longest / push.norm().clamp(min=1e-300)
            for power in torch.linspace(-4, 5, self.n_gammas, dtype=torch.float64).tolist():
                tried = mean + 2.0**power * unit * push
                progress = float(joint.aggregate(joint.all_alike(tried)) @ mean)
                if progress < least:
                    best, least = tried, progress
        return joint.all_alike(best)
