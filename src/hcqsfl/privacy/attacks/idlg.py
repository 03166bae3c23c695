"""Improved deep leakage: labels read off the gradient first, windows after."""

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.gradients import label_counts, pose
from hcqsfl.privacy.inversion.deep_leakage import leak
from hcqsfl.privacy.observation import Observation


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Read the labels off the last layer's gradient, then lower the squared error by L-BFGS over the windows alone.

    Which updates are inverted is told in ``Knowledge.extra``; see ``hcqsfl.privacy.gradients.pose``.

    Raises:
        NotApplicable: no update is seen, or not what it began from, or the last layer is not in it.
    """
    problem = pose(observation, knowledge, budget, seed)
    counts = label_counts(problem, knowledge)
    windows, labels, errors = leak(problem, knowledge.x.shape[1:], budget, seed, counts)
    facts = {"gradient_error": float(errors.mean()), "guessed_trunk": problem.guessed_trunk}
    return Guess(windows=windows.flatten(0, 1), labels=labels.flatten(0, 1), facts=facts)


ATTACK = Attack(
    "A8",
    "windows",
    ("T4", "T5"),
    run,
    "Zhao, Mopuri & Bilen (2020), iDLG: improved deep leakage from gradients, algorithm 1",
)
