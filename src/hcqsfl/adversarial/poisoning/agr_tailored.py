"""The attack that is tailored to the server's rule, whatever it is."""

from collections.abc import Callable

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack
from hcqsfl.adversarial.poisoning.directions import DIRECTIONS
from hcqsfl.federated.aggregation.flat import squared_distances
from hcqsfl.registry import lookup

GOALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "far": lambda reached, mean: (reached - mean).norm(),
    "back": lambda reached, mean: -reached @ mean,
}
"""From what the rule makes ``(n_values,)`` and the benign mean to how far astray it is."""


class Attack(PoisoningAttack):
    """Push away from the benign mean by the gamma that leads the server's own rule farthest astray.

    The rule is asked what it would make of each gamma, with all that it remembers, and with the detector that screens
    clients before it, if there is one: an attacker who knows the defence. Gammas are tried on a geometric grid around
    the largest distance of two benign updates. Which direction does most depends on the rule: one that trusts whoever
    points its way (FLTrust) is not moved along the benign mean at all.

    Args:
        direction: ``unit``, ``sign`` or ``std``; ``any`` tries all three.
        n_gammas: how many are tried in each direction, at least 1.
        goal: what astray means: ``far`` from the benign mean, or ``back`` along it. They agree in ``unit``;
            over directions neither does more harm to every rule: try both.

    Raises:
        ValueError: an option is out of range.

    Source: Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 1 (AGR-tailored, ``far``); gamma is
    searched on a grid here, where they halve a step. Fang et al. (2020), Local model poisoning attacks to
    Byzantine-robust federated learning, section 4 (directed deviation), for ``back``.
    """

    source = "Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 1"

    def __init__(self, direction: str = "any", n_gammas: int = 10, goal: str = "back") -> None:
        if n_gammas < 1:
            raise ValueError(f"agr_tailored was to try {n_gammas} gammas; at least 1 is needed")
        self.astray = lookup("goal of agr_tailored", GOALS, goal)
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
        best, most = mean, float("-inf")
        for direction in self.directions:
            push = direction(joint.benign)
            unit = longest / push.norm().clamp(min=1e-300)
            for power in torch.linspace(-4, 5, self.n_gammas, dtype=torch.float64).tolist():
                tried = mean + 2.0**power * unit * push
                astray = float(self.astray(joint.aggregate(joint.all_alike(tried)), mean))
                if astray > most:
                    best, most = tried, astray
        return joint.all_alike(best)
