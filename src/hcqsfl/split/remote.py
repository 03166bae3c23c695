"""The client's end of the cut: the server's half of the network as a module without parameters.

Training stays the ordinary PyTorch loop. The forward pass sends the smashed data and receives the features; the
backward pass sends the gradient of the features and receives that of the smashed data. The features come back as fresh
tensors made from bytes, so the client's autograd graph ends at the wire.

Source: Gupta & Raskar (2018), Distributed learning of deep neural network over multiple agents, algorithms 1-3;
Vepakomma et al. (2018), Split learning for health, section 3 (U-shaped configuration without label sharing).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.split.codecs.pair import PLAIN, CutCodec
from hcqsfl.split.message import Message, ProtocolError, decode, encode
from hcqsfl.split.transport import Transport


class RemoteError(RuntimeError):
    """The server refused a message; its words follow."""


class _Wire(nn.Module):
    def __init__(self, transport: Transport, client: str, codec: CutCodec | None = None) -> None:
        super().__init__()
        self.transport = transport
        self.client = client
        self.codec = codec or PLAIN
        self.round = 0
        self.step = 0

    def begin_round(self, number: int) -> None:
        """Count the steps of a round from 1."""
        self.round, self.step = number, 0

    def next_step(self) -> int:
        """Count a step, and return which it is."""
        # past nn.Module, which looks at whatever is set
        object.__setattr__(self, "step", self.step + 1)
        return self.step

    def tensors(self) -> dict[str, Tensor]:
        """Return what the wire remembers from turn to turn, as named tensors."""
        return self.codec.tensors()

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        self.codec.load_tensors(held)

    def ask(
        self,
        kind: str,
        expected: str,
        step: int,
        *,
        transport: Transport | None = None,
        text: str = "",
        **tensors: Tensor,
    ) -> Message:
        """Send one message and return the answer.

        Args:
            kind: of the message.
            expected: kind of the answer.
            step: that it belongs to.
            transport: another than the wire's own.
            text: which party speaks, where there are several.
            tensors: what it carries.

        Raises:
            RemoteError: the server answered with an error.
            ProtocolError: the answer is not the one that was asked for.
        """
        coded = self.codec.encode(tensors, training=kind != "evaluate")
        request = Message(kind, self.client, self.round, step, coded, text, self.codec.name)
        answer = decode((transport or self.transport)(encode(request)))
        if answer.kind == "error":
            raise RemoteError(f"the server refused a {kind} message of client {self.client}: {answer.text}")
        if (answer.kind, answer.client, answer.round, answer.step) != (expected, self.client, self.round, step):
            raise ProtocolError(
                f"client {self.client} asked for {expected} of round {self.round}, step {step}, and got "
                f"{answer.kind} of client {answer.client}, round {answer.round}, step {answer.step}"
            )
        return answer

    def evaluate(self, smashed: Tensor) -> Tensor:
        """Return ``(b, n_features)`` without opening a step."""
        return self.send_smashed(smashed, "evaluate", self.step)

    def send_smashed(self, smashed: Tensor, kind: str, step: int) -> Tensor:
        """Send smashed data and return the features."""
        return self.ask(kind, "features", step, smashed=smashed).tensor("features")


class RemoteTrunk(_Wire):
    """The trunk behind a wire, labels kept by the client (U-shaped).

    Maps smashed data ``(b, n_smashed)`` to features ``(b, n_features)``. In training a forward pass opens a step at the
    server and the backward pass closes it, upon which the server's optimiser has moved. Without gradients, it only
    evaluates.

    Args:
        transport: carries bytes to a ``TrunkServer``.
        client: who speaks.
        codec: makes what is sent smaller.

    Raises:
        RuntimeError: a second derivative is asked for (``create_graph=True``): it cannot cross the wire.
    """

    def forward(self, smashed: Tensor) -> Tensor:
        """Return the features ``(b, n_features)`` of smashed data ``(b, n_smashed)``."""
        if not torch.is_grad_enabled():
            return self.evaluate(smashed)
        self.next_step()
        features: Tensor = _Cross.apply(_differentiable(smashed), self)
        return features

    def send_gradient(self, gradient: Tensor, step: int) -> Tensor:
        """Send the gradient of the features and return that of the smashed data."""
        return self.ask("backward", "gradient", step, gradient=gradient).tensor("gradient")


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, smashed: Tensor, wire: RemoteTrunk) -> Tensor:
        ctx.wire, ctx.step = wire, wire.step
        return wire.send_smashed(smashed, "forward", wire.step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        _refuse_second_derivative()
        return ctx.wire.send_gradient(gradients[0], ctx.step), None


class RemoteLoss(_Wire):
    """The trunk, the head and the loss behind a wire: the client shares its labels (vanilla split learning).

    Maps smashed data ``(b, n_smashed)`` and labels ``(b,)`` to the loss, a scalar. One message there and one back: the
    server has taken its step before the client's backward pass begins, so that pass may only start from this loss with
    a gradient of one.

    Args:
        transport: carries bytes to a ``TrunkServer`` that has a loss.
        client: who speaks.
        codec: makes what is sent smaller.
    """

    def forward(self, smashed: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch, as the server computed it."""
        self.next_step()
        loss: Tensor = _Share.apply(_differentiable(smashed), labels, self)
        return loss

    def send_labelled(self, smashed: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Send smashed data and labels; return the gradient of the smashed data and the loss, a scalar."""
        answer = self.ask("train", "gradient", step, smashed=smashed, labels=labels)
        return answer.tensor("gradient"), answer.tensor("loss").reshape(())


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, smashed: Tensor, labels: Tensor, wire: RemoteLoss) -> Tensor:
        gradient, loss = wire.send_labelled(smashed, labels, wire.step)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        _refuse_second_derivative()
        if gradients[0].item() != 1.0:
            raise RuntimeError(
                f"the shared-label loss was multiplied by {gradients[0].item():g} before backward(), but the server "
                "has already taken its step; scale the learning rate instead"
            )
        return ctx.saved_tensors[0], None, None


def _differentiable(smashed: Tensor) -> Tensor:
    # the wire must be crossed backwards even when the front below is frozen: the trunk still learns
    return smashed if smashed.requires_grad else smashed.detach().requires_grad_()


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a second derivative was asked for (create_graph=True), but it does not cross the cut; use a local copy of "
            "the trunk instead"
        )
