"""A circuit as a layer of a network."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.quantum import backend as backends
from hcqsfl.quantum.circuit import Circuit, check_memory, check_width
from hcqsfl.registry import lookup

REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}
"""The real dtype of a state's: that of weights, angles and expectation values."""

CHOICES = ("auto", *backends.BACKENDS)


class QuantumLayer(nn.Module):
    """Expectation values of a circuit, differentiable to its inputs and weights.

    The weights are one ``nn.Parameter`` called ``weights`` of the circuit's ``weight_shape``, drawn uniformly from
    ``weight_range`` by torch's global generator. The angles are used as they come; rotations repeat after 2 pi, so
    bound what feeds them (``pi * tanh``) unless aliasing is wanted.

    Args:
        circuit: what to evaluate.
        backend: a key of ``hcqsfl.quantum.backend.BACKENDS``, or ``"auto"`` for the fastest that runs here.
        dtype: of the states: ``torch.complex64`` or ``torch.complex128``.
        weight_range: from where to where the weights are drawn, in radians.

    Shape:
        ``(b, n_inputs)`` to ``(b, n_observables)``, of the inputs' dtype and device.

    Raises:
        ValueError: the backend is unknown or cannot run here, or ``dtype`` is not complex.
    """

    def __init__(
        self,
        circuit: Circuit,
        backend: str = "auto",
        dtype: torch.dtype = torch.complex64,
        weight_range: tuple[float, float] = (0.0, 2 * math.pi),
    ) -> None:
        super().__init__()
        if dtype not in REAL:
            raise ValueError(f"the states of a quantum layer are torch.complex64 or torch.complex128, not {dtype}")
        lookup("quantum backend", dict.fromkeys(CHOICES), backend)
        self.circuit, self.backend, self.dtype = circuit, backend, dtype
        self.weights = nn.Parameter(torch.empty(circuit.weight_shape, dtype=REAL[dtype]).uniform_(*weight_range))
        self._evaluations: dict[str, backends.Evaluate] = {}
        if backend != "auto":
            self._evaluation(backend)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the expectation values ``(b, n_observables)`` for angles or amplitudes ``(b, n_inputs)``.

        Raises:
            ValueError: the width is wrong, the states do not fit into memory, or a number is NaN or infinite.
        """
        circuit, weights = self.circuit, self.weights
        check_width(circuit, inputs)
        check_memory(circuit, inputs.shape[0], self.dtype)
        if not inputs.shape[0]:
            return inputs.new_zeros(0, circuit.n_observables)
        evaluate, dtype = self._evaluation(self.backend_for(inputs)), inputs.dtype
        if dtype == weights.dtype:
            return evaluate(inputs, weights)
        return evaluate(inputs.to(weights.dtype), weights).to(dtype)

    def backend_for(self, inputs: Tensor) -> str:
        """Return the backend that evaluates such inputs: what ``"auto"`` stands for here, or the one asked for."""
        if self.backend != "auto":
            return self.backend
        return "compiled" if inputs.is_cpu and not backends.missing("compiled") else "fused"

    def per_sample_gradients(self, inputs: Tensor, slopes: Tensor) -> Tensor:
        """Return the gradient to the weights of each sample, as differential privacy clips it.

        PennyLane has none for a batch, so the fused operations stand in for it.

        Args:
            inputs: ``(b, n_inputs)``, what the layer was given.
            slopes: ``(b, n_observables)``, the gradient that came back to its output.

        Returns:
            ``(b, *weight_shape)``; their sum is what ``backward`` adds to ``weights.grad``.
        """
        name = self.backend_for(inputs)
        per_sample = backends.load("fused" if name == "pennylane" else name).per_sample
        dtype = self.weights.dtype
        gradients: Tensor = per_sample(self.circuit, inputs.to(dtype), self.weights, slopes.to(dtype))
        return gradients

    def extra_repr(self) -> str:
        """Return the circuit's name and size for ``print``."""
        c = self.circuit
        return f"{c.name}, n_qubits={c.n_qubits}, n_layers={c.n_layers}, backend={self.backend}"

    def _evaluation(self, backend: str) -> backends.Evaluate:
        if backend not in self._evaluations:
            self._evaluations[backend] = backends.build(backend, self.circuit)
        return self._evaluations[backend]

    def __getstate__(self) -> dict[str, Any]:
        # evaluations hold compiled and foreign objects; a copy builds its own
        return {**super().__getstate__(), "_evaluations": {}}
