"""Features to angles, with a bandwidth chosen by normal rows alone.

A fidelity falls exponentially with the number of qubits; with too large angles every row is like itself alone, with
too small ones all rows are alike. The factor is set so that the median kernel value between two normal rows is one
half, the rule that also sets the Gaussian peer's. Angles are bounded by ``pi/2 tanh``: an outlier stays far, where
``pi`` and ``-pi`` would be one state.

Source:
    Shaydulin and Wild (2022), Importance of kernel bandwidth in quantum machine learning, Phys. Rev. A 106, 042407;
    Garreau, Jitkrittum and Kanagawa (2018), Large sample analysis of the median heuristic, arXiv:1707.07269.
"""

import math

import numpy as np
import torch
from torch import Tensor

from hcqsfl.quantum import circuits
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.quantum.kernel import QuantumKernel
from hcqsfl.randomness import numpy_generator, torch_seeded

ROWS = 300
"""Rows that the median is taken over."""


def angles(x: np.ndarray, bandwidth: float) -> np.ndarray:
    """Return ``(n, n_features)`` angles within ``(-pi/2, pi/2)``, ``bandwidth * x`` for small ``x``."""
    bounded: np.ndarray = math.pi / 2 * np.tanh(2 / math.pi * bandwidth * np.asarray(x, dtype=np.float64))
    return bounded


def median_bandwidth(kernel: QuantumKernel, x: np.ndarray, seed: int, goal: float = 0.5) -> float:
    """Return the largest bandwidth at which the median kernel value between normal rows is at least ``goal``.

    Args:
        kernel: what compares rows.
        x: normal rows ``(n, n_inputs)``.
        seed: draws the rows compared.
        goal: the median wanted; where rows repeat so often that it is always higher, the largest bandwidth is taken.
    """
    some = x[numpy_generator(seed, "bandwidth").permutation(len(x))[:ROWS]]
    pairs = np.triu_indices(len(some), 1)

    def median(bandwidth: float) -> float:
        return float(np.median(kernel.gram(angles(some, bandwidth))[pairs]))

    # the median need not fall steadily, so the first crossing is looked for before it is narrowed down
    grid = np.geomspace(0.01, 3.0, 24)
    below = next((i for i, bandwidth in enumerate(grid) if median(bandwidth) < goal), None)
    if below is None:
        return float(grid[-1])
    if below == 0:
        return float(grid[0])
    low, high = grid[below - 1], grid[below]
    for _ in range(12):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if median(middle) >= goal else (low, middle)
    return float(low)


def quantum_kernel(
    n_features: int, circuit: str | Circuit, kind: str, gamma: float, n_layers: int, seed: int
) -> QuantumKernel:
    """Return the kernel of a circuit with one qubit a feature; its weights, if it has any, drawn by ``seed``.

    Raises:
        ValueError: the circuit cannot read so many features.
    """
    made = circuit if isinstance(circuit, Circuit) else circuits.make(circuit, n_features, n_layers)
    if made.n_inputs != n_features:
        raise ValueError(f"circuit {made.name} reads {made.n_inputs} inputs, but there are {n_features} features")
    with torch_seeded(seed, "feature map"):
        return QuantumKernel(made, kind, gamma=gamma)


def as_tensor(x: np.ndarray, bandwidth: float) -> Tensor:
    """Return the angles of rows as float32."""
    return torch.as_tensor(angles(x, bandwidth), dtype=torch.float32)
