"""A circuit as data: the gates, and what each angle is made of, for every backend, the export and the drawing.

Qubit 0 is the most significant bit of a basis state's number, as in PennyLane.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from hcqsfl.registry import lookup

GATES: dict[str, tuple[int, int]] = {
    "H": (1, 0),
    "RX": (1, 1),
    "RY": (1, 1),
    "RZ": (1, 1),
    "Rot": (1, 3),
    "CNOT": (2, 0),
    "CZ": (2, 0),
    "RZZ": (2, 1),
    "CRX": (2, 1),
    "CRZ": (2, 1),
}
"""How many wires and angles a gate has. ``Rot(phi, theta, omega)`` is RZ(phi), RY(theta), RZ(omega) in this order of
time; ``RZZ(t) = exp(-i t/2 Z Z)``; the first wire of ``CNOT``, ``CRX`` and ``CRZ`` is the control."""

STARTS = ("zero", "amplitudes")
"""The first state: all qubits 0, or the inputs as amplitudes, padded with zeros and normalised."""


@dataclass(frozen=True)
class Angle:
    """``scale * weights[weight] * prod(inputs[i] - shift for i in inputs)`` in radians; what is absent counts as 1.

    Attributes:
        inputs: which features it multiplies; one of them for an ordinary encoding, two for a feature map of pairs.
        weight: place of its weight in the flattened weights.
        scale: constant factor; the angle itself when there is neither an input nor a weight.
        shift: taken off every input before they are multiplied.
    """

    inputs: tuple[int, ...] = ()
    weight: int | None = None
    scale: float = 1.0
    shift: float = 0.0

    @property
    def per_sample(self) -> bool:
        """Whether the angle differs between the samples of a batch."""
        return bool(self.inputs)

    def value(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the angle: ``(...)`` where it reads the inputs ``(..., n_inputs)``, else a scalar tensor.

        Args:
            inputs: features, the sample index first, so that a batch broadcasts.
            weights: the flattened weights ``(n_weights,)``.
        """
        total = weights.new_tensor(self.scale) if self.weight is None else self.scale * weights[self.weight]
        for i in self.inputs:
            total = total * (inputs[..., i] - self.shift)
        return total


def constant(radians: float) -> Angle:
    """An angle that neither learns nor reads."""
    return Angle(scale=radians)


def feature(i: int, scale: float = 1.0) -> Angle:
    """``scale * inputs[i]``."""
    return Angle(inputs=(i,), scale=scale)


def weight(i: int) -> Angle:
    """The ``i``-th of the flattened weights."""
    return Angle(weight=i)


@dataclass(frozen=True)
class Gate:
    """One gate.

    Attributes:
        name: a key of ``GATES``.
        wires: the qubits it acts on, the control first.
        angles: as many as the gate has.

    Raises:
        ValueError: there is no such gate, or it has another number of wires or angles.
    """

    name: str
    wires: tuple[int, ...]
    angles: tuple[Angle, ...] = ()

    def __post_init__(self) -> None:
        n_wires, n_angles = lookup("gate", GATES, self.name)
        if len(self.wires) != n_wires or len(self.angles) != n_angles:
            raise ValueError(
                f"gate {self.name} has {n_wires} wires and {n_angles} angles, "
                f"not {len(self.wires)} and {len(self.angles)}"
            )
        if len(set(self.wires)) != n_wires:
            raise ValueError(f"gate {self.name} acts twice on wire {self.wires[0]}")


