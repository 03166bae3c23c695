"""Kernels compiled by Numba for this processor: states of a few samples at a time, in cache, with an adjoint backward.

Blocks of samples are spread over threads; each block's sums are its own and are added in the order of the blocks, so
that a result does not depend on the number of threads.
"""

import itertools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hcqsfl.quantum.backend import Evaluate, fused
from hcqsfl.quantum.backend.lowering import Angles, Level, lower, normalised
from hcqsfl.quantum.circuit import Circuit

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
        self.n_levels = len(lowered.levels)
        self.n_shared = len(lowered.shared)
        ops: list[tuple[int, ...]] = [
            (k.TURN, turn.wire, turn.slot[1], turn.slot[0], turn.axis == "Z")
            for chain in lowered.chains
            for turn in chain
        ]
        ops.append((k.PRODUCT if circuit.start == "zero" else k.AMPLITUDES, 0, 0, 0, 0))
        sources: list[np.ndarray] = []
        diagonals: list[tuple[int, int, int]] = []  # row, mask, slot
        n_diagonals = 0
        loads: list[tuple[int, int, int]] = []
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
            loads += [(phase.mask, phase.slot[1], phase.slot[0]) for phase in level.phases]
            load_range.append(len(loads))
        self.ops = table(ops, 5)
        self.masks = table([(o.flips, o.signs, o.n_y) for o in lowered.observables], 3)
        self.loads, self.diagonals = table(loads, 3), table(diagonals, 3)
        self.load_range = np.array(load_range)
        self.source = np.stack(sources).astype(np.int32) if sources else np.zeros((1, 1), np.int32)
        self.amplitudes = circuit.start == "amplitudes"

    def forward(self, x: np.ndarray, amplitudes: np.ndarray, shared: np.ndarray, keeps: bool) -> tuple:
        """Return the values ``(b, n_observables)`` and what the backward pass needs."""
        v, rows = LANES[x.dtype], 2**self.n
        blocks = -(-len(x) // v)
        diagonal = self.kernels.diagonals(self.diagonals, shared, rows, x)
        if not len(diagonal[0]):
            diagonal = np.zeros((2, 1, 1), x.dtype)
        values = np.empty((len(x), len(self.masks)), x.dtype)
        saved = Buffer((blocks if keeps else 1, 2 * rows * v), x.dtype)

        def run(first: int, last: int) -> None:
            # without a backward pass, a thread's blocks use one place after the other; the first thread has `saved`
            place = saved if keeps or not first else Buffer(saved.array.shape, x.dtype)
            scratch = Buffer((4 * rows * v,), x.dtype)
            self.kernels.forward(
                self.ops, self.masks, self.source, diagonal, shared, x, amplitudes, self.n, keeps, place.array,
                scratch.array, values,
                first, last, v,
            )  # fmt: skip

        spread(run, blocks, len(x) * rows * (self.n_levels + 1))
        return values, (diagonal, saved)

    def backward(
        self,
        x: np.ndarray,
        amplitudes: np.ndarray,
        shared: np.ndarray,
        kept: tuple,
        slopes: np.ndarray,
        per_sample: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the slopes of the sampled angles, the amplitudes, and the shared angles (a row a sample or one)."""
        diagonal, saved = kept
        v, rows = LANES[x.dtype], 2**self.n
        blocks = -(-len(x) // v)
        dx, d_amplitudes = np.empty_like(x), np.empty_like(amplitudes)
        d_shared = np.empty((len(x) if per_sample else blocks, self.n_shared))

        def run(first: int, last: int) -> None:
            scratch = Buffer((10 * rows * v,), x.dtype)
            self.kernels.backward(
                self.ops, self.masks, self.loads, self.load_range, self.source, diagonal,
                shared, x, self.n, saved.array, scratch.array, slopes, dx, d_amplitudes, d_shared, per_sample,
                first, last, v,
            )  # fmt: skip

        spread(run, blocks, len(x) * rows * (self.n_levels + 1))
        return dx, d_amplitudes, d_shared if per_sample else d_shared.sum(0)


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


class Buffer:
    """Uninitialised memory for states, which goes back to a small pool when nobody refers to it any more.

    Fresh pages from the system cost more than the kernels that fill them.
    """

    pool: ClassVar[dict[int, list[np.ndarray]]] = {}

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        try:
            self._bytes = self.pool[size].pop()
        except (KeyError, IndexError):
            raw = np.empty(size + 64, np.uint8)
            start = -raw.ctypes.data % 64  # on a cache line, so that no vector straddles two
            self._bytes = raw[start : start + size]
        self.array = self._bytes.view(dtype).reshape(shape)

    def __del__(self) -> None:
        waiting = self.pool.setdefault(self._bytes.size, [])
        if len(waiting) < POOLED and self._bytes.size <= LARGEST_POOLED:
            waiting.append(self._bytes)


_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # a child has none of its parent's threads


def spread(run: Callable[[int, int], None], blocks: int, work: int) -> None:
    """Call ``run(first, last)`` over all blocks, on as many threads as torch may use."""
    global _pool
    threads = min(torch.get_num_threads(), blocks, max(1, work // THREADED_FROM))
    if threads == 1:
        run(0, blocks)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hcqsfl-quantum")
    bounds = [blocks * i // threads for i in range(threads + 1)]
    others = [_pool.submit(run, first, last) for first, last in itertools.pairwise(bounds[1:])]
    run(bounds[0], bounds[1])
    for other in others:
        other.result()


class _Expectations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, program: Program, x: Tensor, amplitudes: Tensor, shared: Tensor, again: Callable[..., Tensor]
    ) -> Tensor:
        arrays = [tensor.detach().contiguous().numpy() for tensor in (x, amplitudes, shared)]
        values, ctx.kept = program.forward(arrays[0], arrays[1], arrays[2], any(ctx.needs_input_grad))
        ctx.program, ctx.again = program, again
        ctx.save_for_backward(x, amplitudes, shared)
        return torch.from_numpy(values)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # this gradient is to be differentiated again: leave its graph behind
            leaves = [tensor for tensor in ctx.saved_tensors if tensor.requires_grad]
            found = torch.autograd.grad(
                ctx.again(*ctx.saved_tensors), leaves, slopes, create_graph=True, allow_unused=True
            )
            by_leaf = iter(found)
            return None, *(next(by_leaf) if tensor.requires_grad else None for tensor in ctx.saved_tensors), None
        x, amplitudes, shared = (tensor.detach().contiguous().numpy() for tensor in ctx.saved_tensors)
        dx, d_amplitudes, d_shared = ctx.program.backward(
            x, amplitudes, shared, ctx.kept, slopes.contiguous().numpy(), False
        )
        found_shared = torch.from_numpy(d_shared).to(slopes.dtype)
        return None, torch.from_numpy(dx), torch.from_numpy(d_amplitudes), found_shared, None


class Compiled:
    """A circuit run by the kernels; second derivatives and ``torch.func`` are left to the fused operations."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.program = Program(circuit)
        self.angles = Angles(lower(circuit))

    def values(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the expectation values ``(b, n_observables)``.

        Raises:
            ValueError: the inputs are not on the CPU.
        """
        if torch._C._are_functorch_transforms_active():
            return fused.fused_of(self.circuit).values(inputs, weights)
        if inputs.device.type != "cpu":
            raise ValueError(f"quantum backend 'compiled' runs on the CPU, not on {inputs.device}; take 'fused' there")
        flat = weights.reshape(-1)
        again = fused.fused_of(self.circuit).values_of
        values: Tensor = _Expectations.apply(
            self.program,
            self.angles.sampled(inputs, flat),
            first_amplitudes(self.circuit, inputs),
            self.angles.shared(flat),
            again,
        )
        return values

    def per_sample(self, inputs: Tensor, weights: Tensor, slopes: Tensor) -> Tensor:
        """Return each sample's gradient of ``(values * slopes).sum()`` to the weights, ``(b, *weight_shape)``."""
        flat = weights.detach().reshape(-1)
        own = flat.expand(len(inputs), -1).clone().requires_grad_()
        with torch.enable_grad():
            sampled, shared = self.angles.sampled(inputs.detach(), own), self.angles.shared(own)
        x = sampled.detach().contiguous().numpy()
        amplitudes = first_amplitudes(self.circuit, inputs.detach()).contiguous().numpy()
        angles = self.angles.shared(flat).numpy()
        _, kept = self.program.forward(x, amplitudes, angles, True)
        dx, _, d_shared = self.program.backward(
            x, amplitudes, angles, kept, slopes.detach().to(flat.dtype).contiguous().numpy(), True
        )
        pairs = [(sampled, torch.from_numpy(dx)), (shared, torch.from_numpy(d_shared).to(flat.dtype))]
        pairs = [(angle, slope) for angle, slope in pairs if angle.requires_grad]
        (gradients,) = torch.autograd.grad([a for a, _ in pairs], own, [s for _, s in pairs])
        return gradients.view(len(inputs), *self.circuit.weight_shape)


def first_amplitudes(circuit: Circuit, inputs: Tensor) -> Tensor:
    """Return ``(b, 2**n_qubits)``, or an empty tensor where the circuit starts from zero."""
    return normalised(circuit, inputs) if circuit.start == "amplitudes" else inputs.new_empty(0, 0)


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
