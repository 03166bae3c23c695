"""Every circuit of the registry, by every backend of ours, against PennyLane's default.qubit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hcqsfl.quantum.circuit import Circuit
from hcqsfl.quantum.circuits import CIRCUITS, make
from hcqsfl.quantum.layer import QuantumLayer

OURS = ("fused", "compiled")
OPTIONS = {
    "amplitude": ({}, {"n_inputs": 3}),
    "basic_entangler": ({}, {"embedding": "X", "rotation": "Z"}),
    "data_reuploading": ({}, {"embedding": "X"}, {"trainable_frequencies": True}),
    "hardware_efficient": ({}, {"embedding": "Z"}),
    "hqsl": ({}, {"n_inputs": 1}, {"n_inputs": 9}),
    "iqp": ({}, {"map": "zz", "pairs": "neighbours"}, {"repeats": 2}),
    "strongly_entangling": ({}, {"embedding": "X"}, {"observables": ["X0", "Z0 Y1", "Y1"]}),
    "tree": ({}, {"keep": 2, "embedding": "X"}),
}
TOLERANCE = {torch.complex128: 1e-10, torch.complex64: 1e-5}


def step(circuit: Circuit, backend: str, dtype: torch.dtype, batch: int) -> list[torch.Tensor]:
    """Values, and the gradients of their weighted sum to inputs and weights, in double precision."""
    generator = torch.Generator().manual_seed(batch)
    # numbers that single precision holds, so that both precisions are asked the same
    weights = torch.rand(circuit.weight_shape, generator=generator) * 6
    inputs = torch.randn(batch, circuit.n_inputs, generator=generator)
    slopes = torch.randn(batch, circuit.n_observables, generator=generator)
    layer = QuantumLayer(circuit, backend, dtype)
    with torch.no_grad():
        layer.weights.copy_(weights)
    inputs = inputs.to(layer.weights.dtype).requires_grad_()
    values = layer(inputs)
    gradients = torch.autograd.grad((values * slopes.to(values.dtype)).sum(), [inputs, layer.weights])
    return [found.detach().double() for found in (values, *gradients)]


def largest_difference(circuit: Circuit, backend: str, dtype: torch.dtype, batch: int) -> float:
    """The largest difference, relative to the largest number where that is above 1."""
    ours, theirs = step(circuit, backend, dtype, batch), step(circuit, "pennylane", torch.complex128, batch)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in zip(ours, theirs, strict=True))


def test_every_circuit_is_compared() -> None:
    assert set(OPTIONS) == set(CIRCUITS)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
@pytest.mark.parametrize("backend", OURS)
@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, each in OPTIONS.items() for options in each], ids=str
)
def test_values_and_gradients_are_pennylanes(name: str, options: dict, backend: str, dtype: torch.dtype) -> None:
    n_qubits = 2 if name == "hqsl" else 3
    circuit = make(name, n_qubits, 2, **options)
    assert largest_difference(circuit, backend, dtype, batch=n_qubits) < TOLERANCE[dtype]


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(CIRCUITS)),
    n_qubits=st.integers(1, 6),
    n_layers=st.integers(1, 3),
    batch=st.integers(1, 20),
    backend=st.sampled_from(OURS),
)
def test_any_shape_is_pennylanes(name: str, n_qubits: int, n_layers: int, batch: int, backend: str) -> None:
    n_qubits = {"hqsl": 2, "tree": max(n_qubits, 2)}.get(name, n_qubits)
    assert largest_difference(make(name, n_qubits, n_layers), backend, torch.complex128, batch) < 1e-10


@pytest.mark.parametrize("backend", OURS)
@pytest.mark.parametrize("n_qubits", [7, 8, 9])
def test_large_registers_are_pennylanes(n_qubits: int, backend: str) -> None:
    circuit = make("strongly_entangling", n_qubits, 3)
    assert largest_difference(circuit, backend, torch.complex128, 5) < 1e-10
    assert largest_difference(circuit, backend, torch.complex64, n_qubits) < 1e-5


@pytest.mark.parametrize("backend", ["pennylane", *OURS])
def test_a_batch_is_its_samples_one_by_one(backend: str) -> None:
    layer = QuantumLayer(make("iqp", 3, 1), backend, torch.complex128)
    inputs = torch.randn(3, 3, dtype=torch.float64)
    alone = torch.cat([layer(sample[None]) for sample in inputs])
    assert (layer(inputs) - alone).abs().max() < 1e-12


@pytest.mark.parametrize("backend", OURS)
def test_the_number_of_threads_changes_no_bit(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hcqsfl.quantum.backend.compiled.THREADED_FROM", 1)
    circuit, threads = make("strongly_entangling", 5, 2), torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(step(circuit, backend, torch.complex64, 70))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))
