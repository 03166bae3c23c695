"""Angle embedding and strongly entangling layers; weights ``(n_layers, n_qubits, 3)``.

```
0: ──RY(x0)──Rot(w)─╭●───────╭X──
1: ──RY(x1)──Rot(w)─╰X─╭●────│───
2: ──RY(x2)──Rot(w)────╰X─╭●─│───
3: ──RY(x3)──Rot(w)───────╰X─╰●──      each layer: Rot and a ring, whose reach grows by one qubit a layer
```

Source:
    Schuld, Bocharov, Svore and Wiebe (2020), Circuit-centric quantum classifiers, Phys. Rev. A 101, 032308;
    as in PennyLane's ``AngleEmbedding`` and ``StronglyEntanglingLayers``.
"""

from collections.abc import Sequence

from hcqsfl.quantum.circuit import Circuit, Gate, angle_embedding, on_every_qubit, weight


def build(n_qubits: int, n_layers: int, *, embedding: str = "Y", observables: Sequence[str] | None = None) -> Circuit:
    """Return the circuit.

    Args:
        n_qubits: size of the register, and number of inputs.
        n_layers: number of rings.
        embedding: axis of the rotation that takes the inputs: X, Y or Z.
        observables: what to measure; ``Z`` on every qubit if None.

    Raises:
        ValueError: a size is below 1.
    """
    if n_layers < 1:
        raise ValueError(f"strongly_entangling needs at least 1 layer, not {n_layers}")
    gates = list(angle_embedding(embedding, n_qubits))
    for layer in range(n_layers):
        for wire in range(n_qubits):
            first = 3 * (layer * n_qubits + wire)
            gates.append(Gate("Rot", (wire,), (weight(first), weight(first + 1), weight(first + 2))))
        if n_qubits > 1:
            reach = layer % (n_qubits - 1) + 1
            gates += [Gate("CNOT", (wire, (wire + reach) % n_qubits)) for wire in range(n_qubits)]
    return Circuit(
        name="strongly_entangling",
        n_qubits=n_qubits,
        n_layers=n_layers,
        n_inputs=n_qubits,
        weight_shape=(n_layers, n_qubits, 3),
        gates=tuple(gates),
        observables=tuple(observables or on_every_qubit(n_qubits)),
    )
