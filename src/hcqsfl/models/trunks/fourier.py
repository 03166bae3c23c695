"""The control that asks whether any fixed random feature map would do."""

import math

import torch
from torch import Tensor, nn


class FourierMiddle(nn.Module):
    """Random Fourier features of the circuit's width: as many cosines as it has observables, none of them trained.

    Feature ``j`` is ``cos(w_j . angles + b_j)`` with ``w_j`` normal of variance ``1 / n_inputs`` in each entry and
    ``b_j`` uniform over a turn: up to a factor, the features of a Gaussian kernel whose width is ``sqrt(n_inputs)``
    radians, about the distance at which angles near zero are still alike. A circuit that encodes angles is itself a
    sum of few such cosines (Schuld et al. 2021), so this is what the circuit has to beat.

    Args:
        n_inputs: angles.
        n_outputs: features; as many as the circuit has observables.

    Source: Rahimi & Recht (2007), Random features for large-scale kernel machines, algorithm 1; Landman et al. (2022),
    Classically approximating variational quantum machine learning with random Fourier features, for the comparison.
    """

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(n_inputs, n_outputs) / math.sqrt(n_inputs))
        self.register_buffer("phases", 2 * math.pi * torch.rand(n_outputs))
        self.frequencies: Tensor
        self.phases: Tensor

    def forward(self, angles: Tensor) -> Tensor:
        """Return ``(b, n_outputs)`` within [-1, 1] of angles ``(b, n_inputs)``."""
        return torch.cos(angles @ self.frequencies + self.phases)
