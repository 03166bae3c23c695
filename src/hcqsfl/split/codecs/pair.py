"""What one end of the cut codes with: activations one way, gradients perhaps another."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.split.codecs.casting import Plain
from hcqsfl.split.codecs.codec import Codec

CODED = ("smashed", "features", "gradient")


class CutCodec:
    """The codec of one client at one end of the cut.

    Args:
        activations: for ``smashed`` and ``features``.
        gradients: for ``gradient``; it may remember what it lost (``ErrorFeedback``).

    Attributes:
        name: what the codec is called in a message.

    Raises:
        ValueError: the two decode differently.
    """

    def __init__(self, activations: Codec | None = None, gradients: Codec | None = None) -> None:
        self.activations = activations or Plain()
        self.gradients = gradients or self.activations
        self.name = self.activations.name
        if self.activations.name != self.gradients.name:
            raise ValueError(
                f"one message names one codec, but activations are coded by {self.activations.name} and gradients by "
                f"{self.gradients.name}"
            )

    def encode(self, tensors: Mapping[str, Tensor], *, training: bool) -> Mapping[str, Tensor]:
        """Return what travels for some tensors."""
        if self.name == Plain.name:
            return tensors
        coded: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if name in CODED:
                codec = self.gradients if name == "gradient" else self.activations
                coded |= codec.encode(name, tensor, training=training)
            else:
                coded[name] = tensor
        return coded

    def tensors(self) -> dict[str, Tensor]:
        """Return what it remembers, as named tensors."""
        held = {f"activations/{name}": tensor for name, tensor in self.activations.tensors().items()}
        if self.gradients is not self.activations:
            held |= {f"gradients/{name}": tensor for name, tensor in self.gradients.tensors().items()}
        return held

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        for codec, prefix in ((self.activations, "activations/"), (self.gradients, "gradients/")):
            own = {name[len(prefix) :]: tensor for name, tensor in held.items() if name.startswith(prefix)}
            if own:
                codec.load_tensors(own)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, codec: Codec, name: str) -> Tensor:
        return codec.decode(name, codec.encode(name, tensor, training=False))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


class Passage(nn.Module):
    """What a tensor looks like after its way across the cut: coded and decoded, nothing drawn, nothing remembered.

    Rounding has no slope, and what was left out has none either. A gradient goes back as if nothing had been coded, so
    that a coded cut is no hiding place from those who search by gradients.

    Args:
        codec: what it is coded by.
        name: ``smashed`` or ``features``.

    Source: Athalye, Carlini & Wagner (2018), Obfuscated gradients give a false sense of security, section 4.1.1
    (backward pass differentiable approximation; the identity, as in the straight-through estimator of Bengio et al.
    2013).
    """

    def __init__(self, codec: Codec, name: str) -> None:
        super().__init__()
        self.codec = codec
        self.name = name

    def forward(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` as the other end reads it."""
        passed: Tensor = _StraightThrough.apply(tensor, self.codec, self.name)
        return passed


PLAIN = CutCodec()
"""Carries everything as it is, and remembers nothing: one for all."""
