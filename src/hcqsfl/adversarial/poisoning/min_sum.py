"""Min-Sum."""

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack
from hcqsfl.adversarial.poisoning.directions import DIRECTIONS
from hcqsfl.federated.aggregation.flat import squared_distances
from hcqsfl.registry import lookup


class Attack(PoisoningAttack):
    """Push away from the benign mean as far as the sum of squared distances stays below that of some benign update.

    Since the mean is what is pushed, the sum grows by ``n gamma^2 |p|^2``, and gamma follows at once.

    Args:
        direction: p: ``unit``, ``sign`` or ``std``.

    Raises:
        ValueError: there is no such direction.

    Source: Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 9 (AGR-agnostic, Min-Sum).
    """

    source = "Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, equation 9"

    def __init__(self, direction: str = "std") -> None:
        self.direction = lookup("direction", DIRECTIONS, direction)

    def joint(self, joint: Joint) -> Tensor:
        """Return the moved mean, for each attacker."""
        push = self.direction(joint.benign)
        return joint.all_alike(joint.benign.mean(dim=0) + gamma(joint.benign, push) * push)


def gamma(benign: Tensor, push: Tensor) -> Tensor:
    """Return the largest gamma that Min-Sum allows, a scalar; 0 where ``push (n_values,)`` is."""
    length = push.square().sum()
    if not length > 0:
        return torch.zeros((), dtype=benign.dtype)
    most = squared_distances(benign).sum(dim=1).max()
    least = (benign - benign.mean(dim=0)).square().sum()
    return ((most - least).clamp(min=0) / (len(benign) * length)).sqrt()
