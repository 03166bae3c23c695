import copy
import math

import pennylane as qml
import pytest
import torch

from hcqsfl.quantum.circuits import make
from hcqsfl.quantum.layer import QuantumLayer


def layer_of(n_qubits: int, n_layers: int, dtype: torch.dtype = torch.complex128, **options: object) -> QuantumLayer:
    torch.manual_seed(n_qubits * 10 + n_layers)
    return QuantumLayer(make("strongly_entangling", n_qubits, n_layers), dtype=dtype, **options)


def template(n_qubits: int) -> qml.QNode:
    """PennyLane's own templates, written as its documentation does, for one sample."""

    @qml.qnode(qml.device("default.qubit", wires=n_qubits), interface="torch", diff_method="backprop")
    def run(inputs: torch.Tensor, weights: torch.Tensor) -> list:
        qml.AngleEmbedding(inputs, wires=range(n_qubits), rotation="Y")
        qml.StronglyEntanglingLayers(weights, wires=range(n_qubits))
        return [qml.expval(qml.PauliZ(wire)) for wire in range(n_qubits)]

    return run


@pytest.mark.parametrize(("n_qubits", "n_layers", "batch"), [(1, 2, 3), (2, 1, 2), (3, 2, 3), (4, 4, 4), (4, 2, 7)])
def test_a_batch_is_pennylanes_templates_sample_by_sample(n_qubits: int, n_layers: int, batch: int) -> None:
    layer = layer_of(n_qubits, n_layers)
    inputs = torch.randn(batch, n_qubits, dtype=torch.float64)
    alone = torch.stack([torch.stack(template(n_qubits)(sample, layer.weights)) for sample in inputs])
    assert (layer(inputs) - alone).abs().max() < 1e-10


def test_gradients_are_the_parameter_shift_rules() -> None:
    layer, inputs = layer_of(3, 2), torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    by_input, by_weight = torch.autograd.grad(layer(inputs).square().sum(), [inputs, layer.weights])

    def total(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.func.functional_call(layer, {"weights": weights}, (inputs,))

    # a rotation by one angle makes every expectation a sine of it, so half of f(a + pi/2) - f(a - pi/2) is its slope
    values = total(inputs, layer.weights)
    for place, found in ((inputs, by_input), (layer.weights.detach(), by_weight)):
        for k in range(place.numel()):
            shift = torch.zeros_like(place).reshape(-1).index_fill(0, torch.tensor(k), math.pi / 2).view_as(place)
            if place is inputs:
                slope = (total(inputs + shift, layer.weights) - total(inputs - shift, layer.weights)) / 2
            else:
                slope = (total(inputs, place + shift) - total(inputs, place - shift)) / 2
            assert abs((2 * values * slope).sum() - found.reshape(-1)[k]) < 1e-10


def test_single_precision_is_double_precision_to_1e_5() -> None:
    double = layer_of(4, 3)
    single = layer_of(4, 3, torch.complex64)
    with torch.no_grad():
        single.weights.copy_(double.weights)
    inputs = torch.randn(5, 4, dtype=torch.float64)
    assert single(inputs.float()).dtype == torch.float32
    assert single(inputs).dtype == torch.float64
    assert (single(inputs) - double(inputs)).abs().max() < 1e-5


def test_the_same_seed_and_input_give_the_same_bytes() -> None:
    inputs = torch.randn(6, 4)
    first, second = layer_of(4, 2, torch.complex64), layer_of(4, 2, torch.complex64)
    assert torch.equal(first(inputs), second(inputs))
    assert torch.equal(first(inputs), first(inputs))
    assert torch.equal(first(inputs), copy.deepcopy(first)(inputs))


def test_an_empty_batch_gives_no_rows() -> None:
    assert layer_of(3, 1)(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(2, 3), r"reads \(b, 4\) inputs, not \(2, 3\)"),
        (torch.zeros(4), r"not \(4,\)"),
        (torch.tensor([[0.0, 0, 0, 0], [0, math.nan, 0, math.inf]]), "input 1 of sample 1 is nan; 2 of 8"),
    ],
)
def test_wrong_inputs_are_refused(inputs: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer_of(4, 1)(inputs)


def test_diverged_weights_are_named() -> None:
    layer = layer_of(2, 1)
    with torch.no_grad():
        layer.weights[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="a weight of circuit strongly_entangling is NaN"):
        layer(torch.zeros(1, 2))


def test_huge_angles_are_no_infinite_ones() -> None:
    assert torch.isfinite(layer_of(2, 1, torch.complex64)(torch.full((2, 2), 3e38))).all()


def test_unknown_backends_and_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'pennylane'"):
        layer_of(2, 1, backend="penylane")
    with pytest.raises(ValueError, match=r"not torch\.float32"):
        layer_of(2, 1, torch.float32)
