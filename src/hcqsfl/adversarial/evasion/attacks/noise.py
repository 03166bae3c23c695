"""Random noise of the same norm: what an attack must beat."""

import torch
from torch import Tensor

from hcqsfl.adversarial.evasion.attack import Effort, Evasion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region
from hcqsfl.randomness import torch_generator


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Move every window to a random place as far away as is allowed; the model is not asked."""
    rows = torch.arange(len(region.x))
    return region.place(region.draw(rows, torch_generator(seed, "evasion", "noise"), corners=True), rows)


ATTACK = Evasion("A13", "nothing", run, "the trivial baseline of every attack in a ball")
