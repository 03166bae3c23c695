"""Ways to evaluate a circuit, behind one call: inputs and weights in, expectation values out.

A backend is one module with ``build(circuit) -> Evaluate`` and ``missing() -> str``, and one line here.
"""

from collections.abc import Callable

from torch import Tensor

from hcqsfl.quantum.circuit import Circuit
from hcqsfl.registry import load_object, lookup

Evaluate = Callable[[Tensor, Tensor], Tensor]
"""``(b, n_inputs)`` real and weights of the circuit's shape and the same dtype in, ``(b, n_observables)`` out."""

BACKENDS = {
    "compiled": "hcqsfl.quantum.backend.compiled",
    "fused": "hcqsfl.quantum.backend.fused",
    "pennylane": "hcqsfl.quantum.backend.pennylane",
}


def build(name: str, circuit: Circuit) -> Evaluate:
    """Return the evaluation of ``circuit`` by the backend called ``name``.

    Raises:
        ValueError: there is no such backend, or a package that it needs is absent.
    """
    module = load_object(lookup("quantum backend", BACKENDS, name))
    if missing := module.missing():
        raise ValueError(f"quantum backend {name!r} cannot be used here: {missing}")
    evaluate: Evaluate = module.build(circuit)
    return evaluate
