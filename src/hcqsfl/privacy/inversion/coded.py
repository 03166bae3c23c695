"""What an attacker trains through who knows the codec of the cut as well as the defence before it."""

import torch
from torch import Tensor, nn

from hcqsfl.models.defence import Defence
from hcqsfl.split.codecs.codec import Codec


class Coded(Defence):
    """A defence, if there is one, and the codec after it: smashed data as the server decodes them.

    Rounding has no slope, and the codec is taken for the identity on the way back.

    Args:
        codec: of the activations; what it draws, it draws from a generator of the attacker's own.
        inner: the defence before it.

    Source: Bengio, Leonard & Courville (2013), Estimating or propagating gradients through stochastic neurons, section
    4, for the slope (straight-through estimator).
    """

    def __init__(self, codec: Codec, inner: Defence | None = None) -> None:
        super().__init__()
        self.codec, self.inner = codec, inner or Defence()
        self.acts_in_evaluation = True
        self.couples_windows = self.inner.couples_windows

    def begin_round(self, number: int) -> None:
        """Get ready for a round."""
        self.inner.begin_round(number)

    def stand_behind(self, front: nn.Module) -> None:
        """Learn which front makes the smashed data."""
        self.inner.stand_behind(front)

    def forward(self, smashed: Tensor, x: Tensor | None = None) -> Tensor:
        """Return what is decoded in place of ``smashed (b, ...)``."""
        sent: Tensor = self.inner(smashed, x)
        with torch.no_grad():
            read = self.codec.decode("smashed", self.codec.encode("smashed", sent, training=True))
        return sent + (read - sent).detach()

    def penalty(self, x: Tensor, smashed: Tensor) -> Tensor | None:
        """Return what the defence adds to the loss."""
        return self.inner.penalty(x, smashed)

    def weight(self) -> float:
        """Return the weight of the task's own loss."""
        return self.inner.weight()

    def labels(self, y: Tensor, x: Tensor | None = None) -> Tensor:
        """Return what the defence tells in place of the labels."""
        return self.inner.labels(y, x)
