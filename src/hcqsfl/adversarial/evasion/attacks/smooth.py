"""Smooth adversarial perturbation for heartbeats: no square waves that a physician would see."""

from torch import Tensor

from hcqsfl.adversarial.evasion.ascent import fixed_step
from hcqsfl.adversarial.evasion.attack import Effort, Evasion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region, SmoothBall


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Climb the cross entropy through the smoothing.

    Raises:
        ValueError: the windows are rows of a table, which have no time to smooth over.
    """
    if region.x.shape[2] < 5:
        raise ValueError(
            f"a smooth perturbation needs at least 5 samples in a window; these have {region.x.shape[2]}: attack flows "
            "with capgd"
        )
    return fixed_step(oracle, SmoothBall(region.x, region.epsilon), goal, effort, seed, "cross_entropy")


ATTACK = Evasion(
    "A13",
    "gradients",
    run,
    "Han et al. (2020), Deep learning models for electrocardiograms are susceptible to adversarial attack, Methods",
)
