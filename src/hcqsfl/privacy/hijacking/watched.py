"""A client's learner that looks at the gradients it is answered with."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl.privacy.hijacking.detectors import GradientOutliers, SplitGuard, first_layer
from hcqsfl.randomness import torch_generator

DETECTORS = ("splitguard, fast", "splitguard, voting", "splitout")


@dataclass(eq=False)
class Watch:
    """What one client's detectors found.

    Attributes:
        guard, outliers: the detectors.
        alarms: detector to the client's batch at which it first raised an alarm.
        batches: seen so far.
        windows: the batch at which each window of ``outliers`` ended.
    """

    guard: SplitGuard
    outliers: GradientOutliers
    alarms: dict[str, int] = field(default_factory=dict)
    batches: int = 0
    windows: list[int] = field(default_factory=list)

    def see(self, gradient: np.ndarray, wrong: bool) -> None:
        """Take in the gradient ``(d,)`` of one batch."""
        self.batches += 1
        self.guard.add(gradient, wrong)
        raised = {"splitguard, fast": wrong and self.guard.fast(), "splitguard, voting": wrong and self.guard.voting()}
        if not wrong:
            raised["splitout"] = self.outliers.add(gradient)
            self.windows += [self.batches] * (len(self.outliers.levels) - len(self.windows))
        for name, alarm in raised.items():
            if alarm:
                self.alarms.setdefault(name, self.batches)

    def below(self, threshold: float) -> int | None:
        """Return the batch at which ``outliers`` would first have raised an alarm at another threshold."""
        pairs = zip(self.windows, self.outliers.levels, strict=True)
        return next((batch for batch, level in pairs if level < threshold), None)


class Watched(nn.Module):
    """Wraps a learner: some batches get wrong labels, and move nothing; all gradients of the first layer are looked at.

    Args:
        learner: a client's half, with a ``front``.
        watch: takes in the gradients.
        n_outputs: classes.
        share: of batches with wrong labels.
        seed, client: of the choice.
    """

    def __init__(self, learner: nn.Module, watch: Watch, n_outputs: int, share: float, seed: int, client: str) -> None:
        super().__init__()
        self.learner, self.watch, self.n_outputs, self.share = learner, watch, n_outputs, share
        self.generator = torch_generator(seed, "wrong labels", client)
        self.wrong = False
        first_layer(learner.get_submodule("front"), lambda gradient: self.watch.see(gradient, self.wrong))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, as the learner does."""
        logits: Tensor = self.learner(x)
        return logits

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch; of one with wrong labels, a constant, once its gradients have been looked at."""
        self.wrong = bool(torch.rand((), generator=self.generator) < self.share)
        if not self.wrong:
            loss: Tensor = self.learner.loss(x, y)  # type: ignore[operator]
            return loss
        offset = torch.randint(1, max(self.n_outputs, 2), y.shape, generator=self.generator)
        self.learner.loss(x, (y + offset) % self.n_outputs).backward()  # type: ignore[operator]
        for parameter in self.learner.parameters():
            parameter.grad = None
        return torch.zeros((), requires_grad=True)
