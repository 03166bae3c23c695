"""What a client does to its smashed data, labels or gradients before they leave it."""

from collections.abc import Callable

from torch import Tensor, nn


class Defence(nn.Module):
    """Stands between the front and the wire; this one does nothing, and each defence overrides what it needs.

    A defence that draws noise takes its generator at construction (``seed`` and the client's name), so that a resumed
    run draws what an uninterrupted one draws: ``begin_round`` re-seeds it.

    Attributes:
        acts_in_evaluation: whether it also acts where nothing is trained; noise on smashed data does, since what is
            sent for inference leaks as what is sent in training.
        couples_windows: whether what it does to one window depends on the others in the batch, so that per-sample
            gradients (DP-SGD) do not exist.
        passes: how often a batch passes through the network in one step of the client; the last pass trains it.
        needs_own_gradient: whether it changes the gradient that the client sends, and so needs a client that keeps its
            labels and sends one.
        only_replaces: whether all it does is to replace the smashed data and the gradient of the features that are
            sent; its client may then train in a batch of clients.
    """

    acts_in_evaluation = True
    couples_windows = False
    passes = 1
    needs_own_gradient = False
    only_replaces = False

    def begin_round(self, number: int) -> None:
        """Get ready for a round."""

    def windows(self, x: Tensor, y: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what is trained on in place of windows ``x (b, n_chans, n_times)`` of labels ``y (b,)``.

        ``loss`` gives the loss of other windows in their place; each call is a pass of ``passes`` in a step.
        """
        return x

    def stand_behind(self, front: nn.Module) -> None:
        """Learn which front makes the smashed data, for a defence that depends on it."""

    def forward(self, smashed: Tensor, x: Tensor | None = None) -> Tensor:
        """Return what is sent in place of ``smashed (b, n_smashed)``; ``x`` are the windows it was made of."""
        return smashed

    def penalty(self, x: Tensor, smashed: Tensor) -> Tensor | None:
        """Return what is added to the loss, or ``None``."""
        return None

    def weight(self) -> float:
        """Return the weight of the task's own loss beside the penalty."""
        return 1.0

    def labels(self, y: Tensor, x: Tensor | None = None) -> Tensor:
        """Return what is used in place of the labels ``(b,)`` of the windows ``x``."""
        return y

    def gradient(self, gradient: Tensor, y: Tensor) -> Tensor:
        """Return what is sent in place of the gradient of the features ``(b, n_features)``."""
        return gradient


MakeDefence = Callable[[str], Defence]
"""From a client's name to its defence."""
