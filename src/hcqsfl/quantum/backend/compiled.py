"""Kernels compiled by Numba for this processor: states of a few samples at a time, in cache, with an adjoint backward.

Blocks of samples are spread over threads; each block's sums are its own and are added in the order of the blocks, so
that a result does not depend on the number of threads.
"""

import itertools
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from hcqsfl.quantum.backend import Evaluate, fused
from hcqsfl.quantum.backend.lowering import Level, lower
from hcqsfl.quantum.circuit import Circuit, check_finite

Result = TypeVar("Result")

LANES = {np.dtype(np.float32): 16, np.dtype(np.float64): 8}

POOLED, LARGEST_POOLED = 4, 2**26
"""How many buffers of one size are kept for the next call, and up to which size in bytes."""

THREADED_FROM = 2**17
"""Amplitudes times levels from which a second thread gains more than it costs to wake."""


class Program:
    """A lowered circuit as the tables that the kernels read."""

    def __init__(self, circuit: Circuit) -> None:
        from hcqsfl.quantum.backend import kernels as k

        self.kernels = k
        lowered = lower(circuit)
        self.n = n = circuit.n_qubits
        self.n_levels, self.n_sampled = len(lowered.levels), len(lowered.sampled)
        self.n_weights, self.n_observables = circuit.n_weights, circuit.n_observables
        ops: list[tuple[int, ...]] = [
            (k.TURN, turn.wire, turn.slot[1], turn.slot[0], turn.axis == "Z")
            for chain in lowered.chains
            for turn in chain
        ]
        ops.append((k.PRODUCT if circuit.start == "zero" else k.AMPLITUDES, 0, 0, 0, 0))
        sources: list[np.ndarray] = []
        diagonals: list[tuple[int, int, int]] = []  # row, mask, slot
        n_diagonals = 0
        loads: list[tuple[int, int]] = []
        load_range = [0]
        for level in lowered.levels:
            shared = [phase for phase in level.phases if not phase.slot[0]]
            source = diagonal = -1
            if level.permutes:
                source = len(sources)
                sources.append(level.source())
            if shared:
                diagonal, n_diagonals = n_diagonals, n_diagonals + 1
                diagonals += [(diagonal, phase.mask, phase.slot[1]) for phase in shared]
            ops.append((k.MONOMIAL, source, diagonal, 0, 0))
            ops += [(k.PHASE, phase.mask, phase.slot[1], 0, 0) for phase in level.phases if phase.slot[0]]
            ops.append((k.COPY, not level.turns, 0, 0, 0))
            ops += rotations(level, n)
            loads += [(phase.mask, phase.slot[1] + (0 if phase.slot[0] else self.n_sampled)) for phase in level.phases]
            load_range.append(len(loads))
        angles = (*lowered.sampled, *lowered.shared)
        n_factors = max((len(angle.inputs) for angle in angles), default=0)
        places = [
            (-1 if a.weight is None else a.weight, *a.inputs, *(-1,) * (n_factors - len(a.inputs))) for a in angles
        ]
        self.steps = (
            table(ops, 5),
            table([(o.flips, o.signs, o.n_y) for o in lowered.observables], 3),
            np.stack(sources).astype(np.int32) if sources else np.zeros((1, 1), np.int32),
            n_diagonals,
            table(places, 1 + n_factors),
            np.array([(angle.scale, angle.shift) for angle in angles]).reshape(-1, 2),
            self.n_sampled,
            n,
        )
        self.diagonals = table(diagonals, 3)
        self.loads = (table(loads, 2), np.array(load_range))
        self.n_constants = 2 * len(lowered.shared) + 2 * (n_diagonals << n)
        # beside the states, rows: the amplitudes of single qubits, twice, and the angles or their slopes
        self.n_rows = 8 * n + max(2 * self.n_sampled, len(angles))

    def sizes(self, b: int, dtype: Any) -> tuple[int, int, int, int]:
        """Return blocks of a batch, where the first begins in what is kept, the length of one, and of the scratch."""
        v, rows = LANES[dtype], 2**self.n
        return (
            -(-b // v),
            -(-self.n_constants // v) * v,
            2 * (rows + self.n_sampled) * v,
            (10 * rows + self.n_rows) * v,
        )

    def forward(self, x: np.ndarray, weights: np.ndarray, keeps: bool) -> tuple[np.ndarray, "Buffer", bool]:
        """Return the values ``(b, n_observables)``, what the backward pass needs, and whether all numbers are finite.

        Args:
            x: inputs ``(b, n_inputs)``.
            weights: ``(n_weights,)``, of the same dtype.
            keeps: whether there will be a backward pass.
        """
        dtype, b = x.dtype, len(x)
        blocks, first_block, length, size = self.sizes(b, dtype)
        kept = Buffer(first_block + (blocks * length if keeps else 0), dtype)
        values = np.empty((b, self.n_observables), dtype)

        def run(first: int, last: int, prepares: bool) -> float:
            total: float = self.kernels.forward(
                *self.steps, self.diagonals, x, weights, kept.array, first_block, prepares, keeps,
                scratch(size, dtype), values, first, last, LANES[dtype],
            )  # fmt: skip
            return total

        if (threads := self.threads(b, blocks)) == 1:
            return values, kept, math.isfinite(run(0, blocks, True))
        total = run(0, 0, True)
        return values, kept, math.isfinite(total + sum(spread(partial(run, prepares=False), blocks, threads)))

    def backward(
        self, x: np.ndarray, weights: np.ndarray, kept: "Buffer", slopes: np.ndarray, per_sample: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients to the inputs ``(b, n_inputs)`` and to the weights ``(n_weights,)``.

        Args:
            x, weights, kept: as ``forward`` was given and returned them.
            slopes: ``(b, n_observables)``, the gradient to the values.
            per_sample: return the weights' gradient of each sample, ``(b, n_weights)``.
        """
        dtype, b = x.dtype, len(x)
        blocks, first_block, _, size = self.sizes(b, dtype)
        dx, dw = np.empty_like(x), np.empty((b if per_sample else blocks, self.n_weights))

        def run(first: int, last: int) -> None:
            self.kernels.backward(
                *self.steps, *self.loads, x, weights, kept.array, first_block,
                scratch(size, dtype), slopes, dx, dw, per_sample, first, last, LANES[dtype],
            )  # fmt: skip

        if (threads := self.threads(b, blocks)) == 1:
            run(0, blocks)
        else:
            spread(run, blocks, threads)
        if per_sample:
            return dx, dw.astype(dtype)
        total = np.empty(self.n_weights, dtype)
        self.kernels.add_rows(dw, total)
        return dx, total

    def threads(self, b: int, blocks: int) -> int:
        """Return on how many threads a batch is worked out."""
        work = (b << self.n) * (self.n_levels + 1)
        if work < 2 * THREADED_FROM:
            return 1
        return min(torch.get_num_threads(), blocks, work // THREADED_FROM)


def rotations(level: Level, n: int) -> list[tuple[int, ...]]:
    """Return the operations that rotate a level's qubits, three neighbours at a time where they can."""
    from hcqsfl.quantum.backend import kernels as k

    ops: list[tuple[int, ...]] = []
    waiting = {}
    for turn in level.turns:
        if turn.slot[0]:
            ops.append((k.RY1_SAMPLED, 1 << (n - 1 - turn.wire), turn.slot[1], 0, 0))
        elif turn.wire in waiting:
            ops.append((k.RY1, 1 << (n - 1 - turn.wire), turn.slot[1], 0, 0))
        else:
            waiting[turn.wire] = turn.slot[1]
    wire = 0
    while wire < n:
        if all(wire + i in waiting for i in range(3)):
            ops.append((k.RY3, 1 << (n - 3 - wire), *(waiting[wire + i] for i in range(3))))
            wire += 3
            continue
        if wire in waiting:
            ops.append((k.RY1, 1 << (n - 1 - wire), waiting[wire], 0, 0))
        wire += 1
    return ops


def table(rows: Sequence[tuple[int, ...]], width: int) -> np.ndarray:
    """Return the rows as an array, also when there are none."""
    return np.array(rows, np.int64).reshape(len(rows), width)


def aligned(size: int, dtype: Any) -> np.ndarray:
    """Return uninitialised numbers that begin on a cache line, so that no vector straddles two."""
    n_bytes = size * dtype.itemsize
    raw = np.empty(n_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes].view(dtype)


class Buffer:
    """Uninitialised numbers, which go back to a small pool when nobody refers to them any more.

    Fresh pages from the system cost more than the kernels that fill them.
    """

    __slots__ = ("array",)
    pool: ClassVar[dict[tuple[str, int], list[np.ndarray]]] = {}

    def __init__(self, size: int, dtype: Any) -> None:
        try:
            self.array = self.pool[dtype.char, size].pop()
        except (KeyError, IndexError):
            self.array = aligned(size, dtype)

    def __del__(self, most: int = POOLED, largest: int = LARGEST_POOLED) -> None:
        # defaults, since a module's names may be gone when the interpreter ends
        array = self.array
        waiting = self.pool.setdefault((array.dtype.char, array.size), [])
        if len(waiting) < most and array.nbytes <= largest:
            waiting.append(array)


_of_thread = threading.local()


def scratch(size: int, dtype: Any) -> np.ndarray:
    """Return at least ``size`` numbers of this thread's own, for as long as a kernel runs."""
    held: np.ndarray | None = getattr(_of_thread, dtype.char, None)
    if held is None or held.size < size:
        held = aligned(size, dtype)
        if held.nbytes <= LARGEST_POOLED:
            setattr(_of_thread, dtype.char, held)
    return held


_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # a child has none of its parent's threads


def spread(run: Callable[[int, int], Result], blocks: int, threads: int) -> list[Result]:
    """Return ``run(first, last)`` of all blocks, in order, on so many threads."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hcqsfl-quantum")
    bounds = [blocks * i // threads for i in range(threads + 1)]
    others = [_pool.submit(run, first, last) for first, last in itertools.pairwise(bounds[1:])]
    return [run(bounds[0], bounds[1]), *(other.result() for other in others)]


class _Expectations(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compiled: "Compiled", inputs: Tensor, weights: Tensor) -> Tensor:
        keeps = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        x, w = plain(inputs), plain(weights).reshape(-1)
        values, kept, finite = compiled.program.forward(x, w, keeps)
        if not finite:
            check_finite(compiled.circuit, inputs, weights)
        if keeps:
            ctx.compiled, ctx.kept = compiled, (x, w, kept)
            ctx.save_for_backward(inputs, weights)
        return torch.from_numpy(values)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        compiled, (inputs, weights) = ctx.compiled, ctx.saved_tensors  # refused if they were overwritten since
        _, of_inputs, of_weights = ctx.needs_input_grad
        if torch.is_grad_enabled():  # this gradient is to be differentiated again: leave its graph behind
            inputs, weights = inputs.view_as(inputs), weights.view_as(weights)  # either may have come from the other
            leaves = [tensor for tensor, wanted in ((inputs, of_inputs), (weights, of_weights)) if wanted]
            values = fused.fused_of(compiled.circuit).values(inputs, weights)
            found = iter(torch.autograd.grad(values, leaves, slopes, create_graph=True, allow_unused=True))
            return None, next(found) if of_inputs else None, next(found) if of_weights else None
        dx, dw = compiled.program.backward(*ctx.kept, plain(slopes), False)
        shaped = dw.reshape(compiled.circuit.weight_shape)
        return None, torch.from_numpy(dx) if of_inputs else None, torch.from_numpy(shaped) if of_weights else None


def plain(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers, without a copy where they lie in order."""
    return tensor.detach().contiguous().numpy()


class Compiled:
    """A circuit run by the kernels; second derivatives and ``torch.func`` are left to the fused operations."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.program = Program(circuit)

    def values(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the expectation values ``(b, n_observables)``.

        Raises:
            ValueError: the inputs are not on the CPU, or a number is NaN or infinite.
        """
        if torch._C._are_functorch_transforms_active():
            return fused.fused_of(self.circuit).values(inputs, weights)
        if not inputs.is_cpu:
            raise ValueError(f"quantum backend 'compiled' runs on the CPU, not on {inputs.device}; take 'fused' there")
        values: Tensor = _Expectations.apply(self, inputs, weights)
        return values

    def per_sample(self, inputs: Tensor, weights: Tensor, slopes: Tensor) -> Tensor:
        """Return each sample's gradient of ``(values * slopes).sum()`` to the weights, ``(b, *weight_shape)``."""
        x, w = plain(inputs), plain(weights).reshape(-1)
        _, kept, _ = self.program.forward(x, w, True)
        _, dw = self.program.backward(x, w, kept, plain(slopes.to(inputs.dtype)), True)
        return torch.from_numpy(dw).view(len(inputs), *self.circuit.weight_shape)


@lru_cache(maxsize=64)
def compiled_of(circuit: Circuit) -> Compiled:
    """Return the circuit's program; a circuit is translated once."""
    return Compiled(circuit)


def build(circuit: Circuit) -> Evaluate:
    """Return the evaluation by the compiled kernels, on the CPU."""
    return compiled_of(circuit).values


def per_sample(circuit: Circuit, inputs: Tensor, weights: Tensor, slopes: Tensor) -> Tensor:
    """Return each sample's gradient of ``(values * slopes).sum()`` to the weights, ``(b, *weight_shape)``."""
    return compiled_of(circuit).per_sample(inputs, weights, slopes)
