"""Plain PyTorch on any of its devices, with few operations: rotations of half the register are one matrix product.

The state is ``(2**n, b)``, the sample index last. The shared RY rotations of a level are two real matrices, one for
each half of the register; the phases and the permutation of a level are one product and one gather. Everything is
differentiable as often as wanted, and runs under ``torch.func``.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hcqsfl.quantum.backend import Evaluate
from hcqsfl.quantum.backend.lowering import Angles, Level, Lowered, Phase, Turn, lower, normalised
from hcqsfl.quantum.circuit import Circuit


class _Permute(torch.autograd.Function):
    """A gather of rows by a permutation: its adjoint is a gather too, where ``index_select`` would scatter."""

    generate_vmap_rule = True

    @staticmethod
    def forward(state: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return state.index_select(0, source)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        source, target = ctx.saved_tensors
        permuted: Tensor = _Permute.apply(slope, target, source)
        return permuted, None, None


def signs(masks: Sequence[int], n_qubits: int) -> np.ndarray:
    """Return ``(2**n_qubits, n_masks)``: ``(-1)^parity(k & mask)``."""
    both = np.arange(2**n_qubits)[:, None] & np.array(masks, dtype=np.int64)[None]
    for shift in (16, 8, 4, 2, 1):
        both ^= both >> shift
    return 1.0 - 2.0 * (both & 1)


def selection(rows: Sequence[Sequence[int]], n_columns: int) -> np.ndarray:
    """Return the matrix whose product with a vector sums, row by row, the entries named."""
    matrix = np.zeros((len(rows), n_columns))
    for row, places in enumerate(rows):
        for place in places:
            matrix[row, place] += 1
    return matrix


def outer(factors: Tensor) -> Tensor:
    """Return the tensor products ``(..., 2**m, tail)`` or ``(..., 2**m, 2**m)`` of ``m`` factors along dimension 1.

    ``factors`` is ``(g, m, 2, b)`` for vectors, with the batch last, or ``(g, m, 2, 2)`` for matrices: see ``kron``.
    Pairs are multiplied all at once, so that the number of operations grows with the logarithm of ``m``.
    """
    rest = []
    while factors.shape[1] > 1:
        if factors.shape[1] % 2:
            rest.append(factors[:, -1:])
            factors = factors[:, :-1]
        factors = (factors[:, 0::2].unsqueeze(3) * factors[:, 1::2].unsqueeze(2)).flatten(2, 3)
    for factor in reversed(rest):
        factors = (factors.unsqueeze(3) * factor.unsqueeze(2)).flatten(2, 3)
    return factors[:, 0]


def kron(factors: Tensor) -> Tensor:
    """Return the Kronecker products ``(g, 2**m, 2**m)`` of ``(g, m, 2, 2)``; a batch may come last in both."""
    batched = factors.dim() == 5
    if not batched:
        factors = factors.unsqueeze(-1)
    if not factors.shape[1]:
        result = factors.new_ones(factors.shape[0], 1, 1, factors.shape[-1])
    else:
        rest = []

        def pair(left: Tensor, right: Tensor) -> Tensor:
            return (left[:, :, :, None, :, None] * right[:, :, None, :, None, :]).flatten(4, 5).flatten(2, 3)

        while factors.shape[1] > 1:
            if factors.shape[1] % 2:
                rest.append(factors[:, -1:])
                factors = factors[:, :-1]
            factors = pair(factors[:, 0::2], factors[:, 1::2])
        for factor in reversed(rest):
            factors = pair(factors, factor)
        result = factors[:, 0]
    return result if batched else result[..., 0]


def rotation(angles: Tensor) -> Tensor:
    """Return RY matrices ``(..., 2, 2, *)`` of angles ``(g, m)`` or ``(g, m, b)``, the batch last."""
    c, s = torch.cos(angles / 2), torch.sin(angles / 2)
    return torch.stack([torch.stack([c, -s], 2), torch.stack([s, c], 2)], 2)


def columns_of(chains: Sequence[Sequence[Turn]]) -> Iterator[tuple[tuple[str, bool], list[list[int]]]]:
    """Yield the wires' first rotations in columns of one axis and kind: each wire has its slot there, or none."""
    left = [list(chain) for chain in chains]
    while any(left):
        kind = next((chain[0].axis, chain[0].slot[0]) for chain in left if chain)
        column: list[list[int]] = []
        for chain in left:
            fits = chain and (chain[0].axis, chain[0].slot[0]) == kind
            column.append([chain.pop(0).slot[1]] if fits else [])
        yield kind, column


