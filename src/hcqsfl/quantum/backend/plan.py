"""A lowered circuit in few operations of PyTorch: rotations of half the register are one matrix product.

The state is ``(2**n, b)``, the sample index last. The shared RY rotations of a level are two real matrices, one for
each half of the register; the phases and the permutation of a level are one product and one gather. Written so, a
circuit can be differentiated as often as wanted, and runs under ``torch.func``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hcqsfl.quantum.backend.lowering import Angles, Level, Lowered, Turn, lower, normalised
from hcqsfl.quantum.circuit import Circuit


class Permute(torch.autograd.Function):
    """A gather of rows by a permutation: its adjoint is a gather too, where ``index_select`` would scatter."""

    generate_vmap_rule = True

    @staticmethod
    def forward(state: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return ``state[source]``; ``target`` is the inverse permutation."""
        return state.index_select(0, source)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        """Keep both permutations."""
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        """Gather the other way round."""
        source, target = ctx.saved_tensors
        permuted: Tensor = Permute.apply(slope, target, source)
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
    """Return the tensor products ``(g, 2**m, b)`` of ``m`` vectors ``(g, m, 2, b)``, the batch last.

    Pairs are multiplied all at once, so that the number of operations grows with the logarithm of ``m``.
    """
    if not factors.shape[1]:
        return factors.new_ones(len(factors), 1, factors.shape[-1])
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
    """Return the Kronecker products ``(g, 2**m, 2**m, b)`` of ``m`` matrices ``(g, m, 2, 2, b)``, the batch last."""
    if not factors.shape[1]:
        return factors.new_ones(len(factors), 1, 1, factors.shape[-1])

    def pair(left: Tensor, right: Tensor) -> Tensor:
        return (left[:, :, :, None, :, None] * right[:, :, None, :, None, :]).flatten(4, 5).flatten(2, 3)

    rest = []
    while factors.shape[1] > 1:
        if factors.shape[1] % 2:
            rest.append(factors[:, -1:])
            factors = factors[:, :-1]
        factors = pair(factors[:, 0::2], factors[:, 1::2])
    for factor in reversed(rest):
        factors = pair(factors, factor)
    return factors[:, 0]


def rotation(angles: Tensor) -> Tensor:
    """Return RY matrices ``(g, m, 2, 2, b)`` of angles ``(g, m, b)``."""
    half = angles * 0.5
    c, s = torch.cos(half), torch.sin(half)
    return torch.stack([c, -s, s, c], 2).unflatten(2, (2, 2))


def phase(angles: Tensor) -> Tensor:
    """Return ``exp(i angles)``."""
    return torch.complex(torch.cos(angles), torch.sin(angles))


def columns_of(chains: Sequence[Sequence[Turn]]) -> Iterator[tuple[str, bool, list[list[int]]]]:
    """Yield the wires' first rotations in columns of one axis and kind: each wire has its slot there, or none."""
    left = [list(chain) for chain in chains]
    while any(left):
        axis, sampled = next((chain[0].axis, chain[0].slot[0]) for chain in left if chain)
        fits = [bool(chain) and (chain[0].axis, chain[0].slot[0]) == (axis, sampled) for chain in left]
        yield axis, sampled, [[chain.pop(0).slot[1]] if fit else [] for chain, fit in zip(left, fits, strict=True)]


def by_wire(turns: Sequence[Turn], n_qubits: int, sampled: bool) -> list[list[int]]:
    """Return for each wire the slots of its shared or sampled rotations."""
    return [[t.slot[1] for t in turns if t.wire == wire and t.slot[0] == sampled] for wire in range(n_qubits)]


