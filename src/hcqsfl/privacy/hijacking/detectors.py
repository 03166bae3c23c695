"""How a client notices, from the gradients it is answered with, that its front is trained for something else."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.neighbors import LocalOutlierFactor
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass(eq=False)
class SplitGuard:
    """Now and then train on wrong labels: a server that serves the task must answer very differently, a hijacker not.

    Each wrong batch after the first ``wait`` batches gives a score. With F the gradients of wrong batches, R1 and R2
    two random halves of those of the others, R both, ``theta`` the angle between means and ``d`` the difference between
    mean lengths::

        S = (theta(F, R) d(F, R) - theta(R1, R2) d(R1, R2)) / (d(F, R) + d(R1, R2))
        score = sigmoid(alpha S) ** beta

    Attributes:
        generator: deals the halves.
        alpha, beta, wait: as in the authors' released code.
        threshold: a score below it speaks for an attack.
        group: scores that cast one vote, by their mean, in the policy ``voting``.
        scores: so far.

    Source: Erdogan et al. (2022), SplitGuard: detecting and mitigating training-hijacking attacks in split learning,
    sections 4 and 5 (score; policies ``fast`` and ``voting``).
    """

    generator: torch.Generator
    alpha: float = 5.0
    beta: float = 2.0
    wait: int = 20
    threshold: float = 0.9
    group: int = 5
    scores: list[float] = field(default_factory=list)
    batches: int = 0
    wrong: list[np.ndarray] = field(default_factory=list)
    halves: tuple[list[np.ndarray], list[np.ndarray]] = field(default_factory=lambda: ([], []))

    def add(self, gradient: np.ndarray, wrong: bool) -> None:
        """Take in the gradient ``(d,)`` of one batch."""
        self.batches += 1
        if self.batches <= self.wait:
            return
        if not wrong:
            self.halves[int(torch.rand((), generator=self.generator) < 0.5)].append(gradient)
            return
        self.wrong.append(gradient)
        if all(self.halves):
            self.scores.append(self.score())

    def score(self) -> float:
        """Return the score in [0, 1] of all batches so far: near 1 for an honest server."""
        # the mean of both halves is that of their means, however many each has
        angles, lengths = zip(*(_mean_and_length(of) for of in (self.wrong, *self.halves)), strict=True)
        regular, length = (angles[1] + angles[2]) / 2, (lengths[1] + lengths[2]) / 2
        apart, usual = abs(lengths[0] - length), abs(lengths[1] - lengths[2])
        raw = _angle(angles[0], regular) * apart - _angle(angles[1], angles[2]) * usual
        raw = raw / (apart + usual) if apart + usual else 0.0
        return float((1 / (1 + math.exp(-self.alpha * raw))) ** self.beta)

    def fast(self) -> bool:
        """Return whether the newest score speaks for an attack."""
        return bool(self.scores) and self.scores[-1] < self.threshold

    def voting(self) -> bool:
        """Return whether most groups of scores that are complete speak for an attack."""
        n = len(self.scores) // self.group
        votes = [np.mean(self.scores[i * self.group : (i + 1) * self.group]) < self.threshold for i in range(n)]
        return bool(sum(votes) > n / 2)


def _mean_and_length(gradients: list[np.ndarray]) -> tuple[np.ndarray, float]:
    held = np.array(gradients)
    return held.mean(axis=0), float(np.linalg.norm(held, axis=1).mean())


def _angle(x: np.ndarray, y: np.ndarray) -> float:
    """Return the angle between two vectors, in radians."""
    size = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.arccos(np.clip(x @ y / size, -1, 1))) if size else 0.0


@dataclass(eq=False)
class GradientOutliers:
    """Compare gradients with those that honest training of a copy, on a little of the client's own data, gave.

    Args:
        honest: ``(n, d)`` gradients of batches.
        window: last gradients of which more than half must be outliers for an alarm.

    Attributes:
        threshold: local outlier factor, negated, below which a gradient is an outlier: as published, scikit-learn's
            -1.5.
        levels: one a window: the alarm is raised where it is below the threshold.

    Source: Erdogan et al. (2024), SplitOut: out-of-the-box training-hijacking detection in split learning via outlier
    detection, section 3 (local outlier factor with the most neighbours, windows of gradients).
    """

    honest: np.ndarray
    window: int = 10

    def __post_init__(self) -> None:
        if len(self.honest) < 3:
            raise ValueError(f"outliers are told from at least 3 honest gradients; there are {len(self.honest)}")
        self.factor = LocalOutlierFactor(n_neighbors=len(self.honest) - 1, novelty=True).fit(self.honest)
        self.threshold = float(self.factor.offset_)
        self.found: list[float] = []
        self.levels: list[float] = []

    def add(self, gradient: np.ndarray) -> bool:
        """Take in the gradient ``(d,)`` of one batch; return whether there is an alarm."""
        self.found.append(float(self.factor.score_samples(gradient[None])[0]))
        if len(self.found) < self.window:
            return False
        # more than half are below a threshold where this one is
        self.levels.append(sorted(self.found[-self.window :])[self.window // 2])
        return self.levels[-1] < self.threshold


def honest_gradients(
    network: nn.Module, x: Tensor, y: Tensor, batch_size: int, n: int, learning_rate: float, generator: torch.Generator
) -> np.ndarray:
    """Train a joined copy a little; return the gradient of every batch ``(n, d)``, as ``first_layer`` gives it.

    Args:
        network: with a ``front`` and a ``loss``; is trained.
        x, y: the client's own few windows.
        batch_size: windows in a step, as in the training to come.
        n: steps.
        learning_rate: of Adam.
        generator: draws the batches.
    """
    found: list[np.ndarray] = []
    hook = first_layer(network.get_submodule("front"), found.append)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for _ in range(n):
        batch = torch.randint(len(x), (min(batch_size, len(x)),), generator=generator)
        optimizer.zero_grad(set_to_none=True)
        network.loss(x[batch], y[batch]).backward()  # type: ignore[operator]
        optimizer.step()
    hook.remove()
    return np.array(found)


def first_layer(front: nn.Module, see: Callable[[np.ndarray], None]) -> RemovableHandle:
    """Let ``see`` have the gradient ``(d,)`` of the front's first weights whenever a batch gives one.

    That is what the authors of both detectors compare. What the server answers is longer by far, and differs from batch
    to batch with where in a window things happen.

    Raises:
        ValueError: the front has no weights.
    """
    weights = next((p for p in front.parameters() if p.requires_grad), None)
    if weights is None:
        raise ValueError("this front has no weights of its own, so that no gradient reaches the client to be watched")
    handle: RemovableHandle = weights.register_hook(lambda gradient: see(gradient.detach().flatten().double().numpy()))
    return handle
