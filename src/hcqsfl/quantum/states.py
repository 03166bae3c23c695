"""State vectors of a circuit, for whoever needs more of them than expectation values: kernels, noise, diagnostics.

Qubit 0 is the most significant bit of a basis state's number. Everything is differentiable.
"""

import math

import torch
from torch import Tensor

from hcqsfl.quantum.backend.fused import fused_of
from hcqsfl.quantum.circuit import Circuit, Gate, check_finite, check_memory, check_width


def states(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Return the final state of each sample, ``(b, 2**n_qubits)`` complex, global phase included.

    Args:
        circuit: what to run.
        inputs: ``(b, n_inputs)`` features.
        weights: of the circuit's shape, or flat; their dtype sets the precision.

    Raises:
        ValueError: the width is wrong, a number is not finite, or the states do not fit into memory.
    """
    check_numbers(circuit, inputs, weights)
    real = inputs.to(weights.dtype)
    check_memory(circuit, len(real), real.dtype.to_complex())
    if not len(real):
        return real.new_zeros(0, 2**circuit.n_qubits).to(real.dtype.to_complex())
    return fused_of(circuit, keep_last=True).state(real, weights).t() * lost_phase(circuit)


def check_numbers(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """Refuse inputs or weights that the circuit cannot read.

    Raises:
        ValueError: a shape is wrong, or a number is NaN or infinite.
    """
    check_width(circuit, inputs)
    if weights.numel() != circuit.n_weights:
        raise ValueError(f"circuit {circuit.name} has {circuit.n_weights} weights, not {weights.numel()}")
    check_finite(circuit, inputs, weights)


def states_by_weights(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Return the states ``(b, 2**n_qubits)`` of samples that have weights of their own, up to a phase.

    Args:
        circuit: what to run.
        inputs: ``(b, n_inputs)``.
        weights: ``(b, *weight_shape)``.
    """
    check_memory(circuit, len(inputs), weights.dtype.to_complex())
    plan = fused_of(circuit, keep_last=True)

    def one(sample: Tensor, own: Tensor) -> Tensor:
        return plan.state(sample[None], own)[:, 0]

    found: Tensor = torch.func.vmap(one)(inputs.to(weights.dtype), weights)
    return found


def lost_phase(circuit: Circuit) -> complex:
    """Return the constant phase by which the fused operations differ from the gates as they are defined."""
    # RZ(pi) RY(pi/2) is -i H; two RZ(pi/2) and RZZ(-pi/2) are exp(-i pi/4) CZ; all other gates are exact
    eighths = sum({"H": 2, "CZ": 1}.get(gate.name, 0) for gate in circuit.gates) % 8
    return complex(math.cos(math.pi * eighths / 4), math.sin(math.pi * eighths / 4))


def reduced(states: Tensor) -> Tensor:
    """Return the reduced density matrices ``(b, n_qubits, 2, 2)`` of single qubits of pure states ``(b, 2**n)``."""
    n_qubits = states.shape[1].bit_length() - 1
    found = []
    for wire in range(n_qubits):
        parts = states.view(len(states), 2**wire, 2, -1).transpose(1, 2).flatten(2)  # (b, 2, 2**(n - 1))
        found.append(parts @ parts.mH)
    return torch.stack(found, dim=1)


def bloch(states: Tensor) -> Tensor:
    """Return ``<X>, <Y>, <Z>`` of every qubit of pure states ``(b, 2**n)``: ``(b, n_qubits, 3)`` real."""
    rho = reduced(states)
    return torch.stack(
        [2 * rho[..., 1, 0].real, 2 * rho[..., 1, 0].imag, (rho[..., 0, 0] - rho[..., 1, 1]).real], dim=-1
    )


def gate_matrix(gate: Gate, inputs: Tensor, weights: Tensor) -> Tensor:
    """Return a gate's matrix ``(2**k, 2**k)``, or ``(b, 2**k, 2**k)`` where an angle reads the inputs.

    Args:
        gate: which.
        inputs: ``(b, n_inputs)``.
        weights: flat weights ``(n_weights,)``.
    """
    angles = [angle.value(inputs, weights) for angle in gate.angles]
    like = weights.new_zeros(()).to(weights.dtype.to_complex())
    match gate.name:
        case "H":
            return _constant([[1, 1], [1, -1]], like) / math.sqrt(2)
        case "RX" | "RY" | "RZ":
            return _rotation(gate.name[1], angles[0])
        case "Rot":
            phi, theta, omega = angles
            return _rotation("Z", omega) @ _rotation("Y", theta) @ _rotation("Z", phi)
        case "CNOT":
            return _controlled(_constant([[0, 1], [1, 0]], like))
        case "CZ":
            return _controlled(_constant([[1, 0], [0, -1]], like))
        case "CRX" | "CRZ":
            return _controlled(_rotation(gate.name[2], angles[0]))
        case "RZZ":
            turned = _phase(angles[0])
            return torch.diag_embed(torch.stack([turned, turned.conj(), turned.conj(), turned], -1))
    raise ValueError(f"gate {gate.name} has no matrix")


def apply(matrix: Tensor, tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return ``tensor (b, 2, ..., 2)`` with some axes multiplied by a matrix.

    Args:
        matrix: ``(2**k, 2**k)`` for all samples, or ``(b, 2**k, 2**k)``.
        tensor: the sample index first.
        axes: the ``k`` axes, counted from the first after the sample's, the most significant first.
    """
    places = [axis + 1 for axis in axes]
    ends = list(range(1, 1 + len(axes)))
    moved = tensor.movedim(places, ends)
    product = matrix @ moved.reshape(len(tensor), 2 ** len(axes), -1)
    return product.view(len(tensor), *moved.shape[1:]).movedim(ends, places)


def first_tensor(circuit: Circuit, inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the first states ``(b, 2, ..., 2)`` of a circuit."""
    from hcqsfl.quantum.backend.lowering import normalised

    if circuit.start == "amplitudes":
        flat = normalised(circuit, inputs).to(dtype)
    else:
        flat = torch.zeros(len(inputs), 2**circuit.n_qubits, dtype=dtype, device=inputs.device)
        flat[:, 0] = 1
    return flat.view(len(inputs), *(2,) * circuit.n_qubits)


def _constant(rows: list[list[int]], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _phase(angle: Tensor) -> Tensor:
    """Return ``exp(-i/2 angle)``."""
    return torch.complex(torch.cos(angle / 2), -torch.sin(angle / 2))


def _rotation(axis: str, angle: Tensor) -> Tensor:
    c, s = torch.cos(angle / 2), torch.sin(angle / 2)
    none = torch.zeros_like(c)
    if axis == "Z":
        turned = torch.complex(c, -s)
        return torch.diag_embed(torch.stack([turned, turned.conj()], -1))
    off = torch.complex(none, -s) if axis == "X" else torch.complex(-s, none)
    back = off if axis == "X" else -off
    diagonal = torch.complex(c, none)
    return torch.stack([torch.stack([diagonal, off], -1), torch.stack([back, diagonal], -1)], -2)


def _controlled(matrix: Tensor) -> Tensor:
    upper = torch.eye(2, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    zero = torch.zeros_like(matrix)
    return torch.cat([torch.cat([upper, zero], -1), torch.cat([zero, matrix], -1)], -2)
