"""The inputs again before every layer; weights ``(n_layers, n_qubits, 3)``, or 4 with trainable frequencies.

```
0: ─╭RY(x0)──Rot(w)─╭●───────╭X─╮
1: ─│RY(x1)──Rot(w)─╰X─╭●────│──│
2: ─│RY(x2)──Rot(w)────╰X─╭●─│──│
3: ─╰RY(x3)──Rot(w)───────╰X─╰●─╯ × n_layers
```

Each upload adds a frequency to the Fourier series that the circuit can express; a trainable factor of the inputs
moves them.

Source:
    Pérez-Salinas, Cervera-Lierta, Gil-Fuster and Latorre (2020), Data re-uploading for a universal quantum classifier,
    Quantum 4, 226; Schuld, Sweke and Meyer (2021), Phys. Rev. A 103, 032430.
"""

from collections.abc import Sequence

from hcqsfl.quantum.circuit import Angle, Circuit, Gate, check_layers, on_every_qubit, ring, rot


def build(
    n_qubits: int,
    n_layers: int,
    *,
    embedding: str = "Y",
    trainable_frequencies: bool = False,
    observables: Sequence[str] | None = None,
) -> Circuit:
    """Return the circuit.

    Args:
        n_qubits: size of the register, and number of inputs.
        n_layers: number of uploads.
        embedding: axis of the rotation that takes the inputs: X, Y or Z.
        trainable_frequencies: multiply each upload of an input by a weight of its own, the fourth of its qubit.
        observables: what to measure; ``Z`` on every qubit if None.

    Raises:
        ValueError: a size is below 1.
    """
    check_layers("data_reuploading", n_layers)
    per_qubit = 4 if trainable_frequencies else 3
    gates: list[Gate] = []
    for layer in range(n_layers):
        for wire in range(n_qubits):
            first = per_qubit * (layer * n_qubits + wire)
            angle = Angle(inputs=(wire,), weight=first + 3 if trainable_frequencies else None)
            gates += [Gate(f"R{embedding}", (wire,), (angle,)), rot(wire, first)]
        gates += ring(n_qubits)
    return Circuit(
        name="data_reuploading",
        n_qubits=n_qubits,
        n_layers=n_layers,
        n_inputs=n_qubits,
        weight_shape=(n_layers, n_qubits, per_qubit),
        gates=tuple(gates),
        observables=tuple(observables or on_every_qubit(n_qubits)),
    )
