"""A feature map of single inputs and their pairs, and strongly entangling layers; weights ``(n_layers, n_qubits, 3)``.

```
0: ─╭H──RZ(x0)─╭ZZ(x0 x1)─╭ZZ(x0 x2)────────────╮
1: ─│H──RZ(x1)─╰──────────│──────────╭ZZ(x1 x2)─│── strongly entangling layers
2: ─╰H──RZ(x2)────────────╰──────────╰──────────╯ × repeats
```

With no layers it is the feature map alone, for kernels.

Source:
    Havlíček et al. (2019), Supervised learning with quantum-enhanced feature spaces, Nature 567, 209; ``map="iqp"`` is
    PennyLane's ``IQPEmbedding``, ``map="zz"`` has that paper's angles ``2 x_i`` and ``2 (pi - x_i)(pi - x_j)``.
"""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

from hcqsfl.quantum.circuit import Angle, Circuit, Gate, on_every_qubit
from hcqsfl.quantum.circuits import strongly_entangling
from hcqsfl.registry import lookup

MAPS = {"iqp": (1.0, 0.0), "zz": (2.0, math.pi)}
"""Factor of the angles, and what is taken off the inputs of a pair."""

PAIRS = {
    "all": lambda n_qubits: combinations(range(n_qubits), 2),
    "neighbours": lambda n_qubits: pairwise(range(n_qubits)),
}


def build(
    n_qubits: int,
    n_layers: int,
    *,
    map: str = "iqp",
    pairs: str = "all",
    repeats: int = 1,
    observables: Sequence[str] | None = None,
) -> Circuit:
    """Return the circuit.

    Args:
        n_qubits: size of the register, and number of inputs.
        n_layers: number of trainable layers after the feature map; 0 for the map alone.
        map: the angles: ``"iqp"`` or ``"zz"``.
        pairs: which inputs meet: ``"all"`` or ``"neighbours"``.
        repeats: how often the feature map is applied.
        observables: what to measure; ``Z`` on every qubit if None.

    Raises:
        ValueError: a size is too small, or ``map`` or ``pairs`` is unknown.
    """
    factor, shift = lookup("feature map", MAPS, map)
    meeting = list(lookup("choice of pairs", PAIRS, pairs)(n_qubits))
    if repeats < 1:
        raise ValueError(f"the feature map of circuit iqp is applied at least once, not {repeats} times")
    once = [
        *(Gate("H", (wire,)) for wire in range(n_qubits)),
        *(Gate("RZ", (wire,), (Angle(inputs=(wire,), scale=factor),)) for wire in range(n_qubits)),
        *(Gate("RZZ", pair, (Angle(inputs=pair, scale=factor, shift=shift),)) for pair in meeting),
    ]
    return Circuit(
        name="iqp",
        n_qubits=n_qubits,
        n_layers=n_layers,
        n_inputs=n_qubits,
        weight_shape=(n_layers, n_qubits, 3),
        gates=(*once * repeats, *strongly_entangling.layers(n_qubits, n_layers)),
        observables=tuple(observables or on_every_qubit(n_qubits)),
    )
