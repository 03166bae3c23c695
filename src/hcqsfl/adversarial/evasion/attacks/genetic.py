"""A genetic search among the flows that an attacker could have sent, by the scores of the model alone."""

import numpy as np
import torch
from torch import Tensor

from hcqsfl.adversarial.evasion.attack import Best, Effort, Evasion
from hcqsfl.adversarial.evasion.flow_rules import CHOICES, FREE
from hcqsfl.adversarial.evasion.flows import FlowRegion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region
from hcqsfl.randomness import numpy_generator

POPULATION = 20
MUTATED = 0.3
"""Share of the genes of a child that are drawn anew."""


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Breed changes of each flow: binary tournaments, uniform crossover, mutation, the fitter of parents and children.

    A gene is how far a number goes from the flow's own value to the largest within reach, or which value a category
    takes. Fitness is the margin of the wanted class: rules are kept by repair, so that violations are no objective.

    Raises:
        ValueError: the region is one of signals.
    """
    if not isinstance(region, FlowRegion):
        raise ValueError("the genetic search moves among flows with rules; attack signals with square")
    best = Best(region)
    search(oracle, region, goal, effort, seed, best)
    return best.x


def search(oracle: Oracle, region: FlowRegion, goal: Goal, effort: Effort, seed: int, best: Best) -> None:
    """Search for the flows that do not fool the model yet, and hold what is found."""
    rng = numpy_generator(seed, "evasion", "genetic")
    size = min(POPULATION, effort.queries)
    rows = best.left
    if not len(rows):
        return
    genes = rng.random((len(rows), size, len(FREE) + len(CHOICES)))
    genes[:, 0] = 0.0  # the flow itself
    fitness = _offer(oracle, region, goal, best, rows, genes)
    for _ in range(effort.queries // size - 1):
        keep = ~best.fooled[rows].numpy()
        rows, genes, fitness = rows[keep], genes[keep], fitness[keep]
        if not len(rows):
            break
        children = _bred(genes, fitness, rng)
        theirs = _offer(oracle, region, goal, best, rows, children)
        both, scores = np.concatenate([genes, children], axis=1), np.concatenate([fitness, theirs], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :size]
        genes = np.take_along_axis(both, order[:, :, None], axis=1)
        fitness = np.take_along_axis(scores, order, axis=1)


def _bred(genes: np.ndarray, fitness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n, size, n_genes = genes.shape

    def parents() -> np.ndarray:
        pairs = rng.integers(size, size=(2, n, size))
        first, second = (np.take_along_axis(fitness, pair, axis=1) for pair in pairs)
        chosen = np.where(first >= second, pairs[0], pairs[1])
        return np.take_along_axis(genes, np.expand_dims(chosen, 2), axis=1)

    children = np.where(rng.random(genes.shape) < 0.5, parents(), parents())
    fresh = rng.random((n, size, n_genes))
    return np.where(rng.random(genes.shape) < MUTATED, fresh, children)


def decoded(region: FlowRegion, rows: Tensor, genes: np.ndarray) -> np.ndarray:
    """Return the flows that genes ``(m, n_genes)`` stand for, repaired, in original units."""
    share = torch.from_numpy(genes[:, : len(FREE)]).float()
    u = region.low[rows] + share * (region.high[rows] - region.low[rows])
    choices = {}
    for i, (name, values) in enumerate(CHOICES.items()):
        known = [k for k, value in enumerate(region.categories[name]) if value in values]
        picked = np.minimum((genes[:, len(FREE) + i] * (len(known) + 1)).astype(int), len(known))
        own = region.column(region.raw[rows.numpy()], name)
        choices[name] = np.array([own[j] if p == 0 else known[p - 1] for j, p in enumerate(picked)])
    return region.at(region.unscaled(u, rows), rows.numpy(), choices)


def _offer(oracle: Oracle, region: FlowRegion, goal: Goal, best: Best, rows: Tensor, genes: np.ndarray) -> np.ndarray:
    n, size, n_genes = genes.shape
    each = rows.repeat_interleave(size)
    x = region.show(decoded(region, each, genes.reshape(-1, n_genes)), each.numpy())
    logits = oracle.scores(x)
    loss, fooled = goal.loss("margin", logits, each), goal.fooled(logits, each)
    fitness = loss.view(n, size)
    top = fitness.argmax(dim=1) + torch.arange(n) * size
    best.offer(rows, x[top], loss[top], fooled[top], of=top)
    return fitness.numpy().astype(np.float64)


ATTACK = Evasion(
    "A14",
    "scores",
    run,
    "Simonetto et al. (2024), Constrained adaptive attack, section 4.2, after MOEVA (Simonetto et al. 2022), with one "
    "objective",
)
