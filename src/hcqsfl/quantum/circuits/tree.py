"""A convolutional tree: neighbours meet, then half of the qubits are pooled away.

Weights ``(n_levels, 6 n_layers + 2)``.

```
0: ──RY(x0)─╭U─────╭U─╭P────
1: ──RY(x1)─╰U─╭U──│──╰P──╭U─╭P────
2: ──RY(x2)─╭U─╰U──│──╭P──│──│
3: ──RY(x3)─╰U─────╰U─╰P──╰U─╰P──<Z>

U: ──RY(w)─╭●──RY(w)─╭X──RY(w)──      P: ─╭●──────X─╭●──────X──
   ──RY(w)─╰X──RY(w)─╰●──RY(w)──         ─╰RZ(w)────╰RX(w)─────
```

All U of a level share their weights, as do all P. ``n_levels`` is how often the qubits are halved until ``keep`` are
left.

Source:
    Cong, Choi and Lukin (2019), Quantum convolutional neural networks, Nature Physics 15, 1273; the pooling of
    Hur, Kim and Park (2022), Quantum convolutional neural network for classical data classification, Quantum Mach.
    Intell. 4, 3.
"""

import math
from collections.abc import Iterator, Sequence

from hcqsfl.quantum.circuit import Circuit, Gate, angle_embedding, check_layers, constant, weight


def build(
    n_qubits: int,
    n_layers: int,
    *,
    embedding: str = "Y",
    keep: int = 1,
    observables: Sequence[str] | None = None,
) -> Circuit:
    """Return the circuit.

    Args:
        n_qubits: size of the register, and number of inputs.
        n_layers: how often neighbours meet on each level.
        embedding: axis of the rotation that takes the inputs: X, Y or Z.
        keep: pool until at most this many qubits are left.
        observables: what to measure; ``Z`` on every qubit left if None.

    Raises:
        ValueError: a size is below 1, or there is nothing to pool.
    """
    if not 1 <= keep < n_qubits:
        raise ValueError(f"circuit tree pools {n_qubits} qubits until 1 to {n_qubits - 1} are left, not {keep}")
    check_layers("tree", n_layers)
    gates = list(angle_embedding(embedding, n_qubits))
    left, first, n_levels = list(range(n_qubits)), 0, 0
    while len(left) > keep:
        for _ in range(n_layers):
            pairs = list(zip(left[0::2], left[1::2], strict=False))
            if len(left) > 2:
                pairs += zip(left[1::2], [*left[2::2], left[0]][: len(left[1::2])], strict=True)
            for pair in pairs:
                gates += meet(pair, first)
            first += 6
        for pair in zip(left[0::2], left[1::2], strict=False):
            gates += pool(pair, first)
        first += 2
        left = [*left[1::2], *(left[-1:] if len(left) % 2 else [])]
        n_levels += 1
    return Circuit(
        name="tree",
        n_qubits=n_qubits,
        n_layers=n_layers,
        n_inputs=n_qubits,
        weight_shape=(n_levels, 6 * n_layers + 2),
        gates=tuple(gates),
        observables=tuple(observables or (f"Z{wire}" for wire in left)),
    )


def meet(pair: tuple[int, int], first: int) -> Iterator[Gate]:
    """Yield U on two qubits: its six weights begin at ``first``."""
    for step, control in ((0, 0), (2, 1), (4, None)):
        yield from (Gate("RY", (wire,), (weight(first + step + i),)) for i, wire in enumerate(pair))
        if control is not None:
            yield Gate("CNOT", (pair[control], pair[1 - control]))


def pool(pair: tuple[int, int], first: int) -> Iterator[Gate]:
    """Yield P from the first qubit into the second: one rotation where it is 1, another where it is 0."""
    flip = Gate("RX", pair[:1], (constant(math.pi),))
    yield from (Gate("CRZ", pair, (weight(first),)), flip, Gate("CRX", pair, (weight(first + 1),)), flip)
