"""AutoPGD on the difference of logits ratio, which no rescaling of the logits can hide from."""

from torch import Tensor

from hcqsfl.adversarial.evasion.ascent import adaptive_step
from hcqsfl.adversarial.evasion.attack import Effort, Evasion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Climb the difference of logits ratio with a step that adapts.

    Raises:
        ValueError: the model has fewer than three classes.
    """
    return adaptive_step(oracle, region, goal, effort, seed, "dlr")


ATTACK = Evasion(
    "A13",
    "gradients",
    run,
    "Croce & Hein (2020), Reliable evaluation of adversarial robustness, algorithm 1 and equation 6",
)
