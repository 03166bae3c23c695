"""Codecs that keep a few numbers of each row and send where they were; the others come back as zero."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hcqsfl.split.codecs.codec import Codec, carried, check_float32, check_size
from hcqsfl.split.codecs.quantised import generator_tensors, load_generator


class TopK(Codec):
    """Keeps the k largest magnitudes of each row of ``(b, n)``; of a tie, the one first in the row.

    ``(b, k)`` values travel as float32, and as many places in the smallest integer type that holds n.

    Args:
        share: k as a share of n, above 0 and at most 1, rounded up.

    Source: Zheng et al. (2023), Reducing communication for split learning by randomized top-k sparsification,
    IJCAI, section 3.
    """

    name = "topk"

    def __init__(self, share: float = 0.1) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"{self.name} was given a share of {share:g}; it must be above 0 and at most 1")
        self.share = share

    def encode(self, name: str, tensor: Tensor, *, training: bool = True) -> dict[str, Tensor]:
        """Return values under ``name``, places under ``name.index`` and n under ``name.width``."""
        check_float32(self.name, name, tensor, two_dimensional=True)
        x = tensor.detach()
        n = x.shape[1]
        # a share of 0.1 of 30 is 3, not the 4 that the last bit of a float makes it
        k = min(n, math.ceil(round(self.share * n, 9)))
        kept = (self._draw(x, k) if training else largest(x, k)).sort(dim=1).values
        return {
            name: x.gather(1, kept),
            f"{name}.index": kept.to(_index_type(n)),
            f"{name}.width": torch.tensor([n], dtype=torch.int32),
        }

    def _draw(self, x: Tensor, k: int) -> Tensor:
        return largest(x, k)

    def decode(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return ``(b, n)`` float32."""
        width = carried(self.name, f"{name}.width", tensors, torch.int32, 1)
        values = carried(self.name, name, tensors, torch.float32, 2)
        if len(width) != 1 or int(width[0]) < values.shape[1]:
            raise ValueError(f"{self.name} got {values.shape[1]} numbers a row in {name!r} for a width of {width[:2]}")
        n = int(width[0])
        check_size(self.name, (len(values), n))
        index = carried(self.name, f"{name}.index", tensors, _index_type(n), 2).to(torch.int64)
        if index.shape != values.shape:
            raise ValueError(f"{self.name} got {tuple(values.shape)} numbers and {tuple(index.shape)} places")
        if not ((index >= 0) & (index < n)).all() or not (index.diff(dim=1) > 0).all():
            raise ValueError(f"{self.name} got places in {name!r} that are not ascending within 0 to {n - 1}")
        if not values.isfinite().all():
            raise ValueError(f"{self.name} got NaN or infinity in {name!r}")
        return values.new_zeros(len(values), n).scatter_(1, index, values)


class RandTopK(TopK):
    """Keeps k numbers of each row, mostly the largest: the others are drawn with a small probability.

    k places are drawn one after the other without replacement; the k largest magnitudes share a weight of 1 - alpha
    between them, all others a weight of alpha. Outside training it is ``topk``.

    Args:
        share: k as a share of n, above 0 and at most 1, rounded up.
        alpha: weight of the places that are not among the largest, in [0, 1).
        generator: draws; needed to encode in training.

    Source: Zheng et al. (2023), Reducing communication for split learning by randomized top-k sparsification,
    IJCAI, section 4.
    """

    name = "randtopk"

    def __init__(self, share: float = 0.1, alpha: float = 0.1, generator: torch.Generator | None = None) -> None:
        super().__init__(share)
        if not 0 <= alpha < 1:
            raise ValueError(f"randtopk was given alpha = {alpha:g}; it must be at least 0 and below 1")
        self.alpha = alpha
        self.generator = generator

    def _draw(self, x: Tensor, k: int) -> Tensor:
        if self.generator is None:
            raise ValueError("randtopk draws at random and was given no generator")
        n = x.shape[1]
        if k == n or not len(x) or self.alpha == 0:
            return largest(x, k)
        weights = x.new_full(x.shape, self.alpha / (n - k))
        weights.scatter_(1, largest(x, k), (1 - self.alpha) / k)
        return torch.multinomial(weights, k, generator=self.generator)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the generator, where there is one."""
        return generator_tensors(self.generator)

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        load_generator(self.name, self.generator, held)


def largest(x: Tensor, k: int) -> Tensor:
    """Return the places ``(b, k)`` of the largest magnitudes in each row of ``x (b, n)``."""
    # topk leaves open which of equal numbers it takes
    return x.abs().sort(dim=1, descending=True, stable=True).indices[:, :k]


def _index_type(n: int) -> torch.dtype:
    return torch.uint8 if n <= 2**8 else torch.int16 if n <= 2**15 else torch.int32
