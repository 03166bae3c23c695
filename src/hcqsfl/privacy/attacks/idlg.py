"""Improved deep leakage: labels read off the gradient first, windows after."""

import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.gradients import label_counts, pose, squared_error
from hcqsfl.privacy.observation import Observation
from hcqsfl.randomness import torch_generator


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Read the labels off the last layer's gradient, then lower the squared error by L-BFGS over the windows alone.

    Which update is inverted is told in ``Knowledge.extra``; see ``hcqsfl.privacy.gradients.pose``.

    Raises:
        NotApplicable: no update is seen, or not what it began from, or the last layer is not in it.
    """
    problem = pose(observation, knowledge, budget, seed)
    labels = label_counts(problem, knowledge)
    soft = torch.nn.functional.one_hot(labels, problem.n_outputs).float()
    generator = torch_generator(seed, "idlg")
    each = max(1, (budget.evaluations - budget.spent) // budget.trials)
    best, found = float("inf"), None
    for _ in range(budget.trials):
        x = torch.randn((problem.n, *knowledge.x.shape[1:]), generator=generator).requires_grad_()
        optimizer = torch.optim.LBFGS([x], lr=1.0, max_iter=each, max_eval=each, line_search_fn="strong_wolfe")

        def closure(x=x, optimizer=optimizer) -> torch.Tensor:  # type: ignore[no-untyped-def]
            budget.spend()
            optimizer.zero_grad()
            loss = squared_error(problem.moved(x, soft), problem.movement)
            loss.backward()
            return loss

        optimizer.step(closure)
        error = float(squared_error(problem.moved(x, soft), problem.movement).detach())
        if error < best or found is None:
            best, found = error, x.detach()
    facts = {"gradient_error": best, "guessed_trunk": problem.guessed_trunk}
    return Guess(windows=found, labels=soft, facts=facts)


ATTACK = Attack(
    "A8",
    "windows",
    ("T4", "T5"),
    run,
    "Zhao, Mopuri & Bilen (2020), iDLG: improved deep leakage from gradients, algorithm 1",
)
