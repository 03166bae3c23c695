"""Codecs that keep every number as one of a few equally spaced levels, spaced anew for each column and batch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hcqsfl.split.codecs.codec import Codec, carried, check_float32, check_size


class _Quantised(Codec):
    """Keeps ``(b, n)`` as whole multiples of one scale a column.

    The scale of a column is its largest magnitude over the number of levels on either side of zero, so zero stays
    zero and nothing is cut off. It travels as 4 bytes a column.

    Args:
        stochastic: round up or down at random, so that a number is kept on average; else to the nearest level.
        generator: draws the rounding; needed to encode with ``stochastic``.

    Source: Jacob et al. (2018), Quantization and training of neural networks for efficient integer-arithmetic-only
    inference, section 2.1, with zero point 0; Alistarh et al. (2017), QSGD, section 3.1, for stochastic rounding.
    """

    levels: int

    def __init__(self, stochastic: bool = False, generator: torch.Generator | None = None) -> None:
        self.stochastic = stochastic
        self.generator = generator

    def encode(self, name: str, tensor: Tensor, *, training: bool = True) -> dict[str, Tensor]:
        """Return the levels of the numbers under ``name`` and the scales ``(n,)`` under ``name.scale``."""
        check_float32(self.name, name, tensor, two_dimensional=True)
        if not len(tensor):
            raise ValueError(f"{self.name} cannot carry {name}: it has no rows")
        x = tensor.detach()
        scale = x.abs().amax(dim=0) / self.levels
        # the largest numbers of all would come back as infinity after rounding
        scale = scale.clamp(max=torch.finfo(torch.float32).max / self.levels * (1 - 2**-22))
        multiples = x / torch.where(scale > 0, scale, 1.0)
        rounded = self._at_random(multiples) if self.stochastic and training else multiples.round()
        return self._pack(name, rounded.clamp(-self.levels, self.levels)) | {f"{name}.scale": scale}

    def _at_random(self, multiples: Tensor) -> Tensor:
        if self.generator is None:
            raise ValueError(f"{self.name} with stochastic rounding draws at random and was given no generator")
        return (multiples + torch.rand(multiples.shape, generator=self.generator)).floor()

    def decode(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return ``(b, n)`` float32."""
        scale = carried(self.name, f"{name}.scale", tensors, torch.float32, 1)
        if not (scale.isfinite() & (scale >= 0)).all():
            raise ValueError(f"{self.name} got a scale in {name!r} that is negative or not finite")
        codes = self._unpack(name, tensors, len(scale))
        decoded = codes * scale
        if not decoded.isfinite().all():
            raise ValueError(f"{self.name} got a scale in {name!r} so large that numbers overflow")
        return decoded

    def _pack(self, name: str, codes: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def _unpack(self, name: str, tensors: Mapping[str, Tensor], n: int) -> Tensor:
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the generator, where there is one."""
        return generator_tensors(self.generator)

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        load_generator(self.name, self.generator, held)


class Int8(_Quantised):
    """A quarter of the bytes: levels from -127 to 127."""

    name = "int8"
    levels = 127

    def _pack(self, name: str, codes: Tensor) -> dict[str, Tensor]:
        return {name: codes.to(torch.int8)}

    def _unpack(self, name: str, tensors: Mapping[str, Tensor], n: int) -> Tensor:
        codes = carried(self.name, name, tensors, torch.int8, 2)
        check_size(self.name, tuple(codes.shape))
        if codes.shape[1] != n:
            raise ValueError(f"{self.name} got {codes.shape[1]} columns in {name!r} and {n} scales")
        if (codes == -128).any():
            raise ValueError(f"{self.name} got a level of -128 in {name!r}; levels are -127 to 127")
        return codes


class Int4(_Quantised):
    """An eighth of the bytes: levels from -7 to 7, two in a byte, the column of even place in the lower half."""

    name = "int4"
    levels = 7

    def _pack(self, name: str, codes: Tensor) -> dict[str, Tensor]:
        halves = codes.to(torch.int16) + 8  # 1 to 15
        if halves.shape[1] % 2:
            halves = torch.nn.functional.pad(halves, (0, 1), value=8)
        return {name: (halves[:, 0::2] | halves[:, 1::2] << 4).to(torch.uint8)}  # (b, ceil(n / 2))

    def _unpack(self, name: str, tensors: Mapping[str, Tensor], n: int) -> Tensor:
        packed = carried(self.name, name, tensors, torch.uint8, 2)
        check_size(self.name, (len(packed), n))
        if packed.shape[1] != (n + 1) // 2:
            raise ValueError(f"{self.name} got {packed.shape[1]} bytes a row in {name!r} for {n} scales")
        halves = torch.stack([packed & 15, packed >> 4], dim=2).reshape(len(packed), 2 * packed.shape[1])
        if (halves == 0).any() or (halves[:, n:] != 8).any():
            raise ValueError(f"{self.name} got a level of -8 in {name!r}, or more levels than columns")
        return halves[:, :n].to(torch.int8) - 8


def generator_tensors(generator: torch.Generator | None) -> dict[str, Tensor]:
    """Return the state of a generator as ``{"generator": ...}``, nothing without one."""
    return {} if generator is None else {"generator": generator.get_state()}


def load_generator(codec: str, generator: torch.Generator | None, held: Mapping[str, Tensor]) -> None:
    """Set a generator to where ``generator_tensors`` was taken.

    Raises:
        ValueError: the tensors hold something else, or lack the generator.
    """
    if held.keys() != generator_tensors(generator).keys():
        raise ValueError(f"the checkpoint is of another codec than {codec}: it holds {', '.join(held) or 'nothing'}")
    if generator is not None:
        generator.set_state(held["generator"])
