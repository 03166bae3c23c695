"""The fast gradient sign method: one step to the edge of the ball."""

from dataclasses import replace

from torch import Tensor

from hcqsfl.adversarial.evasion.ascent import fixed_step
from hcqsfl.adversarial.evasion.attack import Effort, Evasion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Take one step of the whole radius along the sign of the gradient of the cross entropy."""
    return fixed_step(oracle, region, goal, replace(effort, steps=1, restarts=1), seed, "cross_entropy", rate=1.0)


ATTACK = Evasion(
    "A13",
    "gradients",
    run,
    "Goodfellow, Shlens & Szegedy (2015), Explaining and harnessing adversarial examples, section 4",
)
