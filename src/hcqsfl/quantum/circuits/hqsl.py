"""Two qubits that take several features each, again before every layer; weights ``(n_layers, 2, 3)``.

```
0: ─╭RX(x0)──RY(x2)──RZ(x4)──Rot(w)─╭●──╮
1: ─╰RX(x1)──RY(x3)──RZ(x5)──Rot(w)─╰X──╯ × n_layers      for 6 inputs; more go on with RX
```

The features are dealt out to the two qubits in turn, and turn a qubit about X, Y, Z, X, ... A sample's features are
``inputs[..., i]``, so that a batch of 2 samples is no different from any other.

Source:
    After Cowlessur, Thapa, Alpcan and Camtepe (2024), A hybrid quantum neural network for split learning,
    arXiv:2409.16593: two qubits, few gates, data re-uploading with more features than qubits. The order of axes and the
    entangler are set here and may differ from the paper's figure.
"""

from collections.abc import Sequence

from hcqsfl.quantum.circuit import Circuit, Gate, check_layers, feature, on_every_qubit, rot


def build(
    n_qubits: int = 2, n_layers: int = 3, *, n_inputs: int = 6, observables: Sequence[str] | None = None
) -> Circuit:
    """Return the circuit.

    Args:
        n_qubits: 2.
        n_layers: number of uploads.
        n_inputs: number of features, for both qubits together.
        observables: what to measure; ``Z`` on both qubits if None.

    Raises:
        ValueError: ``n_qubits`` is not 2, or another size is below 1.
    """
    if n_qubits != 2:
        raise ValueError(f"circuit hqsl has 2 qubits, not {n_qubits}; data_reuploading has any number")
    check_layers("hqsl", n_layers)
    gates: list[Gate] = []
    for layer in range(n_layers):
        gates += [Gate(f"R{'XYZ'[i // 2 % 3]}", (i % 2,), (feature(i),)) for i in range(n_inputs)]
        gates += [rot(wire, 3 * (2 * layer + wire)) for wire in range(2)]
        gates.append(Gate("CNOT", (0, 1)))
    return Circuit(
        name="hqsl",
        n_qubits=2,
        n_layers=n_layers,
        n_inputs=n_inputs,
        weight_shape=(n_layers, 2, 3),
        gates=tuple(gates),
        observables=tuple(observables or on_every_qubit(2)),
    )
