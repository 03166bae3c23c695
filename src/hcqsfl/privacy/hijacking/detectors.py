"""How a client notices, from the gradients it is answered with, that its front is trained for something else."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.neighbors import LocalOutlierFactor
from torch import Tensor, nn


@dataclass(eq=False)
class SplitGuard:
    """Now and then train on wrong labels: a server that serves the task must answer very differently, a hijacker not.

    Attributes:
        alpha, beta: sharpen the score, as published.
        threshold: score below which there is an alarm; stricter than the 0.9 of the paper, since trainings here are
            short, and the angle between means of a few noisy gradients is large under any server.
        least: wrong batches before the first judgement.

    Source: Erdogan et al. (2022), SplitGuard: detecting and mitigating training-hijacking attacks in split learning,
    section 4.2 (SplitGuard score).
    """

    alpha: float = 7.0
    beta: float = 1.0
    threshold: float = 0.99
    least: int = 3
    wrong: list[np.ndarray] = field(default_factory=list)
    regular: list[np.ndarray] = field(default_factory=list)

    def add(self, gradient: np.ndarray, wrong: bool) -> bool:
        """Take in the gradient ``(d,)`` of one batch; return whether there is an alarm."""
        (self.wrong if wrong else self.regular).append(gradient)
        return wrong and len(self.wrong) >= self.least and len(self.regular) >= 2 and self.score() < self.threshold

    def score(self) -> float:
        """Return the SplitGuard score in [0, 1]: near 1 for an honest server, near 0.5 and below for a hijacker."""
        first, second = np.array(self.regular[::2]), np.array(self.regular[1::2])
        wrong, regular = np.array(self.wrong), np.array(self.regular)
        angle, apart = _angle(wrong, regular), _apart(wrong, regular)
        usual_angle, usual_apart = _angle(first, second), _apart(first, second)
        raw = (angle * apart - usual_angle * usual_apart) / (apart + usual_apart + 1e-12)
        return float((1 / (1 + math.exp(-self.alpha * raw))) ** self.beta)


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between two mean gradients, in radians."""
    x, y = a.mean(axis=0), b.mean(axis=0)
    size = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.arccos(np.clip(x @ y / size, -1, 1))) if size else 0.0


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Return how far apart two mean lengths of gradients are."""
    return abs(float(np.linalg.norm(a, axis=1).mean() - np.linalg.norm(b, axis=1).mean()))


@dataclass(eq=False)
class GradientOutliers:
    """Compare gradients with those that honest training of a copy, on a little of the client's own data, gave.

    Args:
        honest: ``(n, d)`` gradients of batches at the cut.
        window: last gradients of which more than half must be outliers for an alarm.

    Source: Erdogan et al. (2024), SplitOut: out-of-the-box training-hijacking detection in split learning via outlier
    detection, section 3 (local outlier factor with the most neighbours, windows of gradients).
    """

    honest: np.ndarray
    window: int = 10

    def __post_init__(self) -> None:
        if len(self.honest) < 3:
            raise ValueError(f"outliers are told from at least 3 honest gradients; there are {len(self.honest)}")
        self.factor = LocalOutlierFactor(n_neighbors=len(self.honest) - 1, novelty=True).fit(self.honest)
        self.found: list[bool] = []

    def add(self, gradient: np.ndarray) -> bool:
        """Take in the gradient ``(d,)`` of one batch; return whether there is an alarm."""
        self.found.append(bool(self.factor.predict(gradient[None])[0] == -1))
        return len(self.found) >= self.window and sum(self.found[-self.window :]) > self.window / 2


def honest_gradients(
    network: nn.Module, x: Tensor, y: Tensor, batch_size: int, n: int, learning_rate: float, generator: torch.Generator
) -> np.ndarray:
    """Train a joined copy a little; return the gradient of every batch at the cut ``(n, d)``.

    Args:
        network: with a ``front`` and a ``loss``; is trained.
        x, y: the client's own few windows.
        batch_size: windows in a step, as in the training to come.
        n: steps.
        learning_rate: of Adam.
        generator: draws the batches.
    """
    found: list[np.ndarray] = []
    front: nn.Module = network.get_submodule("front")

    def keep(module: nn.Module, given: object, smashed: Tensor) -> None:
        smashed.register_hook(lambda gradient: found.append(summary(gradient)))

    hook = front.register_forward_hook(keep)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for _ in range(n):
        batch = torch.randint(len(x), (min(batch_size, len(x)),), generator=generator)
        optimizer.zero_grad(set_to_none=True)
        network.loss(x[batch], y[batch]).backward()  # type: ignore[operator]
        optimizer.step()
    hook.remove()
    return np.array(found)


def summary(gradient: Tensor) -> np.ndarray:
    """Return what is compared of the gradient ``(b, ...)`` of a batch: its sum over rows, ``(d,)``."""
    total: np.ndarray = gradient.detach().flatten(1).sum(dim=0).double().numpy()
    return total
