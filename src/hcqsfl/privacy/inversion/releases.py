"""Several releases of one window, averaged: what noise that is drawn anew each time hides, it hides once."""

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
