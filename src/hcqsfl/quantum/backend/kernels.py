"""The compiled backend's kernels: a lowered circuit from its inputs and weights, a block of samples at a time.

A circuit comes as tables:

- ``ops``: rows ``(kind, a, b, c, d)``, in order of time
- ``masks``: an observable's flips, signs and number of Y
- ``source``: rows of places from where each basis state is read
- ``diagonals``: ``(row, mask, slot)``: of which shared phases a diagonal is made
- ``loads``, ``load_range``: ``(mask, slot)`` of a level's phases, those of a level between two entries of the latter
- ``angles``, ``factors``: an angle's weight and inputs, -1 for none; its scale and shift. The ``n_sampled`` angles that
  differ between samples come first.

A slot is a row of ``angles``. What a call works out once, and what its backward pass needs of each block, lies in one
array ``kept``: cosine and sine of half the shared angles, those of the diagonals, and then, block by block, the last
state and cosine and sine of half the sampled angles.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from hcqsfl.quantum.backend.gates import (
    COMPILE,
    grow,
    monomial,
    monomial_back,
    pauli,
    phase_sampled,
    ry1,
    ry1_back,
    ry3,
    ry3_back,
    shrink,
    slopes_of_phases,
    turn_wire,
    walsh,
)
from hcqsfl.quantum.backend.lanes import load, splat, store, total

TURN, PRODUCT, AMPLITUDES, MONOMIAL, PHASE, COPY, RY3, RY1, RY1_SAMPLED = range(9)
"""Kinds of an operation, with its arguments:

- ``TURN``: wire, slot, whether the angle is sampled, whether the axis is Z: of one qubit before the product state
- ``PRODUCT``, ``AMPLITUDES``: make the first state
- ``MONOMIAL``: row of ``source`` or -1, row of ``diagonal`` or -1
- ``PHASE``: mask, slot: a sampled phase
- ``COPY``: whether no rotation follows: the end of a level's permutation and phases
- ``RY3``: stride of the lowest of three neighbouring qubits, and their shared slots, highest first
- ``RY1``, ``RY1_SAMPLED``: stride of the qubit, slot

