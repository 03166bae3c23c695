"""The directed-deviation attack on the trimmed mean and the median."""

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack


class Attack(PoisoningAttack):
    """Hand in values just beyond the benign ones, on the side away from where the global model would move.

    A coordinate that would grow is drawn from ``[b w_min, w_min]`` (``[w_min / b, w_min]`` where the smallest benign
    value is positive), one that would shrink from ``[w_max, b w_max]`` (``[w_max, w_max / b]`` where the largest is
    negative). w are local models, not updates.

    Args:
        b: above 1.

    Raises:
        ValueError: it is not.

    Source: Fang et al. (2020), Local model poisoning attacks to Byzantine-robust federated learning, section 3.3 (full
    knowledge; b = 2 there).
    """

    source = "Fang et al. (2020), Local model poisoning attacks to Byzantine-robust federated learning, section 3.3"

    def __init__(self, b: float = 2.0) -> None:
        if not b > 1:
            raise ValueError(f"fang_trimmed_mean was given b = {b:g}; it must be above 1")
        self.b = b

    def joint(self, joint: Joint) -> Tensor:
        """Return values beyond the benign ones, drawn anew for each attacker."""
        models = joint.base + joint.benign
        low, high = models.min(dim=0).values, models.max(dim=0).values
        below = torch.where(low > 0, low / self.b, low * self.b)
        above = torch.where(high > 0, high * self.b, high / self.b)
        drawn = torch.rand(joint.own.shape, generator=joint.generator, dtype=joint.own.dtype)
        grows = torch.cat([joint.benign, joint.own]).mean(dim=0) > 0
        chosen = torch.where(grows, below + drawn * (low - below), high + drawn * (above - high))
        return chosen - joint.base
