"""Deep leakage from gradients: windows and labels together, so that they give the gradient that was seen."""

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.gradients import pose
from hcqsfl.privacy.inversion.deep_leakage import leak
from hcqsfl.privacy.observation import Observation


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Lower the squared error of the gradient by L-BFGS over windows and soft labels, from noise; the best try counts.

    Which updates are inverted is told in ``Knowledge.extra``; see ``hcqsfl.privacy.gradients.pose``.

    Raises:
        NotApplicable: no update is seen, or not what it began from.
    """
    problem = pose(observation, knowledge, budget, seed)
    windows, labels, errors = leak(problem, knowledge.x.shape[1:], budget, seed)
    facts = {"gradient_error": float(errors.mean()), "guessed_trunk": problem.guessed_trunk}
    return Guess(windows=windows.flatten(0, 1), labels=labels.flatten(0, 1), facts=facts)


ATTACK = Attack(
    "A8",
    "windows",
    ("T4", "T5"),
    run,
    "Zhu, Liu & Han (2019), Deep leakage from gradients, algorithm 1",
)
