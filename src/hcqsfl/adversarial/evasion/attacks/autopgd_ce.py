"""AutoPGD on the cross entropy."""

from torch import Tensor

from hcqsfl.adversarial.evasion.ascent import adaptive_step
from hcqsfl.adversarial.evasion.attack import Effort, Evasion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Climb the cross entropy with a step that adapts."""
    return adaptive_step(oracle, region, goal, effort, seed, "cross_entropy")


ATTACK = Evasion(
    "A13",
    "gradients",
    run,
    "Croce & Hein (2020), Reliable evaluation of adversarial robustness, algorithm 1",
)
