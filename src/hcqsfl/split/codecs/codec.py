"""What every codec has in common: from one tensor to the tensors that travel for it, and back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

MAX_VALUES = 2**24
"""Most numbers that a codec decodes to, 64 MiB of float32: a short message may claim to stand for a huge tensor."""


class Codec(ABC):
    """Makes a tensor smaller for its way across the cut.

    Decoding needs nothing but the codec's name: what was chosen at the encoding end travels with the tensors. It trusts
    nothing in them, and allocates no more than ``MAX_VALUES`` numbers.

    Attributes:
        name: what the codec is called in a message.
    """

    name: str

    @abstractmethod
    def encode(self, name: str, tensor: Tensor, *, training: bool = True) -> dict[str, Tensor]:
        """Return what travels for the tensor called ``name``: under that name, and under ``name.something``.

        Args:
            name: ``smashed``, ``features`` or ``gradient``.
            tensor: what to send; it is left alone.
            training: False where nothing is learnt from it: then nothing is drawn at random and nothing remembered.

        Raises:
            ValueError: the codec cannot carry this tensor.
        """

    @abstractmethod
    def decode(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the tensor called ``name``, as near as the codec keeps it.

        Args:
            name: as in ``encode``.
            tensors: what came; there may be others among them.

        Raises:
            ValueError: what came was not made by this codec.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Return what the next ``encode`` depends on besides its tensor, for a checkpoint."""
        return {}

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken.

        Raises:
            ValueError: the tensors belong to another codec.
        """
        if held:
            raise ValueError(f"the checkpoint is of another codec than {self.name}, which keeps no {min(held)!r}")


def carried(codec: str, name: str, tensors: Mapping[str, Tensor], dtype: torch.dtype, ndim: int) -> Tensor:
    """Return one of the tensors that came, after a look at it.

    Raises:
        ValueError: it is absent, or of another type or number of dimensions.
    """
    if name not in tensors:
        held = ", ".join(sorted(tensors)) or "nothing"
        raise ValueError(f"{codec} needs the tensor {name!r}; what came holds {held}")
    tensor = tensors[name]
    if tensor.dtype != dtype or tensor.ndim != ndim:
        raise ValueError(
            f"{codec} needs {name!r} as {dtype} of {ndim} dimensions, and got {tensor.dtype} {tuple(tensor.shape)}"
        )
    return tensor


def check_size(codec: str, shape: tuple[int, ...]) -> None:
    """Refuse a tensor that is larger than any message.

    Raises:
        ValueError: it has more than ``MAX_VALUES`` numbers.
    """
    if math.prod(shape) > MAX_VALUES:
        raise ValueError(f"{codec} was to decode {' x '.join(map(str, shape))} numbers; at most {MAX_VALUES:,} are")


def check_float32(codec: str, name: str, tensor: Tensor, two_dimensional: bool = False) -> None:
    """Refuse a tensor that a lossy codec cannot carry.

    Raises:
        ValueError: it is not float32, not ``(b, n)`` where that is needed, or not finite.
    """
    if tensor.dtype != torch.float32:
        raise ValueError(f"{codec} carries float32, and {name} is {tensor.dtype}; choose the codec none")
    if two_dimensional and tensor.ndim != 2:
        raise ValueError(f"{codec} carries (b, n), and {name} is {tuple(tensor.shape)}; choose the codec none")
    if not tensor.isfinite().all():
        raise ValueError(f"{codec} cannot carry {name}: it holds NaN or infinity")
