"""Circuits, one file each.

A circuit is one module with ``build(n_qubits, n_layers, **options) -> Circuit``, and one line here.
"""

import inspect
from typing import Any

from hcqsfl.quantum.circuit import Circuit
from hcqsfl.registry import load_object, lookup

CIRCUITS = {
    "amplitude": "hcqsfl.quantum.circuits.amplitude",
    "basic_entangler": "hcqsfl.quantum.circuits.basic_entangler",
    "data_reuploading": "hcqsfl.quantum.circuits.data_reuploading",
    "hardware_efficient": "hcqsfl.quantum.circuits.hardware_efficient",
    "hqsl": "hcqsfl.quantum.circuits.hqsl",
    "iqp": "hcqsfl.quantum.circuits.iqp",
    "strongly_entangling": "hcqsfl.quantum.circuits.strongly_entangling",
    "tree": "hcqsfl.quantum.circuits.tree",
}


def make(name: str, n_qubits: int, n_layers: int, **options: Any) -> Circuit:
    """Build the circuit called ``name``.

    Args:
        name: a key of ``CIRCUITS``.
        n_qubits: size of the register.
        n_layers: how often the trainable block repeats.
        options: what the circuit's own ``build`` takes besides; ``observables`` for every one.

    Raises:
        ValueError: the circuit or an option is unknown, or the circuit refuses the values.
    """
    build = load_object(lookup("circuit", CIRCUITS, name)).build
    known = {key: None for key in inspect.signature(build).parameters if key not in ("n_qubits", "n_layers")}
    for key in options:
        lookup(f"option of circuit {name}", known, key)
    circuit: Circuit = build(n_qubits, n_layers, **options)
    return circuit
