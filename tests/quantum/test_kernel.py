import math

import numpy as np
import pennylane as qml
import pytest
import torch
from sklearn.svm import SVC, OneClassSVM

from hcqsfl.quantum.backend.lowering import normalised
from hcqsfl.quantum.backend.pennylane import apply as queue
from hcqsfl.quantum.circuits import CIRCUITS, make
from hcqsfl.quantum.kernel import Nystroem, QuantumKernel, alignment, fidelity, projected, train_alignment
from hcqsfl.quantum.states import bloch, gate_matrix, reduced, states, states_by_weights


def circuit_of(name: str):
    return make(name, 2 if name == "hqsl" else 3, 2)


def drawn(circuit, batch: int = 4):
    torch.manual_seed(batch)
    inputs = torch.randn(batch, circuit.n_inputs, dtype=torch.float64)
    return inputs, torch.rand(circuit.weight_shape, dtype=torch.float64) * 6


def pennylanes_state(circuit, sample: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
    @qml.qnode(qml.device("default.qubit", wires=circuit.n_qubits), interface="torch")
    def run():
        if circuit.start == "amplitudes":
            qml.StatePrep(normalised(circuit, sample), wires=range(circuit.n_qubits))
        for gate in circuit.gates:
            queue(gate, sample, weights.reshape(-1))
        return qml.state()

    return run().numpy()


@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_states_are_pennylanes_phase_included(name: str) -> None:
    circuit = circuit_of(name)
    inputs, weights = drawn(circuit)
    found = states(circuit, inputs, weights).numpy()
    for sample, state in zip(inputs, found, strict=True):
        np.testing.assert_allclose(state, pennylanes_state(circuit, sample, weights), atol=1e-12)


def test_states_with_own_weights_are_those_one_by_one() -> None:
    circuit = circuit_of("data_reuploading")
    inputs, _ = drawn(circuit)
    weights = torch.rand(len(inputs), *circuit.weight_shape, dtype=torch.float64)
    found = states_by_weights(circuit, inputs, weights)
    for i in range(len(inputs)):
        overlap = (found[i].conj() * states(circuit, inputs[i : i + 1], weights[i])[0]).sum().abs()
        assert abs(overlap - 1) < 1e-12


@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_gate_matrices_are_pennylanes(name: str) -> None:
    circuit = circuit_of(name)
    inputs, weights = drawn(circuit, 1)
    for gate in circuit.gates:
        angles = [a.value(inputs, weights.reshape(-1)) for a in gate.angles]
        from hcqsfl.quantum.backend.pennylane import OPERATIONS

        theirs = qml.matrix(OPERATIONS[gate.name](*(float(a) for a in angles), wires=list(gate.wires)))
        ours = gate_matrix(gate, inputs, weights.reshape(-1)).reshape(theirs.shape)
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)


def test_reduced_states_are_pennylanes_and_bloch_vectors_are_expectations() -> None:
    circuit = circuit_of("strongly_entangling")
    found = states(circuit, *drawn(circuit))
    for wire in range(3):
        theirs = qml.math.reduce_statevector(found.numpy(), indices=[wire])
        np.testing.assert_allclose(reduced(found)[:, wire].numpy(), theirs, atol=1e-12)
        for axis, pauli in enumerate((qml.PauliX, qml.PauliY, qml.PauliZ)):
            operator = qml.matrix(pauli(wire), wire_order=range(3))
            vectors = found.numpy()
            expected = np.einsum("bi,ij,bj->b", vectors.conj(), operator, vectors).real
            np.testing.assert_allclose(bloch(found)[:, wire, axis].numpy(), expected, atol=1e-12)


def test_the_fidelity_kernel_is_pennylanes_pairwise_one() -> None:
    circuit = make("iqp", 3, 0)
    x = np.random.default_rng(0).normal(size=(5, 3))

    @qml.qnode(qml.device("default.qubit", wires=3))
    def overlap(a, b):
        qml.IQPEmbedding(a, wires=range(3))
        qml.adjoint(qml.IQPEmbedding(b, wires=range(3)))
        return qml.probs(wires=range(3))

    theirs = qml.kernels.square_kernel_matrix(x, lambda a, b: overlap(a, b)[0], assume_normalized_kernel=True)
    ours = QuantumKernel(circuit, dtype=torch.complex128).gram(x)
    np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_the_projected_kernel_is_its_formula_on_density_matrices() -> None:
    circuit = circuit_of("data_reuploading")
    found = states(circuit, *drawn(circuit))
    rho = reduced(found).numpy()
    gap = np.abs(rho[:, None] - rho[None]) ** 2
    np.testing.assert_allclose(
        projected(bloch(found), gamma=0.7).numpy(), np.exp(-0.7 * gap.sum((2, 3, 4))), atol=1e-12
    )


