"""What a client trains: the same network, whole or with its trunk behind a wire."""

import torch
from torch import Tensor, nn

from hcqsfl.split.codecs.pair import Passage
from hcqsfl.split.remote import RemoteLoss


class Network(nn.Module):
    """Front, trunk, head, and the loss.

    With the trunk itself it is the joined model; with a ``RemoteTrunk`` in its place it is the client's half of the
    U-shaped one, and nothing else changes.

    Args:
        front: ``(b, n_chans, n_times)`` to smashed data ``(b, n_smashed)``.
        trunk: smashed data to features ``(b, n_features)``.
        head: features to logits ``(b, n_outputs)``.
        class_weights: ``(n_outputs,)`` weights of the classes in the cross entropy.

    Attributes:
        there, back: what a codec makes of smashed data and features, where a joined copy is to judge as a cut one.
    """

    def __init__(
        self, front: nn.Module, trunk: nn.Module, head: nn.Module, class_weights: Tensor | None = None
    ) -> None:
        super().__init__()
        self.front = front
        self.trunk = trunk
        self.head = head
        self.class_weights = class_weights
        self.there: Passage | None = None
        self.back: Passage | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(b, n_outputs)`` of windows ``(b, n_chans, n_times)``."""
        smashed = self.front(x)
        features = self.trunk(smashed if self.there is None else self.there(smashed))
        logits: Tensor = self.head(features if self.back is None else self.back(features))
        return logits

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the class-weighted mean cross entropy of a batch."""
        return nn.functional.cross_entropy(self(x), y, weight=self.class_weights)


class LabelSharingNetwork(nn.Module):
    """The client's half where trunk, head and loss stand on the server, and the client sends its labels along.

    Args:
        front: ``(b, n_chans, n_times)`` to smashed data ``(b, n_smashed)``.
        remote: the rest, behind a wire.
    """

    def __init__(self, front: nn.Module, remote: RemoteLoss) -> None:
        super().__init__()
        self.front = front
        self.remote = remote

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(b, n_outputs)``; no gradient flows through them."""
        with torch.no_grad():
            return self.remote.evaluate(self.front(x))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch as the server computed it."""
        loss: Tensor = self.remote(self.front(x), y)
        return loss
