"""Several releases of one window: averaged, since noise drawn anew hides but once; or one less the other.

Noise that is always the same stays in the mean, and is gone from the difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.observation import Observation


@dataclass(frozen=True, eq=False)
class Averaged:
    """Smashed data of the targets, each the weighted mean of its releases.

    Attributes:
        smashed: ``(n_targets, ...)``.
        effective: mean of how many independent draws of noise a row's mean is worth.
        noise: estimated variance of one release's noise, mean over numbers.
    """

    smashed: Tensor
    effective: float
    noise: float


def averaged(observation: Observation, knowledge: Knowledge) -> Averaged:
    """Average the releases that the attacker could link, newer ones counting more.

    Between rounds the front moves, so old releases show another point. For each lag in rounds, the mean squared
    difference of pairs is twice the variance of the noise, plus the drift; the smallest over lags tells the noise.
    Releases are weighted by the inverse of noise plus drift, as independent measurements of one quantity are.

    Args:
        observation: of an adversary who sees smashed data.
        knowledge: ``releases`` tells which rows carry the same window.
    """
    last = observation.stacked()
    if not any(knowledge.releases.values()):
        return Averaged(last, 1.0, 0.0)
    rounds = [observation.exchanges[target.exchange].round for target in observation.targets]
    linked: list[list[tuple[int, Tensor]]] = []
    for place in range(len(last)):
        others = knowledge.releases.get(place, ())
        linked.append(
            [
                (
                    rounds[place] - observation.exchanges[other.exchange].round,
                    observation.exchanges[other.exchange].smashed[other.row],
                )
                for other in others
            ]
        )
    squares: dict[int, list[float]] = {}
    for place, each in enumerate(linked):
        for lag, row in each:
            squares.setdefault(lag, []).append(float((row - last[place]).square().mean()))
    apart = {lag: sum(values) / len(values) for lag, values in squares.items()}
    noise = min(apart.values()) / 2
    drift = {lag: max(0.0, value - 2 * noise) for lag, value in apart.items()}
    floor = 1e-12 + 1e-6 * float(last.var())
    means, effective = [], []
    for place, each in enumerate(linked):
        weights = torch.tensor([1 / (noise + floor)] + [1 / (noise + drift[lag] + floor) for lag, _ in each])
        weights = weights / weights.sum()
        rows = torch.stack([last[place]] + [row for _, row in each])
        means.append((weights.to(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1)) * rows).sum(dim=0))
        effective.append(float(1 / weights.square().sum()))
    return Averaged(torch.stack(means), sum(effective) / len(effective), noise)


def by_round(observation: Observation, knowledge: Knowledge) -> list[dict[int, Tensor]]:
    """Return, for each target, round to the mean of its releases in that round."""
    found = []
    for place, target in enumerate(observation.targets):
        held: dict[int, list[Tensor]] = {}
        for each in (*knowledge.releases.get(place, ()), target):
            exchange = observation.exchanges[each.exchange]
            held.setdefault(exchange.round, []).append(exchange.smashed[each.row])
        found.append({number: torch.stack(rows).mean(dim=0) for number, rows in held.items()})
    return found


def widest(seen: Sequence[Mapping[int, Tensor]], most: int) -> list[int]:
    """Return up to ``most`` rounds in which most targets were seen, as far apart as may be, the last one among them."""
    counts: dict[int, int] = {}
    for each in seen:
        for number in each:
            counts[number] = counts.get(number, 0) + 1
    common = sorted(number for number, n in counts.items() if 2 * n >= max(counts.values()))
    if len(common) <= most:
        return common
    return [common[round(i * (len(common) - 1) / (most - 1))] for i in range(most)]


def laid_out(seen: Sequence[Mapping[int, Tensor]], rounds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return releases ``(n, k, ...)`` in some rounds, zero where there is none, and where there is one, ``(n, k)``."""
    empty = torch.zeros_like(next(iter(seen[0].values())))
    there = torch.tensor([[number in each for number in rounds] for each in seen])
    return torch.stack([torch.stack([each.get(number, empty) for number in rounds]) for each in seen]), there


def apart(rows: Tensor, there: Tensor) -> Tensor:
    """Return what a decoder reads: the mean over rounds, each round less the mean, and which rounds there are.

    Args:
        rows: ``(n, k, s)`` or ``(n, k, c, t)`` smashed data of k rounds.
        there: ``(n, k)`` bool.

    Returns:
        ``(n, (k + 1) s + k)``, or ``(n, (k + 1) c + k, t)``.
    """
    shape = (*there.shape, *[1] * (rows.ndim - 2))
    mask = there.reshape(shape).to(rows.dtype)
    mean = (rows * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp_min(1.0)
    less = (rows - mean) * mask
    told = mask.expand(*there.shape, 1, *rows.shape[3:])
    return torch.cat([mean.flatten(1, 2), less.flatten(1, 2), told.flatten(1, 2)], dim=1)
