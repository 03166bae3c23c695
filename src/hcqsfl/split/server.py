"""The server's end of the cut: bytes in, bytes out, one optimiser step a backward pass."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hcqsfl.split.codecs.pair import CutCodec
from hcqsfl.split.message import MAX_BYTES, Message, ProtocolError, decode, encode

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class _OpenStep:
    round: int
    step: int
    smashed: Tensor
    features: Tensor


class TrunkServer:
    """Holds a trunk and trains it on what its clients send.

    Every request is checked before it touches anything: a message that is broken, out of turn, of the wrong shape or
    not finite is answered with an ``error`` and leaves the trunk, its optimiser and the other clients' steps as they
    were. Each client has at most one step open; a new forward pass takes the place of one that was never closed.

    Args:
        trunk: maps ``(b, n_smashed)`` to ``(b, n_features)``; with shared labels, to logits ``(b, n_outputs)``.
        optimizer: moves the trunk's parameters; ``None`` where it has none to move.
        loss: from logits and labels to a scalar, where clients share their labels.
        max_bytes: largest message that is read.
        codec_for: client to what makes the answers to it smaller.
    """

    def __init__(
        self,
        trunk: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        loss: Loss | None = None,
        max_bytes: int = MAX_BYTES,
        codec_for: Callable[[str], CutCodec] = lambda client: CutCodec(),
    ) -> None:
        self.codec_for = codec_for
        self.trunk = trunk
        self.optimizer = optimizer
        # once: to walk through groups and modules costs more than a small message
        groups = optimizer.param_groups if optimizer is not None else []
        self._moved = [parameter for group in groups for parameter in group["params"]]
        self.loss = loss
        self.max_bytes = max_bytes
        self._open: dict[str, _OpenStep] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self._training: bool | None = None
        self._handlers = {
            "forward": self._forward,
            "backward": self._backward,
            "evaluate": self._evaluate,
            "train": self._train,
        }

    def __call__(self, request: bytes) -> bytes:
        """Answer one message."""
        client, round_, step = "", 0, 0
        try:
            message = decode(request, self.max_bytes)
            client, round_, step = message.client, message.round, message.step
            if message.kind not in self._handlers:
                raise ProtocolError(f"a server does not take {message.kind} messages")
            kind, tensors = self._handlers[message.kind](message)
        except ProtocolError as error:
            return encode(Message("error", client, round_, step, text=str(error)))
        codec = self.codec_for(client)
        coded = codec.encode(tensors, training=message.kind != "evaluate")
        return encode(Message(kind, client, round_, step, coded, codec=codec.name))

    def _forward(self, message: Message) -> tuple[str, dict[str, Tensor]]:
        self._check_turn(message)
        smashed = self._smashed(message).requires_grad_()
        self._set_training(True)
        with torch.enable_grad():
            features = self._run(smashed)
        self._last[message.client] = (message.round, message.step)
        self._open[message.client] = _OpenStep(message.round, message.step, smashed, features)
        return "features", {"features": features}

    def _backward(self, message: Message) -> tuple[str, dict[str, Tensor]]:
        gradient = check_floating(message, "gradient")
        opened = self._open.get(message.client)
        if opened is None or (opened.round, opened.step) != (message.round, message.step):
            raise ProtocolError(
                f"client {message.client} sent a gradient for round {message.round}, step {message.step}, which is "
                "not open"
            )
        if gradient.shape != opened.features.shape:
            raise ProtocolError(
                f"client {message.client} sent a gradient of shape {tuple(gradient.shape)} for features of shape "
                f"{tuple(opened.features.shape)}"
            )
        del self._open[message.client]
        self._zero_grad()
        opened.features.backward(gradient)
        return "gradient", {"gradient": self._step(opened.smashed, message)}

    def _train(self, message: Message) -> tuple[str, dict[str, Tensor]]:
        if self.loss is None:
            raise ProtocolError("this server takes no labels: it was set up U-shaped")
        smashed = self._smashed(message).requires_grad_()
        labels = message.tensor("labels")
        if labels.dtype != torch.int64 or labels.shape != smashed.shape[:1]:
            raise ProtocolError(
                f"client {message.client} sent {labels.dtype} labels of shape {tuple(labels.shape)} for "
                f"{len(smashed)} windows"
            )
        self._check_turn(message)
        self._set_training(True)
        with torch.enable_grad():
            logits = self._run(smashed)
            if labels.min() < 0 or labels.max() >= logits.shape[1]:
                raise ProtocolError(f"client {message.client} sent a label outside 0 to {logits.shape[1] - 1}")
            loss = self.loss(logits, labels)
        self._last[message.client] = (message.round, message.step)
        self._zero_grad()
        loss.backward()
        return "gradient", {"gradient": self._step(smashed, message), "loss": loss.detach().reshape(1)}

    def _evaluate(self, message: Message) -> tuple[str, dict[str, Tensor]]:
        self._set_training(False)
        with torch.no_grad():
            return "features", {"features": self._run(self._smashed(message))}

    def _smashed(self, message: Message) -> Tensor:
        return check_floating(message, "smashed")

    def _answer_gradient(self, gradient: Tensor, message: Message) -> Tensor:
        return gradient

    def _check_turn(self, message: Message) -> None:
        last = self._last.get(message.client, (0, 0))
        if (message.round, message.step) <= last:
            raise ProtocolError(
                f"client {message.client} sent round {message.round}, step {message.step} after "
                f"round {last[0]}, step {last[1]}"
            )

    def _set_training(self, training: bool) -> None:
        # to walk through the modules costs more than a small message
        if not self._training == self.trunk.training == training:
            self.trunk.train(training)
            self._training = training

    def _run(self, smashed: Tensor) -> Tensor:
        try:
            features: Tensor = self.trunk(smashed)
        except (RuntimeError, ValueError) as error:
            raise ProtocolError(
                f"the trunk cannot take smashed data of shape {tuple(smashed.shape)} and type {smashed.dtype}: {error}"
            ) from None
        return features

    def _zero_grad(self) -> None:
        # as the optimiser's own, without its hooks
        for parameter in self._moved:
            parameter.grad = None

    def _step(self, smashed: Tensor, message: Message) -> Tensor:
        gradient = smashed.grad
        if gradient is None:
            raise ProtocolError("the trunk's output does not depend on the smashed data")
        found = [parameter.grad for parameter in self._moved if parameter.grad is not None]
        if not all(map(is_finite, [gradient, *found])):
            self._zero_grad()
            raise ProtocolError(f"the step of client {message.client} overflows; the trunk was left as it was")
        if self.optimizer is not None:
            self.optimizer.step()
        return self._answer_gradient(gradient, message)


def check_floating(message: Message, name: str) -> Tensor:
    """Return a tensor of numbers that a client sent, checked.

    Raises:
        ProtocolError: it is not there, is not floating ``(b, ...)`` with at least one row, or is not finite.
    """
    tensor = message.tensor(name)
    if tensor.ndim < 2 or not len(tensor) or not tensor.is_floating_point():
        raise ProtocolError(
            f"client {message.client} sent {name} of shape {tuple(tensor.shape)} and type {tensor.dtype}; "
            "floating (b, n) or (b, c, t) with at least one row is needed"
        )
    if not is_finite(tensor):
        raise ProtocolError(f"client {message.client} sent {name} with NaN or infinity in it")
    return tensor


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor infinity.

    A NaN or infinity always shows in the sum, which is one pass instead of four; only where the sum is not finite, as
    that of large numbers may be, is each number looked at.
    """
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())
