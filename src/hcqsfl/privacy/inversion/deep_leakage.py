"""What both deep leakages do: lower the squared error of the gradient, from noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hcqsfl.privacy.attack import Budget
from hcqsfl.privacy.gradients import Problem, best_tries, noise, squared_error, tries
from hcqsfl.privacy.inversion.lockstep import minimise


def leak(
    problem: Problem, window: Sequence[int], budget: Budget, seed: int, labels: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return windows ``(u, n, n_chans, n_times)``, shares of classes ``(u, n, n_outputs)`` and errors ``(u,)``.

    Each try is an L-BFGS of its own; the best one counts.

    Args:
        problem: the updates.
        window: shape of one window.
        budget: its ``trials`` say how often each update is tried.
        seed: of the noise.
        labels: ``(u, n)``, where they are known; else they are searched as well.
    """
    everything, each = tries(problem, budget)
    shapes = [(problem.n, *window)] + ([(problem.n, problem.n_outputs)] if labels is None else [])
    starts = [noise(problem, budget.trials, s, seed, f"start {i}").flatten(1) for i, s in enumerate(shapes)]
    known = None if labels is None else torch.nn.functional.one_hot(labels, problem.n_outputs).float()

    def split(rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        x, *logits = points.split([part.shape[1] for part in starts], dim=1)
        soft = logits[0].unflatten(1, shapes[1]).softmax(dim=2) if known is None else known[rows % len(problem)]
        return x.unflatten(1, shapes[0]), soft

    def losses(rows: Tensor, points: Tensor) -> Tensor:
        some = everything.take(rows)
        return squared_error(some.moved(*split(rows, points)), some.movement)

    found = minimise(losses, torch.cat(starts, dim=1), each, budget.spend)
    budget.spend(len(everything))
    errors = losses(torch.arange(len(everything)), found).detach()
    best = best_tries(errors, problem)
    return *split(best, found[best]), errors[best]
