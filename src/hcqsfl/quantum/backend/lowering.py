"""A circuit rewritten into the few steps that the own backends are fast at.

Every gate is a product of RY, of diagonal phases and of permutations of the basis states (up to a phase of the whole
state). Gates that act on one qubit before anything entangles it make a product state, which is built by outer
products. What follows is cut into levels: permute, multiply by phases, then rotate qubits by RY, which keeps the real
and imaginary planes apart. A final level changes no probability but by its permutation, so that diagonal observables
absorb it.

A set of qubits is a mask whose bit ``n_qubits - 1 - wire`` stands for ``wire``, as in the number of a basis state.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hcqsfl.quantum.circuit import Angle, Circuit, Gate, Observable, constant

Slot = tuple[bool, int]
"""An angle's place: whether it differs between samples, and its column there."""


@dataclass(frozen=True)
class Phase:
    """``exp(-i/2 angle (-1)^parity(k & mask))`` on basis state ``k``."""

    mask: int
    slot: Slot


@dataclass(frozen=True)
class Turn:
    """RY (or, before the levels, RZ) of one qubit."""

    axis: str
    wire: int
    slot: Slot


@dataclass
class Level:
    """Permute (state ``k`` goes to the sum over its bits of ``columns``, modulo 2), then phases, then rotations."""

    columns: list[int]
    phases: list[Phase] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    @property
    def permutes(self) -> bool:
        """Whether any basis state moves."""
        return any(column != 1 << bit for bit, column in enumerate(self.columns))

    def source(self) -> np.ndarray:
        """Return ``(2**n_qubits,)``: from where each basis state is read."""
        states = np.arange(2 ** len(self.columns))
        targets = np.zeros_like(states)
        for bit, column in enumerate(self.columns):
            targets ^= np.where(states >> bit & 1, column, 0)
        source = np.empty_like(states)
        source[targets] = states
        return source

    def move(self, control: int, target: int) -> None:
        """Append a CNOT between two bits; phases that came before it are restated behind it."""
        self.columns = [column ^ ((column >> control & 1) << target) for column in self.columns]
        self.phases = [replace(p, mask=p.mask ^ ((p.mask >> target & 1) << control)) for p in self.phases]


@dataclass(frozen=True)
class PauliMask:
    """A Pauli word as masks: it sends ``k`` to ``k ^ flips`` with the factor ``i^n_y (-1)^parity(k & signs)``."""

    flips: int
    signs: int
    n_y: int


@dataclass(frozen=True)
class Lowered:
    """What the own backends run.

    Attributes:
        circuit: where it comes from.
        shared: angles that all samples have in common, in the order of ``Slot`` columns.
        sampled: angles that differ between samples.
        chains: for each wire its rotations, in order of time, before the first level.
        levels: in order of time.
        observables: one mask for each of the circuit's.
    """

    circuit: Circuit
    shared: tuple[Angle, ...]
    sampled: tuple[Angle, ...]
    chains: tuple[tuple[Turn, ...], ...]
    levels: tuple[Level, ...]
    observables: tuple[PauliMask, ...]


Primitive = tuple[str, tuple[int, ...], Angle | None]


def primitives(gate: Gate) -> Iterator[Primitive]:
    """Yield the gate as ``RY``, ``RZ``, ``RZZ`` and ``CNOT``, in order of time, up to a global phase."""
    wires, angles = gate.wires, gate.angles
    target = wires[-1:]
    match gate.name:
        case "RY" | "RZ" | "RZZ":
            yield gate.name, wires, angles[0]
        case "CNOT":
            yield "CNOT", wires, None
        case "Rot":
            for axis, angle in zip("ZYZ", angles, strict=True):
                yield f"R{axis}", wires, angle
        case "RX":
            yield from _turned(wires, angles[0])
        case "H":
            yield "RZ", wires, constant(math.pi)
            yield "RY", wires, constant(math.pi / 2)
        case "CZ":
            yield "RZ", wires[:1], constant(math.pi / 2)
            yield "RZ", target, constant(math.pi / 2)
            yield "RZZ", wires, constant(-math.pi / 2)
        case "CRZ":
            yield "RZ", target, _times(angles[0], 0.5)
            yield "RZZ", wires, _times(angles[0], -0.5)
        case "CRX":
            yield "RY", target, constant(-math.pi / 2)
            yield "RZ", target, _times(angles[0], 0.5)
            yield "RZZ", wires, _times(angles[0], -0.5)
            yield "RY", target, constant(math.pi / 2)
        case _:
            raise ValueError(f"gate {gate.name} cannot be written as RY, phases and CNOT")


def _turned(wires: tuple[int, ...], angle: Angle) -> Iterator[Primitive]:
    """RX as RY between two fixed RZ: the matrices stay real."""
    yield "RZ", wires, constant(math.pi / 2)
    yield "RY", wires, angle
    yield "RZ", wires, constant(-math.pi / 2)


def _times(angle: Angle, factor: float) -> Angle:
    return replace(angle, scale=angle.scale * factor)