@dataclass(frozen=True)
class Observable:
    """A product of Pauli operators, written as ``"Z0"`` or ``"X0 Y2"``: each a letter and its wire.

    Raises:
        ValueError: the text reads otherwise, or a wire occurs twice.
    """

    text: str
    paulis: tuple[tuple[str, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        words = self.text.split()
        if not words or any(word[0] not in "XYZ" or not word[1:].isdecimal() for word in words):
            raise ValueError(
                f"observable {self.text!r} is unknown; write Pauli letters X, Y, Z with their wires: 'Z0', 'X0 Y2'"
            )
        paulis = tuple((word[0], int(word[1:])) for word in words)
        if len({wire for _, wire in paulis}) != len(paulis):
            raise ValueError(f"observable {self.text!r} acts twice on one wire")
        object.__setattr__(self, "paulis", paulis)

    @property
    def diagonal(self) -> bool:
        """Whether it is made of Z alone."""
        return all(letter == "Z" for letter, _ in self.paulis)


@dataclass(frozen=True)
class Circuit:
    """Gates between a first state and expectation values.

    Attributes:
        name: of the registry, for reports.
        n_qubits: size of the register.
        n_layers: how often the trainable block repeats.
        n_inputs: features a sample has.
        weight_shape: shape of the weights; a gate names its weight by the place in the flattened tensor.
        gates: in order of time.
        observables: what is measured, each as ``Observable`` reads it.
        start: one of ``STARTS``.

    Raises:
        ValueError: a part contradicts another, or the state of one sample does not fit into memory.
    """

    name: str
    n_qubits: int
    n_layers: int
    n_inputs: int
    weight_shape: tuple[int, ...]
    gates: tuple[Gate, ...]
    observables: tuple[str, ...]
    start: str = "zero"

    def __post_init__(self) -> None:
        if self.n_qubits < 1 or self.n_layers < 0 or self.n_inputs < 1:
            raise ValueError(
                f"circuit {self.name} needs at least 1 qubit, 0 layers and 1 input, "
                f"not {self.n_qubits}, {self.n_layers} and {self.n_inputs}"
            )
        check_memory(self, 1)
        if self.start not in STARTS:
            raise ValueError(f"circuit {self.name} starts from {self.start!r}, which is none of {', '.join(STARTS)}")
        if self.start == "amplitudes" and self.n_inputs > 2**self.n_qubits:
            raise ValueError(
                f"circuit {self.name}: {self.n_inputs} amplitudes do not fit the {2**self.n_qubits} basis states "
                f"of {self.n_qubits} qubits; at least {(self.n_inputs - 1).bit_length()} qubits hold them"
            )
        if not self.observables:
            raise ValueError(f"circuit {self.name} measures nothing")
        wires = {wire for gate in self.gates for wire in gate.wires}
        wires |= {wire for text in self.observables for _, wire in Observable(text).paulis}
        if outside := sorted(wire for wire in wires if not 0 <= wire < self.n_qubits):
            raise ValueError(f"circuit {self.name} has {self.n_qubits} qubits, so there is no wire {outside[0]}")
        angles = [angle for gate in self.gates for angle in gate.angles]
        if bad := [i for angle in angles for i in angle.inputs if not 0 <= i < self.n_inputs]:
            raise ValueError(f"circuit {self.name} has {self.n_inputs} inputs, so there is no input {bad[0]}")
        places = {angle.weight for angle in angles if angle.weight is not None}
        if places != set(range(self.n_weights)):
            raise ValueError(
                f"circuit {self.name}: the weights of shape {self.weight_shape} have {self.n_weights} entries, "
                f"but the gates read {len(places)} of them"
            )

    def __hash__(self) -> int:
        # plans are looked up by circuit at every step: few of its parts tell circuits apart well enough
        return hash((self.name, self.n_qubits, self.n_inputs, self.weight_shape, len(self.gates), self.observables))

    @cached_property
    def n_weights(self) -> int:
        """Number of trainable angles."""
        return math.prod(self.weight_shape)

    @property
    def n_observables(self) -> int:
        """Width of the layer's output."""
        return len(self.observables)

    @cached_property
    def paulis(self) -> tuple[Observable, ...]:
        """The observables, read."""
        return tuple(map(Observable, self.observables))


def on_every_qubit(n_qubits: int, letter: str = "Z") -> tuple[str, ...]:
    """``("Z0", "Z1", ...)``."""
    return tuple(f"{letter}{wire}" for wire in range(n_qubits))


def angle_embedding(axes: str, n_qubits: int) -> Iterable[Gate]:
    """One rotation a qubit, ``inputs[i]`` on wire ``i``; ``axes`` is X, Y or Z."""
    return (Gate(f"R{axes}", (wire,), (feature(wire),)) for wire in range(n_qubits))


def rot(wire: int, first: int) -> Gate:
    """``Rot`` by three successive weights from ``first`` on."""
    return Gate("Rot", (wire,), (weight(first), weight(first + 1), weight(first + 2)))


def ring(n_qubits: int, reach: int = 1) -> Iterable[Gate]:
    """A CNOT from every qubit to the one ``reach`` further round, none for a single qubit."""
    return (Gate("CNOT", (wire, (wire + reach) % n_qubits)) for wire in range(n_qubits if n_qubits > 1 else 0))


def check_layers(name: str, n_layers: int) -> None:
    """Refuse a trainable circuit without a layer.

    Raises:
        ValueError: ``n_layers`` is below 1.
    """
    if n_layers < 1:
        raise ValueError(f"circuit {name} needs at least 1 layer, not {n_layers}")


def in_layers(n_layers: int) -> str:
    """Return ``"1 layer"``, ``"2 layers"``."""
    return "1 layer" if n_layers == 1 else f"{n_layers} layers"


def total_memory() -> int:
    """Bytes of physical memory; where the platform does not tell, 16 GiB is taken."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 16 * 2**30


def check_memory(circuit: Circuit, batch: int, dtype: torch.dtype = torch.complex64) -> None:
    """Refuse a batch whose states cannot fit into this machine's memory.

    A backward pass holds about one state for each layer, and two to work with.

    Raises:
        ValueError: they need more than there is; the message says how much.
    """
    needed = batch * (circuit.n_layers + 2) * 2**circuit.n_qubits * dtype.itemsize
    if needed >= 2**28 and needed > (memory := total_memory()):
        samples = "1 sample" if batch == 1 else f"{batch} samples"
        raise ValueError(
            f"{circuit.n_qubits} qubits and {in_layers(circuit.n_layers)} need {needed / 2**30:,.1f} GiB "
            f"for the states of {samples}, and this machine has {memory / 2**30:,.1f} GiB; "
            "take fewer qubits or a smaller batch"
        )


def check_width(circuit: Circuit, inputs: Tensor) -> None:
    """Refuse inputs of another shape than ``(b, n_inputs)``.

    Raises:
        ValueError: they have another.
    """
    if inputs.dim() != 2 or inputs.shape[1] != circuit.n_inputs:
        raise ValueError(f"circuit {circuit.name} reads (b, {circuit.n_inputs}) inputs, not {tuple(inputs.shape)}")


def check_finite(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """Refuse numbers that are NaN or infinite.

    Args:
        circuit: what reads them.
        inputs: ``(b, n_inputs)``.
        weights: of any shape.

    Raises:
        ValueError: there is one.
    """
    # a sum is NaN or infinite as soon as one summand is: one number to fetch in the ordinary case
    if math.isfinite((inputs.detach().sum() + weights.detach().sum()).item()):
        return
    if not torch.isfinite(weights).all():
        raise ValueError(f"a weight of circuit {circuit.name} is NaN or infinite; has the training diverged?")
    wrong = (~torch.isfinite(inputs)).nonzero()
    if len(wrong):
        sample, place = wrong[0].tolist()
        raise ValueError(
            f"circuit {circuit.name}: input {place} of sample {sample} is {inputs[sample, place].item()}; "
            f"{len(wrong)} of {inputs.numel()} inputs are NaN or infinite"
        )
