"""The control that asks whether it has to be quantum."""

import math

import torch
from torch import Tensor, nn


class ClassicalMiddle(nn.Module):
    """A classical layer that has, weight for weight, the shape of the circuit whose place it takes.

    A circuit with ``L`` layers has ``P`` weights in all. Here each of ``L`` layers updates ``n`` units from themselves
    and their neighbours round the ring, as an entangling layer does, and the layers together hold exactly ``P`` trained
    numbers: unit ``i`` of layer ``l`` becomes ``tanh(sum_k w[l, k, i] * basis_k)`` with the basis ``h_i``,
    ``h_(i+r)``, ``1``, ``h_(i-r)``, ..., and the range ``r`` growing with the layer as in the strongly entangling
    circuit. Outputs lie in (-1, 1), as expectations do.

    Args:
        weight_shape: shape of the circuit's weights, its layers first.
        n_units: width, the number of features that the circuit reads.
        n_outputs: how many units are read out, the first ones; as many as the circuit has observables.

    Raises:
        ValueError: more outputs than units are asked for.

    Source: the range rule is that of Schuld et al. (2020), Circuit-centric quantum classifiers, figure 4.
    """

    def __init__(self, weight_shape: tuple[int, ...], n_units: int, n_outputs: int) -> None:
        super().__init__()
        if n_outputs > n_units:
            raise ValueError(f"{n_outputs} outputs were asked of a classical layer of {n_units} units")
        self.n_outputs = n_outputs
        self.n_units = n_units
        n_weights = math.prod(weight_shape)
        n_layers = weight_shape[0] if len(weight_shape) > 1 else 1
        self.sizes = [len(part) for part in torch.arange(n_weights).chunk(n_layers)] if n_weights else []
        weights = 0.1 * torch.randn(n_weights)
        # each layer starts near the identity, so that depth does not dim the signal
        first = 0
        for size in self.sizes:
            weights[first : first + min(n_units, size)] += 1.0
            first += size
        self.weights = nn.Parameter(weights)

    def forward(self, angles: Tensor) -> Tensor:
        """Return ``(b, n_outputs)`` within (-1, 1) of angles ``(b, n_units)`` within (-pi, pi)."""
        return self.updated(angles, self.weights)

    def updated(self, angles: Tensor, weights: Tensor) -> Tensor:
        """Return ``(..., b, n_outputs)`` of angles ``(..., b, n_units)`` by weights ``(..., n_weights)``."""
        hidden = angles / math.pi
        rows = weights.unsqueeze(-2)  # one set of weights for all windows
        for layer, own in enumerate(rows.split(self.sizes, dim=-1) if self.sizes else ()):
            reach = layer % max(self.n_units - 1, 1) + 1
            total = torch.zeros_like(hidden)
            for k, row in enumerate(own.split(self.n_units, dim=-1)):  # one row of n weights for each basis function
                whole = nn.functional.pad(row, (0, self.n_units - row.shape[-1]))
                total = total + whole * self._basis(hidden, k, reach)
            hidden = total.tanh()
        return hidden[..., : self.n_outputs]

    @staticmethod
    def _basis(hidden: Tensor, k: int, reach: int) -> Tensor:
        if k == 0:
            return hidden
        if k == 2:
            return torch.ones_like(hidden)
        distance = reach * ((k + 1) // 2)
        return hidden.roll(-distance if k % 2 else distance, dims=-1)
