"""Ways to evaluate a circuit, behind one call: inputs and weights in, expectation values out.

A backend is one module with ``build(circuit) -> Evaluate``, and one line here. ``fused`` and ``compiled`` also have
``per_sample(circuit, inputs, weights, slopes)``, the gradients to the weights sample by sample.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from hcqsfl.quantum.circuit import Circuit
from hcqsfl.registry import load_object, lookup

Evaluate = Callable[[Tensor, Tensor], Tensor]
"""``(b, n_inputs)`` real and weights of the circuit's shape and the same dtype in, ``(b, n_observables)`` out.

It raises a ``ValueError`` for a number that is NaN or infinite; under ``torch.func`` it cannot see any."""

BACKENDS = {
    "compiled": "hcqsfl.quantum.backend.compiled",
    "fused": "hcqsfl.quantum.backend.fused",
    "pennylane": "hcqsfl.quantum.backend.pennylane",
}

NEEDS = {"compiled": ("numba",), "pennylane": ("pennylane",)}
"""Packages that a backend imports besides torch and numpy."""


@cache
def missing(name: str) -> str:
    """Return why the backend called ``name`` cannot be used here, or nothing."""
    for package in NEEDS.get(name, ()):
        if importlib.util.find_spec(package) is None:
            return f"the package {package} is not installed (pip install {package})"
    return ""


def load(name: str) -> Any:
    """Return the module of the backend called ``name``.

    Raises:
        ValueError: there is no such backend, or a package that it needs is absent.
    """
    path = lookup("quantum backend", BACKENDS, name)
    if reason := missing(name):
        raise ValueError(f"quantum backend {name!r} cannot be used here: {reason}")
    return load_object(path)


def build(name: str, circuit: Circuit) -> Evaluate:
    """Return the evaluation of ``circuit`` by the backend called ``name``.

    Raises:
        ValueError: there is no such backend, or a package that it needs is absent.
    """
    evaluate: Evaluate = load(name).build(circuit)
    return evaluate
