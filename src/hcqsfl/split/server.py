"""The server's end of the cut: bytes in, bytes out, one optimiser step a backward pass."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.func import functional_call

from hcqsfl.optimizers import take_step
from hcqsfl.split.codecs.pair import PLAIN, CutCodec
from hcqsfl.split.message import MAX_BYTES, Message, ProtocolError, decode, encode

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(slots=True, eq=False)
class OpenStep:
    """A step whose features were sent, and whose gradient has not come."""

    round: int
    step: int
    smashed: Tensor
    features: Tensor
    weights: dict[str, Tensor]


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

    Attributes:
        interleaved: whether other clients' steps may come between the forward and the backward pass of one. Each pass
            then runs on a copy of the weights, and its gradient, which is that of the weights it started from, moves
            the weights of the moment (stale gradients, as in asynchronous SGD).
    """

    def __init__(
        self,
        trunk: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        loss: Loss | None = None,
        max_bytes: int = MAX_BYTES,
        codec_for: Callable[[str], CutCodec] = lambda client: PLAIN,
    ) -> None:
        self.codec_for = codec_for
        self.trunk = trunk
        self.optimizer = optimizer
        # once: to walk through groups and modules costs more than a small message
        groups = optimizer.param_groups if optimizer is not None else []
        self._moved = [parameter for group in groups for parameter in group["params"]]
        self.loss = loss
        self.max_bytes = max_bytes
        self._open: dict[str, OpenStep] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self._training: bool | None = None
        self.interleaved = False
        self._handlers = {
            "forward": self._forward,
            "backward": self._backward,
            "evaluate": self._evaluate,
            "train": self._train,
        }

    def __call__(self, request: bytes) -> bytes:
        """Answer one message."""
        message: Message | None = None
        try:
            message = decode(request, self.max_bytes)
            if message.kind not in self._handlers:
                raise not_taken(message)
            kind, tensors = self._handlers[message.kind](message)
        except ProtocolError as error:
            return refusal(message, error)
        return self.answer(message, kind, tensors)

    def answer(self, message: Message, kind: str, tensors: dict[str, Tensor]) -> bytes:
        """Return the answer to a message."""
        codec = self.codec_for(message.client)
        coded = codec.encode(tensors, training=message.kind != "evaluate")
        return encode(Message(kind, message.client, message.round, message.step, coded, codec=codec.name))

    def forget(self, client: str) -> None:
        """Drop a client's open step, and let it begin a turn anew: it went away in the middle of one."""
        self._open.pop(client, None)
        self._last.pop(client, None)

    def _forward(self, message: Message) -> tuple[str, dict[str, Tensor]]:
        smashed = self.accept_smashed(message).requires_grad_()
        self._set_training(True)
        weights: dict[str, Tensor] = {}
        if self.interleaved:
            weights = {k: p.detach().clone().requires_grad_(p.requires_grad) for k, p in self.trunk.named_parameters()}
        with torch.enable_grad():
            features = self._run(smashed, weights)
        self.open(message, smashed, features, weights)
        return "features", {"features": features}

    def _backward(self, message: Message) -> tuple[str, dict[str, Tensor]]:
        gradient, opened = self.accept_gradient(message)
        self._zero_grad()
        try:
            _backward(opened.features, gradient)
        except RuntimeError:  # autograd will not differentiate by weights that are gone
            self._zero_grad()
            raise ProtocolError(
                f"the trunk has moved since step {message.step} of client {message.client} began; begin it anew"
            ) from None
        for name, copied in opened.weights.items():
            self.trunk.get_parameter(name).grad = copied.grad
        return "gradient", {"gradient": self._step(opened.smashed, message)}

    def _train(self, message: Message) -> tuple[str, dict[str, Tensor]]:
        smashed, labels = self.accept_labelled(message)
        smashed.requires_grad_()
        self._set_training(True)
        with torch.enable_grad():
            logits = self._run(smashed)
            check_labels(message, labels, logits.shape[1])
            loss = self._loss(logits, labels)
        self.close(message)
        self._zero_grad()
        _backward(loss, torch.ones_like(loss))
        return "gradient", {"gradient": self._step(smashed, message), "loss": loss.detach().reshape(1)}

    def accept_smashed(self, message: Message) -> Tensor:
        """Return the smashed data of a step that may begin.

        Raises:
            ProtocolError: the step is not the client's next, or the tensor is not what it should be.
        """
        self._check_turn(message)
        return self._smashed(message)

    def open(
        self, message: Message, smashed: Tensor, features: Tensor, weights: dict[str, Tensor] | None = None
    ) -> None:
        """Keep a step open until the gradient of its features comes."""
        self.close(message)
        self._open[message.client] = OpenStep(message.round, message.step, smashed, features, weights or {})

    def close(self, message: Message) -> None:
        """Take no step of this client any more that is not later than this one."""
        self._last[message.client] = (message.round, message.step)

    def accept_gradient(self, message: Message) -> tuple[Tensor, OpenStep]:
        """Return the gradient of the features of an open step, and the step, which is open no more.

        Raises:
            ProtocolError: no such step is open, or the tensor is not what it should be.
        """
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
        return gradient, opened

    def accept_labelled(self, message: Message) -> tuple[Tensor, Tensor]:
        """Return the smashed data and the labels of a step that may be taken.

        Raises:
            ProtocolError: no labels were agreed, the step is not the client's next, or a tensor is not what it should
                be.
        """
        if self.loss is None:
            raise ProtocolError("this server takes no labels: it was set up U-shaped")
        smashed = self._smashed(message)
        labels = message.tensor("labels")
        if labels.dtype != torch.int64 or labels.shape != smashed.shape[:1]:
            raise ProtocolError(
                f"client {message.client} sent {labels.dtype} labels of shape {tuple(labels.shape)} for "
                f"{len(smashed)} windows"
            )
        self._check_turn(message)
        return smashed, labels

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        assert self.loss is not None
        return self.loss(logits, labels)

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

    def _run(self, smashed: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        try:
            features: Tensor = functional_call(self.trunk, weights, (smashed,)) if weights else self.trunk(smashed)
        except (RuntimeError, ValueError) as error:
            raise misfit(smashed, str(error)) from None
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
            raise overflow(message)
        if self.optimizer is not None:
            take_step(self.optimizer)
        return self._answer_gradient(gradient, message)


def refusal(message: Message | None, error: ProtocolError) -> bytes:
    """Return the answer to a message that is refused, or to bytes that are none."""
    if message is None:
        return encode(Message("error", "", text=str(error)))
    return encode(Message("error", message.client, message.round, message.step, text=str(error)))


def not_taken(message: Message) -> ProtocolError:
    """Return the error that a message is of a kind that no server takes."""
    return ProtocolError(f"a server does not take {message.kind} messages")


def misfit(smashed: Tensor, why: str) -> ProtocolError:
    """Return the error that smashed data do not fit the trunk."""
    return ProtocolError(
        f"the trunk cannot take smashed data of shape {tuple(smashed.shape)} and type {smashed.dtype}: {why}"
    )


def overflow(message: Message) -> ProtocolError:
    """Return the error that a step's gradients are not finite."""
    return ProtocolError(f"the step of client {message.client} overflows; the trunk was left as it was")


def check_labels(message: Message, labels: Tensor, n_outputs: int) -> None:
    """Refuse labels that name no class.

    Raises:
        ProtocolError: one lies outside 0 to ``n_outputs`` - 1.
    """
    if labels.min() < 0 or labels.max() >= n_outputs:
        raise ProtocolError(f"client {message.client} sent a label outside 0 to {n_outputs - 1}")


def check_floating(message: Message, name: str) -> Tensor:
    """Return a tensor of numbers that a client sent, checked.

    Raises:
        ProtocolError: it is not there, is not floating ``(b, ...)`` with at least one row, or is not finite.
    """
    tensor = message.tensor(name)
    shape = tensor.shape
    if len(shape) < 2 or not shape[0] or not tensor.is_floating_point():
        raise ProtocolError(
            f"client {message.client} sent {name} of shape {tuple(shape)} and type {tensor.dtype}; "
            "floating (b, n) or (b, c, t) with at least one row is needed"
        )
    if not is_finite(tensor):
        raise ProtocolError(f"client {message.client} sent {name} with NaN or infinity in it")
    return tensor


def _backward(root: Tensor, gradient: Tensor) -> None:
    """Do as ``root.backward(gradient)``, whose look at whether the two fit costs more than a message: here they do.

    The engine is private to torch; a torch that has it elsewhere is asked in public.
    """
    if _ENGINE is None:
        root.backward(gradient)
    else:
        _ENGINE((root,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor infinity.

    A NaN or infinity always shows in the sum of squares, which is one pass instead of four; only where that is not
    finite, as that of large numbers may be, is each number looked at. NumPy has the sum at half the cost of starting an
    operation of torch.
    """
    if tensor.dtype in _SUMMED and tensor.is_cpu:
        array = tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()
        if math.isfinite(np.vdot(array, array)):
            return True
    return bool(tensor.isfinite().all())


_SUMMED = (torch.float32, torch.float64)
_ENGINE: Any = getattr(getattr(Variable, "_execution_engine", None), "run_backward", None)
