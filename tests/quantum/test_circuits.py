"""The circuits against PennyLane's templates, or against the paper's matrices written out."""

import math
from collections.abc import Callable
from itertools import combinations

import pennylane as qml
import pytest
import torch

from hcqsfl.quantum.circuit import Circuit, Gate, feature, weight
from hcqsfl.quantum.circuits import CIRCUITS, make
from hcqsfl.quantum.layer import QuantumLayer


def template(n_qubits: int, body: Callable, n_outputs: int | None = None) -> Callable:
    @qml.qnode(qml.device("default.qubit", wires=n_qubits), interface="torch", diff_method="backprop")
    def run(inputs: torch.Tensor, weights: torch.Tensor) -> list:
        body(inputs, weights)
        return [qml.expval(qml.PauliZ(wire)) for wire in range(n_outputs or n_qubits)]

    return lambda inputs, weights: torch.stack([torch.stack(run(sample, weights)) for sample in inputs])


def difference(circuit: Circuit, expected: Callable, batch: int) -> float:
    torch.manual_seed(circuit.n_qubits)
    layer = QuantumLayer(circuit, dtype=torch.complex128)
    inputs = torch.randn(batch, circuit.n_inputs, dtype=torch.float64)
    with torch.no_grad():
        return float((layer(inputs) - expected(inputs, layer.weights)).abs().max())


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 5])
def test_basic_entangler_is_pennylanes(n_qubits: int) -> None:
    def body(inputs: torch.Tensor, weights: torch.Tensor) -> None:
        qml.AngleEmbedding(inputs, wires=range(n_qubits), rotation="Y")
        qml.BasicEntanglerLayers(weights, wires=range(n_qubits))

    assert difference(make("basic_entangler", n_qubits, 2), template(n_qubits, body), n_qubits) < 1e-10


@pytest.mark.parametrize("repeats", [1, 2])
def test_iqp_is_pennylanes_embedding_before_entangling_layers(repeats: int) -> None:
    def body(inputs: torch.Tensor, weights: torch.Tensor) -> None:
        qml.IQPEmbedding(inputs, wires=range(4), n_repeats=repeats)
        qml.StronglyEntanglingLayers(weights, wires=range(4))

    assert difference(make("iqp", 4, 2, repeats=repeats), template(4, body), 4) < 1e-10


def test_the_zz_map_has_the_angles_of_havlicek() -> None:
    def body(inputs: torch.Tensor, weights: torch.Tensor) -> None:
        for wire in range(3):
            qml.Hadamard(wire)
            qml.PhaseShift(2 * inputs[wire], wires=wire)
        for i, j in combinations(range(3), 2):
            qml.CNOT(wires=[i, j])
            qml.PhaseShift(2 * (math.pi - inputs[i]) * (math.pi - inputs[j]), wires=j)
            qml.CNOT(wires=[i, j])
        qml.StronglyEntanglingLayers(weights, wires=range(3))

    assert difference(make("iqp", 3, 1, map="zz"), template(3, body), 3) < 1e-10


@pytest.mark.parametrize("n_inputs", [8, 5])
def test_amplitude_is_pennylanes_embedding_before_entangling_layers(n_inputs: int) -> None:
    def body(inputs: torch.Tensor, weights: torch.Tensor) -> None:
        qml.AmplitudeEmbedding(inputs, wires=range(3), normalize=True, pad_with=0.0)
        qml.StronglyEntanglingLayers(weights, wires=range(3))

    assert difference(make("amplitude", 3, 2, n_inputs=n_inputs), template(3, body), 3) < 1e-10


def test_data_reuploading_embeds_before_every_layer() -> None:
    def body(inputs: torch.Tensor, weights: torch.Tensor) -> None:
        for layer in range(3):
            qml.AngleEmbedding(inputs * weights[layer, :, 3], wires=range(3), rotation="Y")
            qml.StronglyEntanglingLayers(weights[None, layer, :, :3], wires=range(3), ranges=[1])

    circuit = make("data_reuploading", 3, 3, trainable_frequencies=True)
    assert circuit.weight_shape == (3, 3, 4)
    assert difference(circuit, template(3, body), 3) < 1e-10


