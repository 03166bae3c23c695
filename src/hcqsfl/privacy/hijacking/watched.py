"""A client's learner that looks at the gradients it is answered with."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hcqsfl.privacy.hijacking.detectors import GradientOutliers, SplitGuard, summary
from hcqsfl.randomness import torch_generator


@dataclass(eq=False)
class Watch:
    """What one client's detectors found.

    Attributes:
        guard, outliers: the detectors.
        alarms: detector to the client's batch at which it first raised an alarm.
        batches: seen so far.
    """

    guard: SplitGuard
    outliers: GradientOutliers
    alarms: dict[str, int] = field(default_factory=dict)
    batches: int = 0

    def see(self, gradient: Tensor, wrong: bool) -> None:
        """Take in the gradient ``(b, ...)`` of one batch."""
        told, self.batches = summary(gradient), self.batches + 1
        if self.guard.add(told, wrong):
            self.alarms.setdefault("splitguard", self.batches)
        if not wrong and self.outliers.add(told):
            self.alarms.setdefault("outliers", self.batches)


class Watched(nn.Module):
    """Wraps a learner: some batches get wrong labels, and move nothing; all gradients at the cut are looked at.

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
        learner.get_submodule("front").register_forward_hook(self._look)

    def _look(self, module: nn.Module, given: object, smashed: Tensor) -> None:
        if torch.is_grad_enabled() and smashed.requires_grad:
            smashed.register_hook(lambda gradient: self.watch.see(gradient, self.wrong))

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
