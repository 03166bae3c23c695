"""What a rule keeps from round to round."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hcqsfl.federated.aggregation.flat import Layout


class Memory:
    """Vectors that a rule keeps from round to round, named tensors in a checkpoint.

    Args:
        rule: whose they are.
        names: what they are: ``"momentum"``.
    """

    def __init__(self, rule: str, names: Iterable[str]) -> None:
        self.rule = rule
        self.names = tuple(names)
        self._layout: Layout | None = None
        self._held: dict[str, Tensor] = {}

    def recall(self, layout: Layout, starts: Sequence[float] | None = None) -> list[Tensor]:
        """Return the vectors, ``(n_values,)`` float64 each; in the first round filled with ``starts``, or zeros.

        Raises:
            ValueError: the vectors belong to a state with other tensors.
        """
        if self._layout is None:
            size = sum(math.prod(shape) for shape in layout.shapes.values())
            return [torch.full((size,), start, dtype=torch.float64) for start in starts or [0.0] * len(self.names)]
        if dict(self._layout.shapes) != dict(layout.shapes):
            raise ValueError(
                f"{self.rule} keeps its {' and '.join(self.names)} for other tensors than those of this state; "
                "each part of a network needs a rule of its own"
            )
        own = {name: self._layout.unflatten(vector) for name, vector in self._held.items()}
        return [layout.flatten(own[name]) for name in self.names]

    def keep(self, layout: Layout, *vectors: Tensor) -> None:
        """Keep the vectors for the next round."""
        self._layout = layout
        self._held = dict(zip(self.names, vectors, strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """Return what is kept as ``{"momentum/front.weight": ...}``; nothing before the first round."""
        if self._layout is None:
            return {}
        return {
            f"{name}/{tensor}": part.clone()
            for name, vector in self._held.items()
            for tensor, part in self._layout.unflatten(vector).items()
        }

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken.

        Raises:
            ValueError: the tensors are not what this rule keeps.
        """
        if not held:
            self._layout, self._held = None, {}
            return
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in self.names}
        for key, tensor in held.items():
            name, slash, inner = key.partition("/")
            if name not in parts or not slash or not tensor.is_floating_point():
                raise ValueError(f"the checkpoint is of another rule than {self.rule}: it holds {key!r}")
            parts[name][inner] = tensor
        layouts = [Layout.of(part) for part in parts.values()]
        if any(dict(layout.shapes) != dict(layouts[0].shapes) for layout in layouts):
            raise ValueError(f"the checkpoint of {self.rule} holds {' and '.join(self.names)} of different tensors")
        self.keep(layouts[0], *(layouts[0].flatten(part) for part in parts.values()))
