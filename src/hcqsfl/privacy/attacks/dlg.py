"""Deep leakage from gradients: windows and labels together, so that they give the gradient that was seen."""

import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.gradients import pose, squared_error
from hcqsfl.privacy.observation import Observation
from hcqsfl.randomness import torch_generator


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Lower the squared error of the gradient by L-BFGS over windows and soft labels, from noise; the best try counts.

    Which update is inverted is told in ``Knowledge.extra``; see ``hcqsfl.privacy.gradients.pose``.

    Raises:
        NotApplicable: no update is seen, or not what it began from.
    """
    problem = pose(observation, knowledge, budget, seed)
    generator = torch_generator(seed, "dlg")
    each = max(1, (budget.evaluations - budget.spent) // budget.trials)
    best, found = float("inf"), None
    for _ in range(budget.trials):
        x = torch.randn((problem.n, *knowledge.x.shape[1:]), generator=generator).requires_grad_()
        logits = torch.randn((problem.n, problem.n_outputs), generator=generator).requires_grad_()
        optimizer = torch.optim.LBFGS([x, logits], lr=1.0, max_iter=each, max_eval=each, line_search_fn="strong_wolfe")

        def closure(x=x, logits=logits, optimizer=optimizer) -> torch.Tensor:  # type: ignore[no-untyped-def]
            budget.spend()
            optimizer.zero_grad()
            loss = squared_error(problem.moved(x, logits.softmax(dim=1)), problem.movement)
            loss.backward()
            return loss

        optimizer.step(closure)
        error = float(squared_error(problem.moved(x, logits.softmax(dim=1)), problem.movement).detach())
        if error < best or found is None:
            best, found = error, (x.detach(), logits.detach().softmax(dim=1))
    assert found is not None
    facts = {"gradient_error": best, "guessed_trunk": problem.guessed_trunk}
    return Guess(windows=found[0], labels=found[1], facts=facts)


ATTACK = Attack(
    "A8",
    "windows",
    ("T4", "T5"),
    run,
    "Zhu, Liu & Han (2019), Deep leakage from gradients, algorithm 1",
)