Slots of shared angles are counted from the first of them.
"""


PI, PI_REST = math.pi, 1.2246467991473532e-16  # together pi to 107 bits
TERMS = 12
"""Of the series of sine and cosine: at pi / 2 the first one left out is below 1e-17."""


@njit(**COMPILE)
def reduce(radians: float) -> tuple[float, float]:
    """Return ``(sign, rest)`` with ``cos = sign cos(rest)``, ``sin = sign sin(rest)`` and rest in [-pi/2, pi/2]."""
    if not abs(radians) < 1e8:
        radians = math.atan2(math.sin(radians), math.cos(radians))
    turns = math.floor(radians / PI + 0.5)
    return 1.0 - 2.0 * (turns & 1), radians - turns * PI - turns * PI_REST


@njit(**COMPILE)
def circle(cos: Any, sin: Any) -> None:
    """Replace what ``reduce`` gave by cosines and sines: series without a branch, which the compiler vectorises."""
    one = cos.dtype.type(1)
    for k in range(len(cos)):
        sign, rest = cos[k], sin[k]
        square = rest * rest
        c, s = one, one
        for m in range(TERMS - 1, 0, -1):
            c = one - square * c * cos.dtype.type(1 / (2 * m * (2 * m - 1)))
            s = one - square * s * cos.dtype.type(1 / (2 * m * (2 * m + 1)))
        cos[k], sin[k] = sign * c, sign * rest * s


@njit(**COMPILE)
def prepare(diagonals: Any, angles: Any, factors: Any, n_sampled: int, weights: Any, kept: Any, n: int) -> None:
    """Write to ``kept`` what all blocks share."""
    n_shared, size = len(angles) - n_sampled, 1 << n
    shared = np.empty(n_shared)
    for slot in range(n_shared):
        place = angles[n_sampled + slot, 0]
        shared[slot] = 0.5 * factors[n_sampled + slot, 0] * (weights[place] if place >= 0 else 1.0)
        kept[slot], kept[n_shared + slot] = reduce(shared[slot])
    circle(kept[:n_shared], kept[n_shared : 2 * n_shared])
    if len(diagonals):
        phases = np.zeros((diagonals[-1, 0] + 1) << n)
        for at in range(len(diagonals)):
            phases[(diagonals[at, 0] << n) + diagonals[at, 1]] += shared[diagonals[at, 2]]
        stride = 1
        while stride < size:
            for high in range(0, len(phases), 2 * stride):
                for k in range(high, high + stride):
                    first, second = phases[k], phases[k + stride]
                    phases[k], phases[k + stride] = first + second, first - second
            stride *= 2
        cos, sin = kept[2 * n_shared :], kept[2 * n_shared + len(phases) :]
        for k in range(len(phases)):
            cos[k], sin[k] = reduce(phases[k])
        circle(cos[: len(phases)], sin[: len(phases)])


@njit(**COMPILE)
def load_angles(
    angles: Any, factors: Any, n_sampled: int, x: Any, weights: Any, first: int, cos: Any, sin: Any, v: int
) -> None:
    """Write cosine and sine of half the sampled angles of the samples from ``first`` on, a row an angle."""
    n_samples = min(v, len(x) - first)
    for slot in range(n_sampled):
        scale, shift = 0.5 * factors[slot, 0], factors[slot, 1]
        if angles[slot, 0] >= 0:
            scale *= weights[angles[slot, 0]]
        for lane in range(v):
            half = 0.0
            if lane < n_samples:
                half = scale
                for i in range(1, angles.shape[1]):
                    if angles[slot, i] >= 0:
                        half *= x[first + lane, angles[slot, i]] - shift
            cos[slot * v + lane], sin[slot * v + lane] = reduce(half)
    circle(cos, sin)


@njit(**COMPILE)
def spread_slopes(
    angles: Any,
    factors: Any,
    n_sampled: int,
    x: Any,
    weights: Any,
    slope: Any,
    first: int,
    dx: Any,
    dw: Any,
    per_sample: bool,
    v: int,
) -> None:
    """Carry the slopes of a block's angles to its rows of ``dx`` and to ``dw``: a row a sample, or one."""
    n_samples, width = min(v, len(x) - first), angles.shape[1]
    for slot in range(n_sampled):
        weight, scale, shift = angles[slot, 0], factors[slot, 0], factors[slot, 1]
        weighted = scale * weights[weight] if weight >= 0 else scale
        for i in range(1, width):
            if angles[slot, i] >= 0:
                for lane in range(n_samples):
                    by = slope[slot * v + lane] * weighted
                    for j in range(1, width):
                        if j != i and angles[slot, j] >= 0:
                            by *= x[first + lane, angles[slot, j]] - shift
                    dx[first + lane, angles[slot, i]] += by
        if weight >= 0:
            for lane in range(n_samples):
                by = slope[slot * v + lane] * scale
                for i in range(1, width):
                    if angles[slot, i] >= 0:
                        by *= x[first + lane, angles[slot, i]] - shift
                dw[lane if per_sample else 0, weight] += by
    for slot in range(n_sampled, len(angles)):
        weight, scale = angles[slot, 0], factors[slot, 0]
        if weight >= 0 and per_sample:
            for lane in range(n_samples):
                dw[lane, weight] += slope[slot * v + lane] * scale
        elif weight >= 0:
            dw[0, weight] += total(load(slope, slot * v)) * scale


@njit(**COMPILE)
def add_rows(rows: Any, out: Any) -> None:
    """Add up the rows, first to last."""
    for column in range(len(out)):
        found = 0.0
        for row in range(len(rows)):
            found += rows[row, column]
        out[column] = found


@njit(**COMPILE)
def first_vectors(ops: Any, vectors: Any, n: int, cos: Any, sin: Any, cos_x: Any, sin_x: Any, v: int) -> None:
    """Write each qubit's two amplitudes after its own rotations, from state 0."""
    vectors[: 4 * n * v] = 0
    for wire in range(n):
        vectors[4 * wire * v : (4 * wire + 1) * v] = 1
    for op in ops:
        if op[0] == TURN:
            at = op[2] * v
            c = load(cos_x, at) if op[3] else splat(cos[op[2]])
            s = load(sin_x, at) if op[3] else splat(sin[op[2]])
            turn_wire(vectors, op[1], c, s, op[4] == 1, v)


@njit(**COMPILE)
def length(x: Any, sample: int) -> float:
    """Return the Euclidean length of a sample."""
    squares = 0.0
    for k in range(x.shape[1]):
        squares += x[sample, k] * x[sample, k]
    return math.sqrt(squares)