@lru_cache(maxsize=64)
def lower(circuit: Circuit, keep_last: bool = False) -> Lowered:
    """Return the circuit in levels; a circuit is lowered once.

    Args:
        circuit: what to rewrite.
        keep_last: keep a last level that only permutes and multiplies by phases: for whoever wants the state.
    """
    n = circuit.n_qubits
    slots: dict[Angle, Slot] = {}
    counts = [0, 0]
    chains: list[list[Turn]] = [[] for _ in range(n)]
    entangled = [circuit.start != "zero"] * n
    levels: list[Level] = []
    depth = [0] * n  # twice the level a wire has reached, and 1 more once it is rotated there

    def slot_of(angle: Angle) -> Slot:
        if angle not in slots:
            slots[angle] = (angle.per_sample, counts[angle.per_sample])
            counts[angle.per_sample] += 1
        return slots[angle]

    def level(number: int) -> Level:
        while len(levels) <= number:
            levels.append(Level([1 << bit for bit in range(n)]))
        return levels[number]

    for gate in circuit.gates:
        for name, wires, angle in primitives(gate):
            if len(wires) == 1 and not entangled[wires[0]]:
                assert angle is not None
                chains[wires[0]].append(Turn(name[1], wires[0], slot_of(angle)))
                continue
            for wire in wires:
                entangled[wire] = True
            bits = [n - 1 - wire for wire in wires]
            if name == "RY":
                assert angle is not None
                level(depth[wires[0]] // 2).turns.append(Turn("Y", wires[0], slot_of(angle)))
                depth[wires[0]] |= 1
                continue
            reached = max((depth[wire] + 1) // 2 for wire in wires)
            for wire in wires:
                depth[wire] = 2 * reached
            if angle is None:
                level(reached).move(*bits)
            else:
                level(reached).phases.append(Phase(sum(1 << bit for bit in bits), slot_of(angle)))

    paulis = circuit.paulis
    observables = [_masks(observable, n) for observable in paulis]
    if not keep_last and levels and not levels[-1].turns and all(observable.diagonal for observable in paulis):
        last = levels.pop()
        observables = [
            replace(o, signs=sum(_parity(o.signs & column) << bit for bit, column in enumerate(last.columns)))
            for o in observables
        ]
    by_kind: tuple[list[Angle], list[Angle]] = ([], [])
    for angle in slots:
        by_kind[angle.per_sample].append(angle)
    return Lowered(
        circuit=circuit,
        shared=tuple(by_kind[False]),
        sampled=tuple(by_kind[True]),
        chains=tuple(map(tuple, chains)),
        levels=tuple(levels),
        observables=tuple(observables),
    )


def _parity(mask: int) -> int:
    return mask.bit_count() & 1


def _masks(observable: Observable, n_qubits: int) -> PauliMask:
    flips = signs = n_y = 0
    for letter, wire in observable.paulis:
        bit = 1 << (n_qubits - 1 - wire)
        flips |= bit if letter in "XY" else 0
        signs |= bit if letter in "YZ" else 0
        n_y += letter == "Y"
    return PauliMask(flips, signs, n_y)


class Angles:
    """The angles of a lowered circuit from its inputs and weights, in torch, so that autograd knows them."""

    def __init__(self, lowered: Lowered) -> None:
        circuit = lowered.circuit
        self.n_inputs = circuit.n_inputs
        self._shared = lowered.shared
        self._sampled = lowered.sampled
        self._plain_shared = [a.weight for a in lowered.shared] == list(range(circuit.n_weights)) and all(
            a.scale == 1 for a in lowered.shared
        )
        self._plain_sampled = list(lowered.sampled) == [Angle(inputs=(i,)) for i in range(circuit.n_inputs)]
        self._tables: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}

    def shared(self, weights: Tensor) -> Tensor:
        """Return ``(..., n_shared)`` of flat weights ``(..., n_weights)``."""
        if self._plain_shared:
            return weights
        place, scale = self._table(weights)[:2]
        return _with_one(weights).index_select(-1, place) * scale

    def sampled(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return ``(b, n_sampled)``; the flat weights may differ between samples, ``(b, n_weights)``."""
        if self._plain_sampled:
            return inputs
        if not self._sampled:
            return inputs.new_empty(len(inputs), 0)
        place, scale, *factors = self._table(weights)[2:]
        total = scale
        if any(angle.weight is not None for angle in self._sampled):
            total = total * _with_one(weights).index_select(-1, place)
        features = _with_one(inputs)
        for which, shift in zip(factors[::2], factors[1::2], strict=True):
            total = total * (features.index_select(-1, which) - shift)
        return total

    def _table(self, like: Tensor) -> list[Tensor]:
        key = (like.dtype, like.device)
        if key not in self._tables:
            with torch._C._DisableFuncTorch():  # else they would belong to the transform that met the circuit first
                self._tables[key] = self._made(like)
        return self._tables[key]

    def _made(self, like: Tensor) -> list[Tensor]:

        def places(numbers: list[int]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.long, device=like.device)

        def factors(numbers: list[float]) -> Tensor:
            return torch.tensor(numbers, dtype=like.dtype, device=like.device)

        one = like.shape[-1]  # the place behind the weights, where a 1 is
        table = []
        for angles in (self._shared, self._sampled):
            table.append(places([one if a.weight is None else a.weight for a in angles]))
            table.append(factors([a.scale for a in angles]))
        for k in range(max((len(a.inputs) for a in self._sampled), default=0)):
            has = [k < len(a.inputs) for a in self._sampled]
            pairs = list(zip(self._sampled, has, strict=True))
            table.append(places([a.inputs[k] if there else self.n_inputs for a, there in pairs]))
            table.append(factors([a.shift if there else 0.0 for a, there in pairs]))
        return table


def _with_one(numbers: Tensor) -> Tensor:
    return torch.cat([numbers, numbers.new_ones(*numbers.shape[:-1], 1)], -1)


def normalised(circuit: Circuit, inputs: Tensor) -> Tensor:
    """Return inputs as amplitudes ``(..., 2**n_qubits)``: padded with zeros and of length 1."""
    padded = torch.nn.functional.pad(inputs, (0, 2**circuit.n_qubits - circuit.n_inputs))
    return padded / padded.norm(dim=-1, keepdim=True)
