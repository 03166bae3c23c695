"""What a client trains: the same network, whole or with its trunk behind a wire."""

import torch
from torch import Tensor, nn

from hcqsfl.models.defence import Defence
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
        divisor: where given, the loss is the sum over the batch divided by it, not the mean: what DP-SGD needs.
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
        self.divisor: int | None = None
        self._defence: tuple[Defence, ...] = ()  # in a tuple, so that it is none of the network's own children

    @property
    def defence(self) -> Defence | None:
        """What stands between the front and the wire, if anything does."""
        return self._defence[0] if self._defence else None

    def defend(self, defence: Defence | None) -> None:
        """Put a defence between the front and the wire.

        This is no property setter: ``nn.Module`` would take the defence for a child, and never call it.
        """
        if defence is not None:
            defence.stand_behind(self.front)
        self._defence = () if defence is None else (defence,)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(b, n_outputs)`` of windows ``(b, n_chans, n_times)``."""
        smashed = self.front(x)
        if self.defence is not None and self.defence.acts_in_evaluation:
            smashed = self.defence(smashed, x)
        logits: Tensor = self.head(self._features(smashed))
        return logits

    def _features(self, smashed: Tensor) -> Tensor:
        features = self.trunk(smashed if self.there is None else self.there(smashed))
        returned: Tensor = features if self.back is None else self.back(features)
        return returned

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the class-weighted mean cross entropy of a batch, with what a defence does to it."""
        defence = self.defence
        if defence is None:
            return self._cross_entropy(self(x), y)

        def loss_of(other: Tensor) -> Tensor:
            logits = self.head(self._features(defence(self.front(other), other)))
            return self._cross_entropy(logits, y)

        x = defence.windows(x, y, loss_of)
        smashed = self.front(x)
        features = self._features(defence(smashed, x))
        if features.requires_grad:
            features.register_hook(lambda gradient: defence.gradient(gradient, y))
        loss = self._cross_entropy(self.head(features), defence.labels(y, x))
        penalty = defence.penalty(x, smashed)
        return defence.weight() * loss if penalty is None else defence.weight() * loss + penalty

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.divisor is None:
            return nn.functional.cross_entropy(logits, y, weight=self.class_weights)
        return nn.functional.cross_entropy(logits, y, weight=self.class_weights, reduction="sum") / self.divisor


class LabelSharingNetwork(nn.Module):
    """The client's half where trunk, head and loss stand on the server, and the client sends its labels along.

    Args:
        front: ``(b, n_chans, n_times)`` to smashed data ``(b, n_smashed)``.
        remote: the rest, behind a wire.
        defence: what stands between the two. Its ``gradient`` has nothing to act on here, since the server makes the
            gradients itself; since the server takes its step before the client's pass, the client divides its penalty
            by the task's weight instead of multiplying the task's loss by it: the same direction.
    """

    def __init__(self, front: nn.Module, remote: RemoteLoss, defence: Defence | None = None) -> None:
        super().__init__()
        self.front = front
        self.remote = remote
        self._defence: tuple[Defence, ...] = ()
        self.defend(defence)

    def defend(self, defence: Defence | None) -> None:
        """Put a defence between the front and the wire."""
        if defence is not None:
            if defence.needs_own_gradient:
                raise ValueError(
                    f"{type(defence).__name__} hides labels in the gradient that a client sends, but with label "
                    "sharing the labels themselves are sent: set federation.label_sharing = false"
                )
            defence.stand_behind(self.front)
        self._defence = () if defence is None else (defence,)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(b, n_outputs)``; no gradient flows through them."""
        with torch.no_grad():
            smashed = self.front(x)
            for defence in self._defence:
                smashed = defence(smashed, x) if defence.acts_in_evaluation else smashed
            return self.remote.evaluate(smashed)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch as the server computed it."""
        for defence in self._defence:

            def loss_of(other: Tensor, y: Tensor = y, defence: Defence = defence) -> Tensor:
                loss: Tensor = self.remote(defence(self.front(other), other), y)
                return loss

            x = defence.windows(x, y, loss_of)
        smashed = self.front(x)
        penalty: Tensor | None = None
        sent = smashed
        for defence in self._defence:
            sent, y, penalty = defence(smashed, x), defence.labels(y, x), defence.penalty(x, smashed)
            penalty = None if penalty is None else penalty / defence.weight()
        loss: Tensor = self.remote(sent, y)
        return loss if penalty is None else loss + penalty