@njit(**COMPILE)
def forward(
    ops: Any,
    masks: Any,
    source: Any,
    n_diagonals: int,
    angles: Any,
    factors: Any,
    n_sampled: int,
    n: int,
    diagonals: Any,
    x: Any,
    weights: Any,
    kept: Any,
    first_block: int,
    prepares: bool,
    keeps: bool,
    scratch: Any,
    values: Any,
    first: int,
    last: int,
    v: int,
) -> float:
    """Evaluate blocks ``first`` to ``last``, and keep what the backward pass needs if it ``keeps`` anything.

    One call of them all ``prepares`` what they share, before the others. A level is permuted from ``state`` to
    ``other``, and rotated from there back to ``state``.

    Returns:
        The sum of the blocks' inputs, and of the weights where it prepares, which tells whether all are finite.
    """
    numbers = 0.0
    if prepares:
        prepare(diagonals, angles, factors, n_sampled, weights, kept, n)
        for k in range(len(weights)):
            numbers += weights[k]
    rows, n_shared = (1 << n) * v, len(angles) - n_sampled
    cos, sin = kept[:n_shared], kept[n_shared : 2 * n_shared]
    diagonal = kept[2 * n_shared : 2 * n_shared + 2 * (n_diagonals << n)].reshape(2, n_diagonals, 1 << n)
    none = kept[:0]
    work, other, vectors = scratch[: 2 * rows], scratch[2 * rows : 4 * rows], scratch[4 * rows :]
    blocks = kept[first_block:] if keeps else scratch[4 * rows + 4 * n * v :]
    for block in range(first, last):
        begin = block * (2 * rows + 2 * n_sampled * v) if keeps else 0
        state = blocks[begin : begin + 2 * rows]
        cos_x = blocks[begin + 2 * rows : begin + 2 * rows + n_sampled * v]
        sin_x = blocks[begin + 2 * rows + n_sampled * v : begin + 2 * rows + 2 * n_sampled * v]
        place = state
        n_samples = min(v, len(x) - block * v)
        for lane in range(n_samples):
            for k in range(x.shape[1]):
                numbers += x[block * v + lane, k]
        load_angles(angles, factors, n_sampled, x, weights, block * v, cos_x, sin_x, v)
        for op in ops:
            kind = op[0]
            if kind == PRODUCT:
                first_vectors(ops, vectors, n, cos, sin, cos_x, sin_x, v)
                at = 4 * (n - 1) * v
                state[:v], state[v : 2 * v] = vectors[at : at + v], vectors[at + 2 * v : at + 3 * v]
                state[rows : rows + v], state[rows + v : rows + 2 * v] = (
                    vectors[at + v : at + 2 * v],
                    vectors[at + 3 * v : at + 4 * v],
                )
                size = 2 * v
                for wire in range(n - 2, -1, -1):
                    grow(vectors, wire, state, state[rows:], state, state[rows:], size, v)
                    size *= 2
            elif kind == AMPLITUDES:
                state[:] = 0
                for lane in range(n_samples):
                    norm = length(x, block * v + lane)
                    for k in range(x.shape[1]):
                        state[k * v + lane] = x[block * v + lane, k] / norm
            elif kind == MONOMIAL:
                place = other
                moves, turns = op[1] >= 0, op[2] >= 0
                monomial(
                    state, place, rows, source[max(op[1], 0)], moves,
                    diagonal[0, op[2]] if turns else none, diagonal[1, op[2]] if turns else none, turns, v,
                )  # fmt: skip
            elif kind == PHASE:
                at = op[2] * v
                phase_sampled(place, place, rows, op[1], load(cos_x, at), load(sin_x, at), v)
            elif kind == COPY and op[1]:
                state[:] = place
                place = state
            elif kind == RY3:
                ry3(place, state, 2 * rows, op[1] * v, cos, sin, op[2], op[3], op[4], v)
                place = state
            elif kind == RY1:
                ry1(place, state, 2 * rows, op[1] * v, splat(cos[op[2]]), splat(sin[op[2]]), v)
                place = state
            elif kind == RY1_SAMPLED:
                at = op[2] * v
                ry1(place, state, 2 * rows, op[1] * v, load(cos_x, at), load(sin_x, at), v)
                place = state
        for k in range(0, rows, v):
            re, im = load(state, k), load(state, k + rows)
            store(work, k, re * re + im * im)
        walsh(work, rows, v)
        for column in range(len(masks)):
            if masks[column, 0] == 0:
                for lane in range(n_samples):
                    values[block * v + lane, column] = work[masks[column, 1] * v + lane]
        for column in range(len(masks)):
            if masks[column, 0]:
                pauli(state, rows, masks[column, 0], masks[column, 1], masks[column, 2], work, v)
                sums = load(state, 0) - load(state, 0)
                for k in range(0, 2 * rows, v):
                    sums = sums + load(state, k) * load(work, k)
                store(vectors, 0, sums)
                for lane in range(n_samples):
                    values[block * v + lane, column] = vectors[lane]
    return numbers


