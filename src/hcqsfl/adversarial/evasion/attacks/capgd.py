"""CAPGD: AutoPGD among the flows that an attacker could have sent."""

from torch import Tensor

from hcqsfl.adversarial.evasion.ascent import adaptive_step
from hcqsfl.adversarial.evasion.attack import Effort, Evasion
from hcqsfl.adversarial.evasion.flows import FlowRegion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Climb the margin of the wanted class; every input that the model is shown is a flow that can be sent.

    Raises:
        ValueError: the region is one of signals.
    """
    if not isinstance(region, FlowRegion):
        raise ValueError("capgd moves among flows with rules; attack signals with autopgd_ce")
    return adaptive_step(oracle, region, goal, effort, seed, "margin")


ATTACK = Evasion(
    "A14",
    "gradients",
    run,
    "Simonetto et al. (2024), Constrained adaptive attack, algorithm 1: AutoPGD with repair at each step",
)
