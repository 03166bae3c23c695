"""Angle embedding and strongly entangling layers; weights ``(n_layers, n_qubits, 3)``.

```
0: ──RY(x0)──Rot(w)─╭●───────╭X──
1: ──RY(x1)──Rot(w)─╰X─╭●────│───
2: ──RY(x2)──Rot(w)────╰X─╭●─│───
3: ──RY(x3)──Rot(w)───────╰X─╰●──      from Rot on, a layer; the ring reaches one qubit further in each
```

Source:
    Schuld, Bocharov, Svore and Wiebe (2020), Circuit-centric quantum classifiers, Phys. Rev. A 101, 032308;
    as in PennyLane's ``AngleEmbedding`` and ``StronglyEntanglingLayers``.
"""

from collections.abc import Iterator, Sequence

from hcqsfl.quantum.circuit import Circuit, Gate, angle_embedding, check_layers, on_every_qubit, ring, rot


def layers(n_qubits: int, n_layers: int) -> Iterator[Gate]:
    """Yield the trainable part."""
    for layer in range(n_layers):
        for wire in range(n_qubits):
            yield rot(wire, 3 * (layer * n_qubits + wire))
        if n_qubits > 1:
            yield from ring(n_qubits, layer % (n_qubits - 1) + 1)


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
    check_layers("strongly_entangling", n_layers)
    return Circuit(
        name="strongly_entangling",
        n_qubits=n_qubits,
        n_layers=n_layers,
        n_inputs=n_qubits,
        weight_shape=(n_layers, n_qubits, 3),
        gates=(*angle_embedding(embedding, n_qubits), *layers(n_qubits, n_layers)),
        observables=tuple(observables or on_every_qubit(n_qubits)),
    )
