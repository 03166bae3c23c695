"""The directed-deviation attack on Krum."""

import math

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack
from hcqsfl.federated.aggregation.flat import squared_distances
from hcqsfl.federated.aggregation.krum import ranking


class Attack(PoisoningAttack):
    """Make Krum choose a step against the direction in which the global model would move.

    All attackers hand in ``-lambda s``, where s is the sign of Krum's choice without the attack; lambda starts at its
    upper bound and is halved until Krum, told the true number of attackers, chooses it, or it is below the threshold.

    Args:
        threshold: smallest lambda tried, above 0.

    Raises:
        ValueError: it is not.

    Source: Fang et al. (2020), Local model poisoning attacks to Byzantine-robust federated learning, section 3.2 and
    theorem 1; full knowledge, and the other attackers at distance 0 from the first.
    """

    source = "Fang et al. (2020), Local model poisoning attacks to Byzantine-robust federated learning, section 3.2"

    def __init__(self, threshold: float = 1e-5) -> None:
        if not threshold > 0:
            raise ValueError(f"fang_krum was given a threshold of {threshold:g}; it must be above 0")
        self.threshold = threshold

    def joint(self, joint: Joint) -> Tensor:
        """Return the deviating update, for each attacker."""
        before = torch.cat([joint.benign, joint.own])
        sign = before[ranking(before, joint.m)[0]].sign()
        size = bound(joint.benign, joint.n, joint.m)
        while size > self.threshold:
            rows = torch.cat([joint.benign, joint.all_alike(-size * sign)])
            if int(ranking(rows, joint.m)[0]) >= len(joint.benign):
                break
            size /= 2
        return joint.all_alike(-size * sign)


def bound(benign: Tensor, n: int, m: int) -> float:
    """Return theorem 1's upper bound of lambda."""
    root = math.sqrt(benign.shape[1])
    distances = squared_distances(benign).sqrt().sort(dim=1).values
    nearest = distances[:, 1 : max(n - m - 2, 1) + 1].sum(dim=1).min()
    return float(nearest / (max(n - 2 * m - 1, 1) * root) + benign.norm(dim=1).max() / root)