@njit(**COMPILE)
def backward(
    ops: Any,
    masks: Any,
    source: Any,
    n_diagonals: int,
    angles: Any,
    factors: Any,
    n_sampled: int,
    n: int,
    loads: Any,
    load_range: Any,
    x: Any,
    weights: Any,
    kept: Any,
    first_block: int,
    scratch: Any,
    slopes: Any,
    dx: Any,
    dw: Any,
    per_sample: bool,
    first: int,
    last: int,
    v: int,
) -> None:
    """The adjoint sweep of blocks ``first`` to ``last``, from the slopes of the values ``(b, n_observables)``.

    Only the last state was kept: it is turned back level by level beside the adjoint state, in cache, which takes less
    time than to store and fetch the states between. ``dw`` has a row a block, or a row a sample.
    """
    rows, n_shared = (1 << n) * v, len(angles) - n_sampled
    cos, sin = kept[:n_shared], kept[n_shared : 2 * n_shared]
    diagonal = kept[2 * n_shared : 2 * n_shared + 2 * (n_diagonals << n)].reshape(2, n_diagonals, 1 << n)
    none = kept[:0]
    # the adjoint state and behind it the state: both are turned back at once
    one, two, work = scratch[: 4 * rows], scratch[4 * rows : 8 * rows], scratch[8 * rows : 10 * rows]
    vectors, d_vectors = scratch[10 * rows : 10 * rows + 4 * n * v], scratch[10 * rows + 4 * n * v :]
    # slopes of the sampled angles, then of the shared ones, a row each
    slope = scratch[10 * rows + 8 * n * v : 10 * rows + (8 * n + len(angles)) * v]
    slope_shared = slope[n_sampled * v :]
    for block in range(first, last):
        begin = first_block + block * (2 * rows + 2 * n_sampled * v)
        state = kept[begin : begin + 2 * rows]
        cos_x = kept[begin + 2 * rows : begin + 2 * rows + n_sampled * v]
        sin_x = kept[begin + 2 * rows + n_sampled * v : begin + 2 * rows + 2 * n_sampled * v]
        n_samples = min(v, len(x) - block * v)
        slope[:] = 0
        bra, other = one, two
        bra[2 * rows :] = state
        # lambda = 2 sum_o slope_o P_o psi; the diagonal ones by one transform of their sparse sum
        work[:rows] = 0
        for column in range(len(masks)):
            if masks[column, 0] == 0:
                for lane in range(n_samples):
                    work[masks[column, 1] * v + lane] += 2 * slopes[block * v + lane, column]
        walsh(work, rows, v)
        for k in range(0, rows, v):
            g = load(work, k)
            store(bra, k, g * load(state, k))
            store(bra, k + rows, g * load(state, k + rows))
        for column in range(len(masks)):
            if masks[column, 0]:
                pauli(state, rows, masks[column, 0], masks[column, 1], masks[column, 2], work, v)
                vectors[:v] = 0
                for lane in range(n_samples):
                    vectors[lane] = 2 * slopes[block * v + lane, column]
                g = load(vectors, 0)
                for k in range(0, 2 * rows, v):
                    store(bra, k, load(bra, k) + g * load(work, k))
        for lane in range(n_samples):
            dx[block * v + lane] = 0
        level = len(load_range) - 2
        for number in range(len(ops) - 1, -1, -1):
            op = ops[number]
            kind = op[0]
            if kind == RY3:
                ry3_back(bra, 2 * rows, op[1] * v, cos, sin, op[2], op[3], op[4], slope_shared, v)
            elif kind == RY1:
                c, s = splat(cos[op[2]]), splat(sin[op[2]])
                ry1_back(bra, 2 * rows, op[1] * v, c, s, slope_shared, op[2], v)
            elif kind == RY1_SAMPLED:
                c, s = load(cos_x, op[2] * v), load(sin_x, op[2] * v)
                ry1_back(bra, 2 * rows, op[1] * v, c, s, slope, op[2], v)
            elif kind == COPY:
                # every level has one: its rotations are undone here, and the slopes of its phases are read
                begin, end = load_range[level], load_range[level + 1]
                if end > begin:
                    slopes_of_phases(bra, bra[2 * rows :], rows, work, v)
                for at in range(begin, end):
                    row = loads[at, 1] * v
                    store(slope, row, load(slope, row) + load(work, loads[at, 0] * v))
                level -= 1
            elif kind == PHASE:
                at = op[2] * v
                s = load(sin_x, at)
                c, s = load(cos_x, at), s - s - s
                phase_sampled(bra, bra, rows, op[1], c, s, v)
                phase_sampled(bra[2 * rows :], bra[2 * rows :], rows, op[1], c, s, v)
            elif kind == MONOMIAL:
                moves, turns = op[1] >= 0, op[2] >= 0
                for part in range(2):
                    begin = 2 * part * rows
                    monomial_back(
                        bra[begin:], other[begin:], rows, source[max(op[1], 0)], moves,
                        diagonal[0, op[2]] if turns else none, diagonal[1, op[2]] if turns else none, turns, v,
                    )  # fmt: skip
                bra, other = other, bra
            elif kind == AMPLITUDES:
                for lane in range(n_samples):
                    sample = block * v + lane
                    norm, along = length(x, sample), 0.0
                    for k in range(x.shape[1]):
                        along += bra[k * v + lane] * x[sample, k]
                    for k in range(x.shape[1]):
                        dx[sample, k] = (bra[k * v + lane] - along / norm * (x[sample, k] / norm)) / norm
            elif kind == PRODUCT:
                first_vectors(ops, vectors, n, cos, sin, cos_x, sin_x, v)
                at = 4 * (n - 1) * v
                # the stages of growth one after the other: size s begins at s - 2 rows
                other[:v], other[v : 2 * v] = vectors[at : at + v], vectors[at + 2 * v : at + 3 * v]
                other[rows : rows + v], other[rows + v : rows + 2 * v] = (
                    vectors[at + v : at + 2 * v],
                    vectors[at + 3 * v : at + 4 * v],
                )
                size, begin = 2 * v, 0
                for wire in range(n - 2, 0, -1):
                    new = begin + size
                    grow(vectors, wire, other[begin:], other[rows + begin :], other[new:], other[rows + new :], size, v)
                    size, begin = 2 * size, new
                for wire in range(n - 1):
                    shrink(vectors, d_vectors, wire, other[begin:], other[rows + begin :], bra, bra[rows:], size, v)
                    size //= 2
                    begin -= size
                d_vectors[at : at + v], d_vectors[at + v : at + 2 * v] = bra[:v], bra[rows : rows + v]
                d_vectors[at + 2 * v : at + 3 * v] = bra[v : 2 * v]
                d_vectors[at + 3 * v : at + 4 * v] = bra[rows + v : rows + 2 * v]
            elif kind == TURN:
                at = 4 * op[1] * v
                p0, q0, p1, q1 = (
                    load(d_vectors, at),
                    load(d_vectors, at + v),
                    load(d_vectors, at + 2 * v),
                    load(d_vectors, at + 3 * v),
                )
                r0, i0, r1, i1 = (
                    load(vectors, at),
                    load(vectors, at + v),
                    load(vectors, at + 2 * v),
                    load(vectors, at + 3 * v),
                )
                if op[4]:  # noqa: SIM108
                    g = p0 * i0 - q0 * r0 - p1 * i1 + q1 * r1
                else:
                    g = p1 * r0 - p0 * r1 + q1 * i0 - q0 * i1
                row = (op[2] + (0 if op[3] else n_sampled)) * v
                store(slope, row, load(slope, row) + splat(x.dtype.type(0.5)) * g)
                c = load(cos_x, op[2] * v) if op[3] else splat(cos[op[2]])
                s = load(sin_x, op[2] * v) if op[3] else splat(sin[op[2]])
                turn_wire(vectors, op[1], c, s - s - s, op[4] == 1, v)
                turn_wire(d_vectors, op[1], c, s - s - s, op[4] == 1, v)
        row = block * v if per_sample else block
        own = dw[row : row + (n_samples if per_sample else 1)]
        own[:] = 0
        spread_slopes(
            angles, factors, n_sampled, x, weights, slope, block * v, dx, own, per_sample, v
        )  # fmt: skip
