"""Min-Max."""

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack
from hcqsfl.adversarial.poisoning.directions import DIRECTIONS
from hcqsfl.federated.aggregation.flat import squared_distances
from hcqsfl.registry import lookup


class Attack(PoisoningAttack):
    """Push away from the benign mean as far as no update lies farther from a benign one than two benign ones do.

    ``mean + gamma p`` with the largest gamma such that its largest distance to a benign update is at most the largest
    distance of two of them. Each benign update bounds gamma by a quadratic equation, which is solved, where the
    publication searches.

    Args:
        direction: p: ``unit``, ``sign`` or ``std``.

    Raises:
        ValueError: there is no such direction.

    Source: Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 8 (AGR-agnostic, Min-Max).
    """

    source = "Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 8"

    def __init__(self, direction: str = "std") -> None:
        self.direction = lookup("direction", DIRECTIONS, direction)

    def joint(self, joint: Joint) -> Tensor:
        """Return the moved mean, for each attacker."""
        push = self.direction(joint.benign)
        return joint.all_alike(joint.benign.mean(dim=0) + gamma(joint.benign, push) * push)


def gamma(benign: Tensor, push: Tensor) -> Tensor:
    """Return the largest gamma that Min-Max allows, a scalar; 0 where ``push (n_values,)`` is."""
    length = push.square().sum()
    if not length > 0:
        return torch.zeros((), dtype=benign.dtype)
    away = benign.mean(dim=0) - benign  # |away + gamma push|^2 <= the largest squared distance, row by row
    slack = squared_distances(benign).max() - away.square().sum(dim=1)
    half = away @ push / length
    return (-half + (half.square() + slack.clamp(min=0) / length).sqrt()).min()
