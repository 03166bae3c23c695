import pytest

from hcqsfl.quantum.circuit import Circuit, Gate, Observable, feature, weight
from hcqsfl.quantum.circuits import make


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("strongly_entanglin", 2, 1), {}, "did you mean 'strongly_entangling'"),
        (("strongly_entangling", 2, 1), {"embeding": "X"}, "did you mean 'embedding'"),
        (("strongly_entangling", 0, 1), {}, "at least 1 qubit"),
        (("strongly_entangling", 40, 1), {}, "40 qubits and 1 layer need 24,576.0 GiB"),
        (("strongly_entangling", 2, 0), {}, "at least 1 layer"),
        (("strongly_entangling", 2, 1), {"observables": ["Q0"]}, "observable 'Q0' is unknown"),
        (("strongly_entangling", 2, 1), {"observables": ["Z2"]}, "no wire 2"),
    ],
)
def test_impossible_circuits_are_refused(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(*arguments, **options)


def circuit(**changes: object) -> Circuit:
    parts = {
        "name": "one",
        "n_qubits": 2,
        "n_layers": 1,
        "n_inputs": 1,
        "weight_shape": (1,),
        "gates": (Gate("RX", (0,), (feature(0),)), Gate("RY", (1,), (weight(0),))),
        "observables": ("Z0",),
    }
    return Circuit(**(parts | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_shape": (2,)}, "have 2 entries, but the gates read 1"),
        ({"gates": (Gate("RX", (0,), (feature(3),)),)}, "no input 3"),
        ({"start": "plus"}, "'plus', which is none of zero, amplitudes"),
        ({"start": "amplitudes", "n_inputs": 9}, "at least 4 qubits hold them"),
        ({"observables": ()}, "measures nothing"),
    ],
)
def test_contradictions_are_told(changes: dict, message: str) -> None:
    assert circuit().n_weights == 1
    with pytest.raises(ValueError, match=message):
        circuit(**changes)


def test_gates_have_their_number_of_wires_and_angles() -> None:
    with pytest.raises(ValueError, match="RX has 1 wires and 1 angles, not 1 and 0"):
        Gate("RX", (0,))
    with pytest.raises(ValueError, match="acts twice on wire 1"):
        Gate("CNOT", (1, 1))


def test_observables_are_read_as_pauli_words() -> None:
    assert Observable("X0 Z12").paulis == (("X", 0), ("Z", 12))
    assert Observable("Z1 Z2").diagonal
    assert not Observable("Y1").diagonal
    with pytest.raises(ValueError, match="twice on one wire"):
        Observable("X1 Z1")