class _Tables:
    """The constant tensors of a lowered circuit on one device, in one precision."""

    def __init__(self, lowered: Lowered, like: Tensor) -> None:
        circuit = lowered.circuit
        n = circuit.n_qubits
        n_shared, n_sampled = len(lowered.shared), len(lowered.sampled)

        def real(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=like.dtype, device=like.device)

        def index(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=torch.long, device=like.device)

        # the first rotations: runs of shared columns, and sampled columns between them
        self.columns: list[tuple[str, bool, Tensor]] = []
        for (axis, sampled), slots in columns_of(lowered.chains):
            self.columns.append((axis, sampled, real(selection(slots, n_sampled if sampled else n_shared))))
        flip = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        self.generators = {
            "Y": flip.to(like.device, like.dtype.to_complex()),
            "Z": torch.diag(torch.tensor([-1j, 1j])).to(like.device, like.dtype.to_complex()),
        }
        self.identity = torch.eye(2, dtype=like.dtype, device=like.device)

        self.levels = [_LevelTables(level, n, n_shared, n_sampled, real, index) for level in lowered.levels]
        self.turns = real(
            selection([slots for level in lowered.levels for slots in by_wire(level.turns, n, False)], n_shared)
        )
        self.diagonal = all(o.flips == 0 for o in lowered.observables)
        self.signs = real(signs([o.signs for o in lowered.observables], n).T)
        states = np.arange(2**n)
        self.words = [
            (index(states ^ o.flips), torch.as_tensor(pauli_factor(o.signs, o.n_y, n)[states ^ o.flips]).to(
                like.device, like.dtype.to_complex())[:, None])
            for o in lowered.observables
        ]  # fmt: skip


def pauli_factor(mask: int, n_y: int, n_qubits: int) -> np.ndarray:
    """Return ``i^n_y (-1)^parity(k & mask)`` for every basis state."""
    return (1j**n_y) * signs([mask], n_qubits)[:, 0]


def by_wire(turns: Sequence[Turn], n_qubits: int, sampled: bool) -> list[list[int]]:
    """Return for each wire the slots of its shared or sampled rotations."""
    return [[t.slot[1] for t in turns if t.wire == wire and t.slot[0] == sampled] for wire in range(n_qubits)]


class _LevelTables:
    def __init__(self, level: Level, n: int, n_shared: int, n_sampled: int, real: Any, index: Any) -> None:
        source = level.source()
        self.permutes = level.permutes
        self.source, self.target = index(source), index(np.argsort(source))
        self.shared = _phase_matrix([p for p in level.phases if not p.slot[0]], n, n_shared, real)
        self.sampled = _phase_matrix([p for p in level.phases if p.slot[0]], n, n_sampled, real)
        self.rotates = any(not turn.slot[0] for turn in level.turns)
        self.rotates_sampled = any(turn.slot[0] for turn in level.turns)
        self.sampled_turns = real(selection(by_wire(level.turns, n, True), n_sampled))


def _phase_matrix(phases: Sequence[Phase], n_qubits: int, n_slots: int, real: Any) -> Tensor | None:
    if not phases:
        return None
    matrix: Tensor = real(signs([p.mask for p in phases], n_qubits) @ selection([[p.slot[1]] for p in phases], n_slots))
    return matrix


