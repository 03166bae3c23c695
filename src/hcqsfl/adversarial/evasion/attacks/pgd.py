"""Projected gradient descent: many small steps, from several places."""

from torch import Tensor

from hcqsfl.adversarial.evasion.ascent import fixed_step
from hcqsfl.adversarial.evasion.attack import Effort, Evasion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Climb the cross entropy by the sign of its gradient."""
    return fixed_step(oracle, region, goal, effort, seed, "cross_entropy")


ATTACK = Evasion(
    "A13",
    "gradients",
    run,
    "Madry et al. (2018), Towards deep learning models resistant to adversarial attacks, section 2.1",
)