def test_hqsl_deals_six_features_to_two_qubits_also_in_a_batch_of_two() -> None:
    def body(inputs: torch.Tensor, weights: torch.Tensor) -> None:
        for layer in range(2):
            for place, turn in enumerate((qml.RX, qml.RY, qml.RZ)):
                turn(inputs[2 * place], wires=0)
                turn(inputs[2 * place + 1], wires=1)
            for wire in range(2):
                qml.Rot(*weights[layer, wire], wires=wire)
            qml.CNOT(wires=[0, 1])

    for batch in (1, 2, 6):
        assert difference(make("hqsl", 2, 2), template(2, body), batch) < 1e-10
    with pytest.raises(ValueError, match="hqsl has 2 qubits, not 4"):
        make("hqsl", 4, 1)


def test_a_tree_pools_by_half_and_shares_weights_on_a_level() -> None:
    assert make("tree", 8, 1).weight_shape == (3, 8)
    assert make("tree", 8, 2).weight_shape == (3, 14)
    assert make("tree", 8, 1).observables == ("Z7",)
    assert make("tree", 6, 1, keep=2).observables == ("Z3", "Z5")
    with pytest.raises(ValueError, match="pools 4 qubits until 1 to 3 are left, not 4"):
        make("tree", 4, 1, keep=4)


def test_a_pooled_pair_is_turned_by_what_the_other_qubit_is() -> None:
    # without the first block (its six weights 0 leave two CNOTs), P is RZ where qubit 0 is 1 and RX where it is 0
    def body(inputs: torch.Tensor, weights: torch.Tensor) -> None:
        qml.AngleEmbedding(inputs, wires=range(2), rotation="Y")
        qml.CNOT(wires=[0, 1])
        qml.CNOT(wires=[1, 0])
        qml.ctrl(qml.RZ, control=0, control_values=1)(weights[0, 6], wires=1)
        qml.ctrl(qml.RX, control=0, control_values=0)(weights[0, 7], wires=1)

    layer = QuantumLayer(make("tree", 2, 1, observables=["Z0", "Z1"]), dtype=torch.complex128)
    with torch.no_grad():
        layer.weights.zero_()
        layer.weights[0, 6:] = torch.tensor([0.7, 1.9])
    inputs = torch.randn(4, 2, dtype=torch.float64)
    assert (layer(inputs) - template(2, body)(inputs, layer.weights)).abs().max() < 1e-10


@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_every_circuit_is_drawn_and_states_its_weights(name: str) -> None:
    module = __import__(CIRCUITS[name], fromlist=["build"])
    assert module.__doc__.count("```") == 2
    assert "eights ``(" in module.__doc__
    assert "Source:" in module.__doc__


def test_an_untouched_qubit_and_a_constant_observable_keep_the_batch() -> None:
    circuit = Circuit(
        name="idle",
        n_qubits=3,
        n_layers=1,
        n_inputs=1,
        weight_shape=(1,),
        gates=(Gate("RY", (0,), (feature(0),)), Gate("RX", (1,), (weight(0),))),
        observables=("Z0", "Z1", "Z2"),
    )
    for backend in ("pennylane", "fused", "compiled"):
        layer = QuantumLayer(circuit, backend, torch.complex128)
        inputs = torch.tensor([[0.3], [1.2]], dtype=torch.float64)
        values = layer(inputs)
        assert torch.allclose(values[:, 0], inputs[:, 0].cos())
        assert torch.allclose(values[:, 1], layer.weights.cos().expand(2))
        assert torch.allclose(values[:, 2], torch.ones(2, dtype=torch.float64))