class Fused:
    """A circuit as a few tensor operations."""

    def __init__(self, circuit: Circuit, keep_last: bool = False) -> None:
        self.lowered = lower(circuit, keep_last)
        self.circuit = circuit
        self.angles = Angles(self.lowered)
        self.half = circuit.n_qubits // 2
        self._tables: dict[tuple[torch.dtype, torch.device], _Tables] = {}

    def tables(self, like: Tensor) -> _Tables:
        """Return the constants for a tensor's precision and device."""
        key = (like.dtype, like.device)
        if key not in self._tables:
            self._tables[key] = _Tables(self.lowered, like)
        return self._tables[key]

    def state(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the last level's state ``(2**n_qubits, b)``, complex."""
        return self.state_of(*self.arguments(inputs, weights))

    def arguments(self, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sampled angles, first amplitudes (none if the circuit starts from zero), and shared angles."""
        flat = weights.reshape(-1)
        amplitudes = normalised(self.circuit, inputs) if self.circuit.start == "amplitudes" else inputs.new_empty(0, 0)
        return self.angles.sampled(inputs, flat), amplitudes, self.angles.shared(flat)

    def state_of(self, sampled: Tensor, amplitudes: Tensor, shared: Tensor) -> Tensor:
        """Return the last level's state from what ``arguments`` returns."""
        t, b = self.tables(shared), len(sampled)
        sampled = sampled.t()
        if self.circuit.start == "amplitudes":
            state = torch.complex(amplitudes.t(), torch.zeros_like(amplitudes.t()))
        else:
            state = outer(self.vectors(t, shared, sampled)[None])[0]
        state = state.expand(-1, b)
        if not self.lowered.levels:
            return state
        turns = rotation((t.turns @ shared).view(len(t.levels), -1))
        upper, lower_half = kron(turns[:, : self.half]), kron(turns[:, self.half :])
        d1, d2 = upper.shape[-1], lower_half.shape[-1]
        for number, level in enumerate(t.levels):
            if level.permutes:
                state = _Permute.apply(state, level.source, level.target)
            if level.shared is not None:
                state = state * phase(level.shared @ shared)[:, None]
            if level.sampled is not None:
                state = state * phase(level.sampled @ sampled)
            if level.rotates:
                planes = torch.view_as_real(state).reshape(d1, -1)
                planes = torch.mm(upper[number], planes).view(d1, d2, -1)
                planes = torch.matmul(lower_half[number], planes)
                state = torch.view_as_complex(planes.view(d1 * d2, -1, 2))
            if level.rotates_sampled:
                state = self.rotate_sampled(state, level.sampled_turns @ sampled)
        return state

    def vectors(self, t: _Tables, shared: Tensor, sampled: Tensor) -> Tensor:
        """Return each qubit's amplitudes ``(n_qubits, 2, b or 1)`` before anything entangles them."""
        n = self.circuit.n_qubits
        vector = t.identity[:, :1].to(t.identity.dtype.to_complex()).expand(n, 2, 1)
        untouched = True
        waiting: Tensor | None = None  # the product of shared rotations since the last sampled one

        for axis, per_sample, slots in t.columns:
            if not per_sample:
                half = (slots @ shared / 2)[:, None, None]
                matrix = torch.cos(half) * t.identity + torch.sin(half) * t.generators[axis]
                waiting = matrix if waiting is None else matrix @ waiting
                continue
            if waiting is not None:
                vector, waiting, untouched = waiting @ vector, None, False
            half = slots @ sampled / 2
            c, s = torch.cos(half), torch.sin(half)
            if axis == "Z":
                turned = torch.complex(c, s)
                vector = vector * torch.stack([turned.conj(), turned], 1)
            elif untouched:
                vector = torch.complex(torch.stack([c, s], 1), torch.zeros_like(c)[:, None].expand(-1, 2, -1))
            else:
                v0, v1 = vector[:, 0], vector[:, 1]
                vector = torch.stack([c * v0 - s * v1, s * v0 + c * v1], 1)
            untouched = False
        return vector if waiting is None else waiting @ vector

    def rotate_sampled(self, state: Tensor, turns: Tensor) -> Tensor:
        """Rotate each sample's qubits by its own RY ``(n_qubits, b)``: two small matrices a sample."""
        matrices = rotation(turns[None])
        upper = kron(matrices[:, : self.half])[0].permute(2, 0, 1)
        lower_half = kron(matrices[:, self.half :])[0].permute(2, 0, 1)
        d1, d2, b = upper.shape[-1], lower_half.shape[-1], state.shape[-1]
        planes = torch.view_as_real(state).view(d1, d2, b, 2).permute(2, 0, 1, 3)  # (b, d1, d2, 2)
        planes = torch.bmm(upper, planes.reshape(b, d1, d2 * 2)).view(b, d1, d2, 2)
        planes = torch.matmul(lower_half[:, None], planes)
        return torch.view_as_complex(planes.permute(1, 2, 0, 3).contiguous()).view(d1 * d2, b)

    def values(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the expectation values ``(b, n_observables)``."""
        return self.values_of(*self.arguments(inputs, weights))

    def values_of(self, sampled: Tensor, amplitudes: Tensor, shared: Tensor) -> Tensor:
        """Return the expectation values from what ``arguments`` returns."""
        t = self.tables(shared)
        state = self.state_of(sampled, amplitudes, shared)
        if t.diagonal:
            parts = torch.view_as_real(state).square().flatten(1)  # (2**n, 2 b)
            return torch.mm(t.signs, parts).view(len(t.signs), -1, 2).sum(2).t()
        found = [(state.conj() * factor * state.index_select(0, place)).real.sum(0) for place, factor in t.words]
        return torch.stack(found, 1)


def phase(angles: Tensor) -> Tensor:
    """Return ``exp(-i/2 angles)``."""
    half = angles / 2
    return torch.complex(torch.cos(half), -torch.sin(half))


@lru_cache(maxsize=64)
def fused_of(circuit: Circuit, keep_last: bool = False) -> Fused:
    """Return the circuit's plan; a circuit is planned once."""
    return Fused(circuit, keep_last)


def build(circuit: Circuit) -> Evaluate:
    """Return the evaluation in plain PyTorch."""
    return fused_of(circuit).values


def per_sample(circuit: Circuit, inputs: Tensor, weights: Tensor, slopes: Tensor) -> Tensor:
    """Return each sample's gradient of ``(values * slopes).sum()`` to the weights, ``(b, *weight_shape)``."""
    values = fused_of(circuit).values

    def loss(weights: Tensor, sample: Tensor, slope: Tensor) -> Tensor:
        return (values(sample[None], weights)[0] * slope).sum()

    gradients: Tensor = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights.detach(), inputs, slopes)
    return gradients


def states(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Return the states ``(b, 2**n_qubits)`` at the end of a circuit, up to one phase common to all.

    Args:
        circuit: what to run; its observables are not read.
        inputs: ``(b, n_inputs)``, real.
        weights: of the circuit's shape, of the same dtype and device.
    """
    return fused_of(circuit, keep_last=True).state(inputs, weights).t()