@pytest.mark.parametrize("kind", ["fidelity", "projected"])
def test_a_kernel_is_symmetric_positive_with_a_unit_diagonal(kind: str) -> None:
    kernel = QuantumKernel(make("iqp", 4, 0), kind, dtype=torch.complex128)
    x = np.random.default_rng(1).normal(size=(30, 4))
    k = kernel.gram(x)
    np.testing.assert_allclose(k, kernel.gram(x, x), atol=1e-12)
    np.testing.assert_allclose(k, k.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(k), 1, atol=1e-12)
    assert np.linalg.eigvalsh(k).min() > -1e-10


def test_alignment_is_pennylanes_without_centring_and_one_for_the_labels_own_kernel() -> None:
    circuit = make("iqp", 3, 0)
    x = np.random.default_rng(2).normal(size=(8, 3))
    y = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    k = QuantumKernel(circuit, dtype=torch.complex128).gram(x)
    theirs = qml.kernels.target_alignment(
        x, 2 * y - 1, lambda a, b: k[np.flatnonzero((x == a).all(1))[0], np.flatnonzero((x == b).all(1))[0]],
        assume_normalized_kernel=True, rescale_class_labels=False,
    )  # fmt: skip
    assert abs(float(alignment(torch.tensor(k), torch.tensor(y), centred=False)) - float(theirs)) < 1e-12
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    ideal = (labels[:, None] == labels[None]).double()
    assert abs(float(alignment(ideal, labels)) - 1) < 1e-12
    with pytest.raises(ValueError, match="two classes"):
        alignment(ideal, torch.zeros(7, dtype=torch.long))


def test_training_raises_the_alignment_on_rows_it_did_not_see() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(240, 2, generator=generator) - 0.5) * 4
    y = (x.norm(dim=1) > 1.3).long()
    torch.manual_seed(1)
    kernel = QuantumKernel(make("data_reuploading", 2, 3, trainable_frequencies=True))
    with torch.no_grad():
        before = alignment(kernel(x[120:]), y[120:])
    history = train_alignment(kernel, x[:120], y[:120], steps=100, batch_size=60, learning_rate=0.1)
    with torch.no_grad():
        after = alignment(kernel(x[120:]), y[120:])
    assert len(history) == 100
    assert after > before + 0.1


def test_a_map_without_weights_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="no weights to train"):
        train_alignment(QuantumKernel(make("iqp", 2, 0)), torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))


def test_nystroem_with_every_sample_is_the_kernel_and_with_few_is_near_it() -> None:
    x = np.random.default_rng(3).normal(size=(60, 4)) * 0.5
    kernel = QuantumKernel(make("iqp", 4, 0), dtype=torch.complex128)
    k = kernel.gram(x)
    whole = Nystroem.fit(kernel, x, n_landmarks=60)(x)
    np.testing.assert_allclose(whole @ whole.T, k, atol=1e-9)
    some = Nystroem.fit(kernel, x, n_landmarks=30, seed=1)(x)
    fewer = Nystroem.fit(kernel, x, n_landmarks=5, seed=1)(x)
    assert np.abs(some @ some.T - k).mean() < np.abs(fewer @ fewer.T - k).mean() < k.mean()


def test_scikit_learn_takes_the_precomputed_kernel() -> None:
    generator = np.random.default_rng(4)
    x = generator.uniform(-1, 1, size=(120, 2)) * 1.2
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    kernel = QuantumKernel(make("iqp", 2, 0, map="iqp"))
    model = SVC(kernel="precomputed", C=10).fit(kernel.gram(x[:80]), y[:80])
    assert model.score(kernel.gram(x[80:], x[:80]), y[80:]) > 0.85
    inside = OneClassSVM(kernel="precomputed", nu=0.1).fit(kernel.gram(x * 0.2))
    scores = inside.decision_function(kernel.gram(np.concatenate([x * 0.2, x + 2]), x * 0.2))
    assert scores[:120].mean() > scores[120:].mean()


def test_gradients_reach_the_inputs_of_a_kernel() -> None:
    kernel = QuantumKernel(circuit_of("data_reuploading"), dtype=torch.complex128)
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: kernel(x), (x,))
    assert fidelity(kernel.embed(x)).shape == (3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "fidelty"}, "did you mean 'fidelity'"),
        ({"gamma": -1.0}, "at least 0"),
        ({"weights": torch.zeros(5)}, "has 0 weights, not 5"),
        ({"dtype": torch.float32}, "complex64 or"),
    ],
)
def test_wrong_kernels_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantumKernel(make("iqp", 2, 0), **options)


def test_wrong_rows_are_refused() -> None:
    kernel = QuantumKernel(make("iqp", 2, 0))
    with pytest.raises(ValueError, match=r"reads \(b, 2\) inputs"):
        kernel.gram(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="1 of 6 inputs are NaN"):
        kernel.gram(np.array([[0, 1], [math.nan, 0], [1, 1]]))
    with pytest.raises(ValueError, match="at least 1 landmark"):
        Nystroem.fit(kernel, np.zeros((3, 2)), n_landmarks=0)