class Tables:
    """The constant tensors of a lowered circuit on one device, in one precision.

    Attributes:
        steps: the first rotations in order: ``(axis, slots)`` for a sampled column, with ``slots`` None where column
            ``i`` of the sampled angles turns wire ``i``; or the number of shared columns that follow one another.
        first: ``(n_columns * n, n_shared)``, the shared angles of the first rotations; ``generators`` their axes.
        levels: what differs from level to level.
        turns: ``(n_levels * n, n_shared)``, the shared angles of the levels' rotations.
        phase_slots: ``(n_diagonals, p)``, the shared angles of the levels' phases; ``phase_signs``
            ``(n_diagonals, 2**n, p)`` their factors, minus a half where the parity is even.
        upper, lower: ``(d * d, m)``, which sums of a half's overlap matrix are the slopes of its rotations.
        signs: ``(n_observables, 2**n)``; ``words`` the rows and factors of the Pauli words if ``diagonal`` is false.
    """

    def __init__(self, lowered: Lowered, like: Tensor) -> None:
        n = lowered.circuit.n_qubits
        n_shared, n_sampled = len(lowered.shared), len(lowered.sampled)

        def real(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=like.dtype, device=like.device)

        def complex_(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=like.dtype.to_complex(), device=like.device)

        def index(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=torch.long, device=like.device)

        self.steps: list[tuple[str, Tensor | None] | int] = []
        rows: list[list[int]] = []
        axes: list[str] = []
        for axis, sampled, slots in columns_of(lowered.chains):
            if sampled:
                plain = slots == [[i] for i in range(n_sampled)]
                self.steps.append((axis, None if plain else real(selection(slots, n_sampled))))
                continue
            rows, axes = rows + slots, [*axes, axis]
            before = self.steps.pop() if self.steps and isinstance(self.steps[-1], int) else 0
            assert isinstance(before, int)
            self.steps.append(before + 1)
        self.first = real(selection(rows, n_shared) * 0.5)
        flips = {"Y": np.array([[0, -1], [1, 0]]), "Z": np.array([[-1j, 0], [0, 1j]])}
        self.generators = complex_(np.array([flips[axis] for axis in axes]).reshape(-1, 1, 2, 2))
        self.identity = complex_(np.eye(2))

        self.levels = [LevelTables(level, n, n_sampled, real, index) for level in lowered.levels]
        self.turns = real(
            selection([slots for level in lowered.levels for slots in by_wire(level.turns, n, False)], n_shared)
        )
        shared = [[p for p in level.phases if not p.slot[0]] for level in lowered.levels]
        width = max(map(len, shared), default=0)
        self.phase_slots = index(np.zeros((sum(map(bool, shared)), width)))
        self.phase_signs = real(np.zeros((len(self.phase_slots), 2**n, width)))
        row = 0
        for level, phases in zip(self.levels, shared, strict=True):
            if phases:
                level.diagonal = row
                self.phase_slots[row, : len(phases)] = index(np.array([p.slot[1] for p in phases]))
                self.phase_signs[row, :, : len(phases)] = real(signs([p.mask for p in phases], n) * -0.5)
                row += 1
        self.upper, self.lower = (real(_slopes(m)) for m in (n // 2, n - n // 2))
        self.diagonal = all(o.flips == 0 for o in lowered.observables)
        self.signs = real(signs([o.signs for o in lowered.observables], n).T)
        states = np.arange(2**n)
        self.words = [
            (index(states ^ o.flips), complex_((1j**o.n_y * signs([o.signs], n))[states ^ o.flips]))
            for o in lowered.observables
        ]


class LevelTables:
    """The constant tensors of one level: its gather, its row among the diagonals, and what is sampled."""

    def __init__(self, level: Level, n: int, n_sampled: int, real: Any, index: Any) -> None:
        source = level.source()
        self.permutes = level.permutes
        self.source, self.target = index(source), index(np.argsort(source))
        self.diagonal: int | None = None
        sampled = [p for p in level.phases if p.slot[0]]
        slots = selection([[p.slot[1]] for p in sampled], n_sampled)
        self.sampled: Tensor | None = real(signs([p.mask for p in sampled], n) @ slots * -0.5) if sampled else None
        self.rotates = any(not turn.slot[0] for turn in level.turns)
        turns = by_wire(level.turns, n, True)
        self.sampled_turns: Tensor | None = real(selection(turns, n_sampled)) if any(turns) else None


def _slopes(m: int) -> np.ndarray:
    """Return ``(4**m, m)``: half of -iY of each of ``m`` qubits as a sum over entries ``(r, s)``."""
    d = 2**m
    matrix = np.zeros((d, d, m))
    for qubit in range(m):
        bit = 1 << (m - 1 - qubit)
        for r in range(d):
            matrix[r, r ^ bit, qubit] = 0.5 if r & bit else -0.5
    return matrix.reshape(d * d, m)


class Plan:
    """A circuit as a few tensor operations."""

    def __init__(self, circuit: Circuit, keep_last: bool = False) -> None:
        self.lowered = lower(circuit, keep_last)
        self.circuit = circuit
        self.angles = Angles(self.lowered)
        self.half = circuit.n_qubits // 2
        self._tables: dict[tuple[torch.dtype, torch.device], Tables] = {}

    def tables(self, like: Tensor) -> Tables:
        """Return the constants for a tensor's precision and device."""
        key = (like.dtype, like.device)
        if key not in self._tables:
            with torch._C._DisableFuncTorch():  # else they would belong to the transform that met the circuit first
                self._tables[key] = Tables(self.lowered, like)
        return self._tables[key]

    def state(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the last level's state ``(2**n_qubits, b)``, complex."""
        sampled, amplitudes, shared = self.arguments(inputs, weights)
        return self.evolve(*self.first(sampled, amplitudes, shared), sampled, shared)

    def arguments(self, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sampled angles, first amplitudes (none if the circuit starts from zero), and shared angles."""
        flat = weights.reshape(-1)
        amplitudes = normalised(self.circuit, inputs) if self.circuit.start == "amplitudes" else inputs.new_empty(0, 0)
        return self.angles.sampled(inputs, flat), amplitudes, self.angles.shared(flat)

    def values_of(self, sampled: Tensor, amplitudes: Tensor, shared: Tensor) -> Tensor:
        """Return the expectation values from what ``arguments`` returns, by plain operations throughout."""
        return self.measure(self.evolve(*self.first(sampled, amplitudes, shared), sampled, shared))

    def first(self, sampled: Tensor, amplitudes: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
        """Return two factors ``(d1, b)`` and ``(d2, b)`` of the state before the first level."""
        b = len(sampled)
        if self.circuit.start == "amplitudes":
            left = torch.complex(amplitudes.t(), torch.zeros_like(amplitudes.t()))
            return left, left.new_ones(1, b)
        vectors = self.vectors(self.tables(shared), shared, sampled.t()).expand(-1, -1, b)
        if 2 * self.half == len(vectors):
            both = outer(vectors.view(2, self.half, 2, b) if self.half else vectors[None])
            return both[0], both[1]
        return outer(vectors[None, : self.half])[0], outer(vectors[None, self.half :])[0]

    def vectors(self, t: Tables, shared: Tensor, sampled: Tensor) -> Tensor:
        """Return each qubit's amplitudes ``(n_qubits, 2, b or 1)`` before anything entangles them."""
        n = self.circuit.n_qubits
        half = (t.first @ shared).view(-1, n, 1, 1)
        matrices = list((torch.cos(half) * t.identity + torch.sin(half) * t.generators).unbind(0))
        vector: Tensor | None = None  # all qubits are 0
        for step in t.steps:
            if isinstance(step, int):
                matrix = matrices.pop(0)
                for _ in range(step - 1):
                    matrix = matrices.pop(0) @ matrix
                vector = matrix[:, :, :1] if vector is None else matrix @ vector
                continue
            axis, slots = step
            angle = (sampled if slots is None else slots @ sampled) * 0.5
            if axis == "Z":
                turned = phase(angle)
                vector = torch.stack([turned.conj(), turned], 1) * (t.identity[:, :1] if vector is None else vector)
                continue
            c, s = torch.cos(angle), torch.sin(angle)
            if vector is None:
                real = torch.stack([c, s], 1)
                vector = torch.complex(real, torch.zeros_like(real))
            else:
                vector = torch.stack([c * vector[:, 0] - s * vector[:, 1], s * vector[:, 0] + c * vector[:, 1]], 1)
        return t.identity[:, :1].expand(n, 2, 1) if vector is None else vector

    def matrices(self, t: Tables, shared: Tensor) -> tuple[Tensor, Tensor]:
        """Return the levels' shared rotations of both halves: ``(n_levels, d1, d1)``, ``(n_levels, d2, d2)``."""
        factors = rotation((t.turns @ shared).view(len(t.levels), -1, 1))
        if 2 * self.half == factors.shape[1]:
            both = kron(factors.view(-1, self.half, 2, 2, 1))[..., 0].unflatten(0, (-1, 2))
            return both[:, 0], both[:, 1]
        return kron(factors[:, : self.half])[..., 0], kron(factors[:, self.half :])[..., 0]

    def sampled_matrices(self, turns: Tensor) -> tuple[Tensor, Tensor]:
        """Return each sample's rotations ``(n, b)`` of both halves: ``(b, d1, d1)`` and ``(b, d2, d2)``."""
        factors = rotation(turns[None])
        upper, lower_half = kron(factors[:, : self.half])[0], kron(factors[:, self.half :])[0]
        return upper.permute(2, 0, 1), lower_half.permute(2, 0, 1)

    def diagonals(self, t: Tables, shared: Tensor) -> Tensor:
        """Return the levels' shared phases ``(n_diagonals, 2**n, 1)``."""
        return phase(torch.bmm(t.phase_signs, shared[t.phase_slots].unsqueeze(2)))

    def evolve(self, left: Tensor, right: Tensor, sampled: Tensor, shared: Tensor) -> Tensor:
        """Return the state ``(2**n, b)`` after all levels."""
        t, per_sample = self.tables(shared), sampled.t()
        state = (left[:, None] * right[None]).flatten(0, 1).contiguous()
        if not t.levels:
            return state
        upper, lower_half = self.matrices(t, shared)
        diagonals = self.diagonals(t, shared)
        for number, level in enumerate(t.levels):
            if level.permutes:
                state = Permute.apply(state, level.source, level.target)
            if level.diagonal is not None:
                state = state * diagonals[level.diagonal]
            if level.sampled is not None:
                state = state * phase(level.sampled @ per_sample)
            if level.rotates:
                state = rotate(state, upper[number], lower_half[number])
            if level.sampled_turns is not None:
                first = samples_first(state, self.half)
                first = rotate_samples(first, *self.sampled_matrices(level.sampled_turns @ per_sample))
                state = samples_last(first)
        return state

    def measure(self, state: Tensor) -> Tensor:
        """Return the expectation values ``(b, n_observables)`` of a state."""
        t = self.tables(state.real)
        if t.diagonal:
            parts = torch.view_as_real(state).square().flatten(1)  # (2**n, 2 b)
            return torch.mm(t.signs, parts).view(len(t.signs), -1, 2).sum(2).t()
        found = [(state.conj() * factor * state.index_select(0, place)).real.sum(0) for place, factor in t.words]
        return torch.stack(found, 1)


def rotate(state: Tensor, upper: Tensor, lower_half: Tensor) -> Tensor:
    """Rotate all samples by the same two real matrices."""
    planes = torch.mm(upper, torch.view_as_real(state).reshape(len(upper), -1))
    planes = torch.matmul(lower_half, planes.view(len(upper), len(lower_half), -1))
    return torch.view_as_complex(planes.view(*state.shape, 2))


def samples_first(state: Tensor, half: int) -> Tensor:
    """Return the planes of a state ``(2**n, b)`` as ``(b, d1, d2, 2)``."""
    return torch.view_as_real(state).unflatten(0, (2**half, -1)).permute(2, 0, 1, 3).contiguous()


def samples_last(planes: Tensor) -> Tensor:
    """The inverse of ``samples_first``."""
    return torch.view_as_complex(planes.permute(1, 2, 0, 3).contiguous()).flatten(0, 1)


def rotate_samples(planes: Tensor, upper: Tensor, lower_half: Tensor) -> Tensor:
    """Rotate each sample by its own two real matrices; ``planes`` as ``samples_first`` returns them."""
    turned = torch.bmm(upper, planes.flatten(2)).view(planes.shape)
    return torch.matmul(lower_half[:, None], turned)
