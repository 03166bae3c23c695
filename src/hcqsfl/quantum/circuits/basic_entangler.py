"""Angle embedding and layers of one rotation a qubit and a ring; weights ``(n_layers, n_qubits)``.

```
0: ──RY(x0)──RX(w)─╭●───────╭X──
1: ──RY(x1)──RX(w)─╰X─╭●────│───
2: ──RY(x2)──RX(w)────╰X─╭●─│───
3: ──RY(x3)──RX(w)───────╰X─╰●──      from RX on, a layer; two qubits have one CNOT, not a ring
```

Source:
    PennyLane's ``AngleEmbedding`` and ``BasicEntanglerLayers``.
"""

from collections.abc import Sequence

from hcqsfl.quantum.circuit import Circuit, Gate, angle_embedding, check_layers, on_every_qubit, ring, weight


def build(
    n_qubits: int,
    n_layers: int,
    *,
    embedding: str = "Y",
    rotation: str = "X",
    observables: Sequence[str] | None = None,
) -> Circuit:
    """Return the circuit.

    Args:
        n_qubits: size of the register, and number of inputs.
        n_layers: number of rings.
        embedding: axis of the rotation that takes the inputs: X, Y or Z.
        rotation: axis of the trainable rotation.
        observables: what to measure; ``Z`` on every qubit if None.

    Raises:
        ValueError: a size is below 1.
    """
    check_layers("basic_entangler", n_layers)
    gates = list(angle_embedding(embedding, n_qubits))
    for layer in range(n_layers):
        gates += [Gate(f"R{rotation}", (wire,), (weight(layer * n_qubits + wire),)) for wire in range(n_qubits)]
        gates += list(ring(n_qubits))[: 1 if n_qubits == 2 else None]
    return Circuit(
        name="basic_entangler",
        n_qubits=n_qubits,
        n_layers=n_layers,
        n_inputs=n_qubits,
        weight_shape=(n_layers, n_qubits),
        gates=tuple(gates),
        observables=tuple(observables or on_every_qubit(n_qubits)),
    )
