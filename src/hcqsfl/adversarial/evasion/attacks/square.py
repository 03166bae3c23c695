"""The Square attack in one dimension: random search with stretches of the signal in the place of squares."""

import torch
from torch import Tensor

from hcqsfl.adversarial.evasion.attack import Best, Effort, Evasion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region
from hcqsfl.randomness import torch_generator

FIRST_SHARE = 0.8
HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations of 10 000 at which the share of the window that is changed halves."""


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Set one random stretch of every channel to plus or minus the radius, and keep it where the margin rises.

    Raises:
        ValueError: the windows are rows of a table, which have no stretches.
    """
    n_chans, n_times = region.x.shape[1:]
    if n_times < 2:
        raise ValueError("the Square attack changes stretches of a signal; rows of a table have none: take genetic")
    generator = torch_generator(seed, "evasion", "square")
    best = Best(region)
    signs = 2.0 * torch.randint(2, (len(region.x), n_chans, n_times), generator=generator) - 1
    _offer(oracle, region, goal, best, best.left, region.x + region.epsilon * signs)
    for query in range(1, effort.queries):
        rows = best.left
        if not len(rows):
            break
        length = max(1, round(_share(query, effort.queries) * n_times))
        first = torch.randint(n_times - length + 1, (len(rows), 1, 1), generator=generator)
        sign = 2.0 * torch.randint(2, (len(rows), n_chans, 1), generator=generator) - 1
        stretch = (first + torch.arange(length)).expand(-1, n_chans, -1)  # (m, n_chans, length)
        tried = best.x[rows]
        tried.scatter_(2, stretch, region.x[rows].gather(2, stretch) + region.epsilon * sign)
        _offer(oracle, region, goal, best, rows, tried)
    return best.x


def _offer(oracle: Oracle, region: Region, goal: Goal, best: Best, rows: Tensor, x: Tensor) -> None:
    logits = oracle.scores(x)
    best.offer(rows, x, goal.loss("margin", logits, rows), goal.fooled(logits, rows))


def _share(query: int, queries: int) -> float:
    """Return the share of the window that is changed in one iteration."""
    return FIRST_SHARE / 2 ** sum(query * 10_000 / queries > mark for mark in HALVED_AT)


ATTACK = Evasion(
    "A13",
    "scores",
    run,
    "Andriushchenko et al. (2020), Square attack, algorithms 1 and 2; stretches of time in the place of squares",
)
