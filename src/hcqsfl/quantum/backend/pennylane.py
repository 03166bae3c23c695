"""PennyLane's ``default.qubit`` with backprop: the reference for the other backends, and the door to its devices."""

from typing import Any

import pennylane as qml
import torch
from torch import Tensor

from hcqsfl.quantum.backend import Evaluate
from hcqsfl.quantum.backend.lowering import normalised
from hcqsfl.quantum.circuit import Circuit, Gate, Observable, check_finite

OPERATIONS: dict[str, Any] = {
    "H": qml.Hadamard,
    "RX": qml.RX,
    "RY": qml.RY,
    "RZ": qml.RZ,
    "Rot": qml.Rot,
    "CNOT": qml.CNOT,
    "CZ": qml.CZ,
    "RZZ": qml.IsingZZ,
    "CRX": qml.CRX,
    "CRZ": qml.CRZ,
}
PAULIS: dict[str, Any] = {"X": qml.PauliX, "Y": qml.PauliY, "Z": qml.PauliZ}


def apply(gate: Gate, inputs: Tensor, weights: Tensor) -> None:
    """Queue one gate in PennyLane; ``weights`` are flat."""
    OPERATIONS[gate.name](*(angle.value(inputs, weights) for angle in gate.angles), wires=list(gate.wires))


def pauli_word(observable: Observable) -> Any:
    """Return PennyLane's operator."""
    return qml.prod(*(PAULIS[letter](wire) for letter, wire in observable.paulis))


def qnode(circuit: Circuit, device: str = "default.qubit", diff_method: str = "backprop", **options: Any) -> Any:
    """Return the circuit as a QNode of ``(inputs, flat weights)`` on any device of PennyLane.

    Args:
        circuit: what to run.
        device: PennyLane's name of the device.
        diff_method: PennyLane's name of the way to differentiate.
        options: what the device takes besides its wires.
    """

    def run(inputs: Tensor, weights: Tensor) -> Any:
        if circuit.start == "amplitudes":
            qml.StatePrep(normalised(circuit, inputs), wires=range(circuit.n_qubits), validate_norm=False)
        for gate in circuit.gates:
            apply(gate, inputs, weights)
        return [qml.expval(pauli_word(observable)) for observable in circuit.paulis]

    return qml.QNode(
        run, qml.device(device, wires=circuit.n_qubits, **options), interface="torch", diff_method=diff_method
    )


def build(circuit: Circuit) -> Evaluate:
    """Return the evaluation by ``default.qubit``, differentiated through the simulation."""
    node = qnode(circuit)

    def evaluate(inputs: Tensor, weights: Tensor) -> Tensor:
        if not torch._C._are_functorch_transforms_active():  # no number can be looked at inside torch.func
            check_finite(circuit, inputs, weights)
        values = node(inputs, weights.reshape(-1))
        # an observable that no input reaches comes back without a batch
        return torch.stack([value.to(inputs.dtype).expand(len(inputs)) for value in values], dim=-1)

    return evaluate
