"""HopSkipJump: along the boundary of the decision, by decisions alone.

It is written anew because the one of the adversarial robustness toolbox draws from generators that no seed reaches and
takes the windows one by one.
"""

import math

import torch
from torch import Tensor

from hcqsfl.adversarial.evasion.attack import Effort, Evasion
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region
from hcqsfl.randomness import torch_generator

HALVINGS = 12
FIRST_DIRECTIONS = 20


def run(oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int) -> Tensor:
    """Start from a window of another decision, and come as near as the queries allow, in the maximum norm.

    The radius of the region plays no part in the search: what is returned is the nearest input found, and who scores
    compares its distance with any radius. A window that no start was found for comes back as it was.
    """
    search = _Search(oracle, region, goal, seed)
    rows = torch.nonzero(search.found)[:, 0]
    if not len(rows):
        return region.x.clone()
    search.to_the_boundary(rows)
    spent, turn = HALVINGS + 1, 0
    while spent < effort.queries:
        turn += 1
        n = min(round(FIRST_DIRECTIONS * math.sqrt(turn)), effort.queries - spent)
        search.jump(rows, n, turn)
        spent += n + 2 * HALVINGS
    return search.x


class _Search:
    """Windows and the adversarial inputs nearest to them so far."""

    def __init__(self, oracle: Oracle, region: Region, goal: Goal, seed: int) -> None:
        self.oracle, self.region, self.goal = oracle, region, goal
        self.generator = torch_generator(seed, "evasion", "hop_skip_jump")
        self.x = region.x.clone()
        decided = oracle.decide(region.x)
        self.found = torch.zeros(len(self.x), dtype=torch.bool)
        order = torch.randperm(len(self.x), generator=self.generator)
        for i in range(len(self.x)):
            others = [j for j in order.tolist() if self._wanted(decided[j], i)]
            if others:
                self.x[i], self.found[i] = region.x[others[i % len(others)]], True

    def _wanted(self, decided: Tensor, row: int) -> bool:
        towards = self.goal.towards
        return bool(decided == towards) if towards is not None else bool(decided != self.goal.y[row])

    def fools(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return which of ``(m, ...)`` inputs the model errs on."""
        decided = self.oracle.decide(x)
        return decided == self.goal.towards if self.goal.towards is not None else decided != self.goal.y[rows]

    def to_the_boundary(self, rows: Tensor) -> None:
        """Shrink the difference by bisection, as far as the model still errs."""
        x = self.region.x[rows]
        far = (self.x[rows] - x).flatten(1).abs().amax(1)
        low, high, held = torch.zeros_like(far), far, self.x[rows]
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            reach = middle.view(-1, 1, 1)
            tried = x + (self.x[rows] - x).clamp(-reach, reach)
            fools = self.fools(tried, rows)
            high, low = torch.where(fools, middle, high), torch.where(fools, low, middle)
            held = torch.where(fools.view(-1, 1, 1), tried, held)
        self.x[rows] = held

    def jump(self, rows: Tensor, n_directions: int, turn: int) -> None:
        """Estimate the normal of the boundary from decisions, take a step along it, and come back to the boundary."""
        held, x = self.x[rows], self.region.x[rows]
        distance = (held - x).flatten(1).abs().amax(1)
        shape = (len(rows), n_directions, *held.shape[1:])
        directions = 2 * torch.rand(shape, generator=self.generator) - 1
        directions = directions / directions.flatten(2).norm(dim=2).view(len(rows), n_directions, 1, 1)
        reach = (0.1 * distance).clamp(min=1e-4).view(-1, 1, 1, 1)
        tried = (held[:, None] + reach * directions).flatten(0, 1)
        signs = 2.0 * self.fools(tried, rows.repeat_interleave(n_directions)).view(len(rows), n_directions) - 1
        mean = signs.mean(1, keepdim=True)
        weights = torch.where(mean.abs() < 1, signs - mean, signs)
        normal = (weights.view(len(rows), n_directions, 1, 1) * directions).mean(1).sign()
        step = distance / math.sqrt(turn)
        moved, done = held.clone(), torch.zeros(len(rows), dtype=torch.bool)
        for _ in range(HALVINGS):
            open_ = torch.nonzero(~done)[:, 0]
            if not len(open_):
                break
            tried = held[open_] + step[open_].view(-1, 1, 1) * normal[open_]
            fools = self.fools(tried, rows[open_])
            moved[open_[fools]] = tried[fools]
            done[open_[fools]] = True
            step = torch.where(done, step, step / 2)
        self.x[rows] = moved
        self.to_the_boundary(rows)
        nearer = (self.x[rows] - x).flatten(1).abs().amax(1) < distance
        self.x[rows] = torch.where(nearer.view(-1, 1, 1), self.x[rows], held)


ATTACK = Evasion(
    "A13",
    "decisions",
    run,
    "Chen, Jordan & Wainwright (2020), HopSkipJumpAttack, algorithm 2 in the maximum norm",
    smallest=True,
)
