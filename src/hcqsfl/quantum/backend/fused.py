"""Plain PyTorch on any of its devices: the operations of ``plan``, and the backward pass of ``adjoint``.

Where a gradient is to be differentiated again, and under ``torch.func``, PyTorch differentiates the operations
themselves; the own backward pass launches a third as many.
"""

from functools import lru_cache

import torch
from torch import Tensor

from hcqsfl.quantum.backend import Evaluate
from hcqsfl.quantum.backend.adjoint import Adjoint
from hcqsfl.quantum.backend.plan import Plan
from hcqsfl.quantum.circuit import Circuit, check_finite


class Fused(Plan):
    """A plan with its own backward pass."""

    def values(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the expectation values ``(b, n_observables)``."""
        sampled, amplitudes, shared = self.arguments(inputs, weights)
        left, right = self.first(sampled, amplitudes, shared)
        if torch._C._are_functorch_transforms_active() or not self.lowered.levels:
            return self.measure(self.evolve(left, right, sampled, shared))
        values: Tensor = Adjoint.apply(self, left, right, sampled, shared)
        return values


@lru_cache(maxsize=64)
def fused_of(circuit: Circuit, keep_last: bool = False) -> Fused:
    """Return the circuit's plan; a circuit is planned once."""
    return Fused(circuit, keep_last)


def build(circuit: Circuit) -> Evaluate:
    """Return the evaluation in plain PyTorch."""
    plan = fused_of(circuit)

    def evaluate(inputs: Tensor, weights: Tensor) -> Tensor:
        if not torch._C._are_functorch_transforms_active():  # no number can be looked at inside torch.func
            check_finite(circuit, inputs, weights)
        return plan.values(inputs, weights)

    return evaluate


def per_sample(circuit: Circuit, inputs: Tensor, weights: Tensor, slopes: Tensor) -> Tensor:
    """Return each sample's gradient of ``(values * slopes).sum()`` to the weights, ``(b, *weight_shape)``."""
    values = fused_of(circuit).values

    def loss(weights: Tensor, sample: Tensor, slope: Tensor) -> Tensor:
        return (values(sample[None], weights)[0] * slope).sum()

    gradients: Tensor = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights.detach(), inputs, slopes)
    return gradients
