"""Angle embedding, and rotations about two axes between chains of CZ; weights ``(n_layers + 1, n_qubits, 2)``.

```
0: ──RX(x0)──RY(w)──RZ(w)─╭●──────RY(w)──RZ(w)──
1: ──RX(x1)──RY(w)──RZ(w)─╰●─╭●───RY(w)──RZ(w)──
2: ──RX(x2)──RY(w)──RZ(w)────╰●───RY(w)──RZ(w)──      rotations and chain, n_layers times, and rotations once more
```

Source:
    Kandala et al. (2017), Hardware-efficient variational quantum eigensolver for small molecules and quantum magnets,
    Nature 549, 242, with the chain of neighbours that most devices have.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from hcqsfl.quantum.circuit import Circuit, Gate, angle_embedding, on_every_qubit, weight


def build(n_qubits: int, n_layers: int, *, embedding: str = "X", observables: Sequence[str] | None = None) -> Circuit:
    """Return the circuit.

    Args:
        n_qubits: size of the register, and number of inputs.
        n_layers: number of chains.
        embedding: axis of the rotation that takes the inputs: X, Y or Z.
        observables: what to measure; ``Z`` on every qubit if None.

    Raises:
        ValueError: a size is too small.
    """

    def rotations(layer: int) -> Iterator[Gate]:
        for wire in range(n_qubits):
            first = 2 * (layer * n_qubits + wire)
            yield Gate("RY", (wire,), (weight(first),))
            yield Gate("RZ", (wire,), (weight(first + 1),))

    gates = list(angle_embedding(embedding, n_qubits))
    for layer in range(n_layers):
        gates += rotations(layer)
        gates += [Gate("CZ", pair) for pair in pairwise(range(n_qubits))]
    return Circuit(
        name="hardware_efficient",
        n_qubits=n_qubits,
        n_layers=n_layers,
        n_inputs=n_qubits,
        weight_shape=(n_layers + 1, n_qubits, 2),
        gates=(*gates, *rotations(n_layers)),
        observables=tuple(observables or on_every_qubit(n_qubits)),
    )
