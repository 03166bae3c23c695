"""The constrained adaptive attack: CAPGD, and the genetic search where that fails."""

from torch import Tensor

from hcqsfl.adversarial.evasion.ascent import adaptive_step
from hcqsfl.adversarial.evasion.attack import Best, Effort, Evasion
from hcqsfl.adversarial.evasion.attacks import genetic
from hcqsfl.adversarial.evasion.flows import FlowRegion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Climb first; search for the flows that are still caught.

    A scale of steps has no slope on them and categories have none at all, so that gradients alone find too little.

    Raises:
        ValueError: the region is one of signals.
    """
    if not isinstance(region, FlowRegion):
        raise ValueError("caa moves among flows with rules; attack signals with autopgd_ce")
    best = Best(region)
    adaptive_step(oracle, region, goal, effort, seed, "margin", best)
    genetic.search(oracle, region, goal, effort, seed, best)
    return best.x


ATTACK = Evasion(
    "A14",
    "gradients",
    run,
    "Simonetto et al. (2024), Constrained adaptive attack, section 4.3 (CAA: CAPGD, then MOEVA)",
)
