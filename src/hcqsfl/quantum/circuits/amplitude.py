"""The inputs as amplitudes, and strongly entangling layers; weights ``(n_layers, n_qubits, 3)``.

```
0: ─╭           ╮─Rot(w)─╭●────╭X──
1: ─│ |x> / |x| │─Rot(w)─╰X─╭●─│───
2: ─╰           ╯─Rot(w)────╰X─╰●──      from Rot on, a layer; the ring reaches one qubit further in each
```

Up to ``2**n_qubits`` inputs; the length of the input vector is lost.

Source:
    Schuld and Petruccione (2018), Supervised Learning with Quantum Computers, section 5.2; as in PennyLane's
    ``AmplitudeEmbedding`` (normalised, padded with 0) and ``StronglyEntanglingLayers``.
"""

from collections.abc import Sequence

from hcqsfl.quantum.circuit import Circuit, check_layers, on_every_qubit
from hcqsfl.quantum.circuits import strongly_entangling


def build(
    n_qubits: int, n_layers: int, *, n_inputs: int | None = None, observables: Sequence[str] | None = None
) -> Circuit:
    """Return the circuit.

    Args:
        n_qubits: size of the register.
        n_layers: number of rings.
        n_inputs: number of amplitudes given; ``2**n_qubits`` if None, and fewer are padded with zeros.
        observables: what to measure; ``Z`` on every qubit if None.

    Raises:
        ValueError: a size is below 1, or there are more inputs than basis states.
    """
    check_layers("amplitude", n_layers)
    return Circuit(
        name="amplitude",
        n_qubits=n_qubits,
        n_layers=n_layers,
        n_inputs=2 ** max(n_qubits, 0) if n_inputs is None else n_inputs,
        weight_shape=(n_layers, n_qubits, 3),
        gates=tuple(strongly_entangling.layers(n_qubits, n_layers)),
        observables=tuple(observables or on_every_qubit(n_qubits)),
        start="amplitudes",
    )
