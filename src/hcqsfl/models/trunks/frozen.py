"""The control that asks whether training the circuit helps at all."""

from torch import nn

from hcqsfl.quantum.circuit import Circuit
from hcqsfl.quantum.layer import QuantumLayer


def frozen_middle(circuit: Circuit, backend: str) -> nn.Module:
    """Return the quantum layer with its weights as drawn: a random feature map that nothing trains."""
    return QuantumLayer(circuit, backend=backend).requires_grad_(False)
