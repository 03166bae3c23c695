"""What an attacker trains through who knows the codec of the cut as well as the defence before it."""

from torch import Tensor, nn

from hcqsfl.models.defence import Defence
from hcqsfl.split.codecs.codec import Codec
from hcqsfl.split.codecs.pair import Passage


class Coded(Defence):
    """A defence, if there is one, and the codec after it: smashed data as the server decodes them.

    Args:
        codec: of the activations.
        inner: the defence before it.
    """

    def __init__(self, codec: Codec, inner: Defence | None = None) -> None:
        super().__init__()
        self.passage, self.inner = Passage(codec, "smashed"), inner or Defence()
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
        read: Tensor = self.passage(self.inner(smashed, x))
        return read

    def penalty(self, x: Tensor, smashed: Tensor) -> Tensor | None:
        """Return what the defence adds to the loss."""
        return self.inner.penalty(x, smashed)

    def weight(self) -> float:
        """Return the weight of the task's own loss."""
        return self.inner.weight()

    def labels(self, y: Tensor, x: Tensor | None = None) -> Tensor:
        """Return what the defence tells in place of the labels."""
        return self.inner.labels(y, x)
