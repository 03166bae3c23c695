"""Draw and export circuits: of the registry, or as a run trained them."""

from pathlib import Path

import torch
from torch import Tensor

from hcqsfl import build, config
from hcqsfl.federated import checkpoint
from hcqsfl.quantum import circuits
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.recipes.trained import checkpoints

WEIGHTS = "trunk.middle.weights"


def trained(run: Path, arm: str = "hybrid", seed: int | None = None, fold: str | None = None) -> tuple[Circuit, Tensor]:
    """Return the circuit of a run and its weights as they were tested.

    Args:
        run: the run's folder.
        arm: whose circuit.
        seed, fold: of which training; the first one unless given.

    Raises:
        ValueError, FileNotFoundError: there is no such run or training, or the arm has no circuit.
    """
    found = checkpoints(run, arm, seed, fold)
    settings = config.load(run / "config.toml")
    tensors, _ = checkpoint.load(found[0])
    weights = [tensor for name, tensor in tensors.items() if name.startswith("best/") and name.endswith(WEIGHTS)]
    circuit = build.circuit(settings)
    if not weights or weights[0].shape != circuit.weight_shape:
        raise ValueError(f"the arm {arm} of {run} has no circuit: its trunk is classical")
    return circuit, weights[0]


def fresh(name: str, n_qubits: int, n_layers: int, seed: int = 0) -> tuple[Circuit, Tensor]:
    """Return a circuit of the registry with weights as a layer draws them.

    Raises:
        ValueError: there is no such circuit, or it cannot have this size.
    """
    circuit = circuits.make(name, n_qubits, n_layers)
    generator = torch.Generator().manual_seed(seed)
    return circuit, 2 * torch.pi * torch.rand(circuit.weight_shape, generator=generator)
