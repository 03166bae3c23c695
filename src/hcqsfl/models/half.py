"""Some of a network's parts, as one module."""

from torch import Tensor, nn


class Half(nn.Module):
    """Some of a network's children, under the names they have there, so that the halves' states make up the whole's."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        """Pass ``x`` through the children in order."""
        for child in self._modules.values():  # children() looks for those that are there twice
            assert child is not None
            x = child(x)
        return x
