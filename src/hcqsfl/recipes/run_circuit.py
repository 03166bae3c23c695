"""Run a trained circuit elsewhere, on Qiskit's simulator or on hardware, and hold what comes back against the layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hcqsfl.quantum import export
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.quantum.noise import NoisyLayer
from hcqsfl.randomness import torch_generator
from hcqsfl.recipes import circuit as circuits
from hcqsfl.recipes import trained

AER = "aer"


@dataclass(frozen=True)
class Parity:
    """A layer's expectation values beside those of another machine.

    Attributes:
        circuit, n_qubits, n_layers: which circuit.
        observables: what was measured.
        backend: where.
        shots: of each measurement; None for exact values.
        ours, theirs: for each sample its values.
        largest: largest absolute difference.
        rms: root of the mean squared difference.
        by_chance: the same of a perfect machine with so many shots; 0 without shots.
    """

    circuit: str
    n_qubits: int
    n_layers: int
    observables: tuple[str, ...]
    backend: str
    shots: int | None
    ours: list[list[float]]
    theirs: list[list[float]]
    largest: float
    rms: float
    by_chance: float


def run_circuit(
    layer: QuantumLayer, inputs: Tensor, *, backend: str = AER, shots: int | None = None, seed: int = 0
) -> Parity:
    """Run a layer's circuit on another machine.

    Args:
        layer: trained or not; it is evaluated in double precision.
        inputs: ``(b, n_inputs)``.
        backend: ``"aer"``, or the name of one of IBM's machines, whose credentials were saved with
            ``qiskit_ibm_runtime.QiskitRuntimeService.save_account``.
        shots: of each measurement; None for exact values, which hardware has none of.
        seed: of Aer's sampling.

    Raises:
        ValueError: Qiskit is not installed, the machine cannot be reached, or as ``export.run_on_qiskit``.
    """
    double = QuantumLayer(layer.circuit, dtype=torch.complex128)
    with torch.no_grad():
        double.weights.copy_(layer.weights)
        ours = double(inputs.double())
    machine: dict[str, Any] = {} if backend == AER else export.ibm(backend)
    theirs = export.run_on_qiskit(double, inputs.double(), shots=shots, seed=seed, **machine)
    away = theirs - ours
    c = layer.circuit
    spread = math.sqrt(float((1 - ours.square()).clamp(min=0).mean()) / shots) if shots else 0.0
    return Parity(
        c.name,
        c.n_qubits,
        c.n_layers,
        c.observables,
        backend,
        shots,
        ours.tolist(),
        theirs.tolist(),
        float(away.abs().max()),
        float(away.square().mean().sqrt()),
        spread,
    )


def of_registry(name: str, n_qubits: int, n_layers: int, n_rows: int, seed: int = 0) -> tuple[QuantumLayer, Tensor]:
    """Return a circuit as a layer with random weights, and as many random inputs.

    Raises:
        ValueError: there is no such circuit, or it cannot have this size.
    """
    circuit, weights = circuits.fresh(name, n_qubits, n_layers, seed)
    layer = QuantumLayer(circuit)
    with torch.no_grad():
        layer.weights.copy_(weights)
    drawn = torch.rand(n_rows, circuit.n_inputs, generator=torch_generator(seed, "run circuit"))
    return layer, (2 * drawn - 1) * math.pi


def of_run(
    run: Path,
    arm: str = "hybrid",
    seed: int | None = None,
    fold: str | None = None,
    *,
    n_rows: int,
    cache: Path,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[QuantumLayer, Tensor]:
    """Return a run's trained layer, and what reached it from the first test rows: the angles of real smashed data.

    Raises:
        ValueError, FileNotFoundError: as ``trained.load``, or the arm has no circuit.
    """
    first = next(trained.load(run, arm, seed, fold, cache=cache, n_rows=n_rows, say=say))
    network = first.networks[0]
    layers = [module for module in network.modules() if isinstance(module, QuantumLayer | NoisyLayer)]
    if not layers:
        raise ValueError(f"the arm {arm} of {run} has no circuit: its trunk is classical")
    reached: list[Tensor] = []
    hook = layers[0].register_forward_pre_hook(lambda module, given: reached.append(given[0]))
    with torch.no_grad():
        network(first.x)
    hook.remove()
    watched = layers[0]
    return watched.layer if isinstance(watched, NoisyLayer) else watched, reached[0]
