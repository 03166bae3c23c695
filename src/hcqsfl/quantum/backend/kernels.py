"""The compiled backend's kernels: a lowered circuit run on one block of samples at a time, forward and adjoint.

A block's state is a flat array of ``2 * 2**n`` rows of one vector each: the real parts of the amplitudes, then their
imaginary parts, the samples of the block side by side in a row. A block stays in the processor's cache, every
operation works on whole rows, and since RY is real the two planes are rotated as one array of twice the length.

Rows of ``ops`` are ``(kind, a, b, c, d)``. Offsets are in numbers, not in rows, so that they index the arrays.
"""

import math
from typing import Any

import numpy as np
from numba import njit

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
"""

COMPILE: dict[str, Any] = {"nogil": True, "error_model": "numpy", "cache": True}


@njit(**COMPILE)
def parity(mask: int) -> int:
    """Return 1 if the number of set bits is odd."""
    for shift in (16, 8, 4, 2, 1):
        mask ^= mask >> shift
    return mask & 1


@njit(**COMPILE, forceinline=True)
def turn(x: Any, y: Any, c: Any, s: Any) -> Any:
    """Return ``(c x - s y, s x + c y)``."""
    return c * x - s * y, s * x + c * y


@njit(**COMPILE)
def ry3(src: Any, dst: Any, rows: int, stride: int, cos: Any, sin: Any, v: int) -> None:
    """Rotate three neighbouring qubits; the lowest has the stride given (in numbers). ``cos[0]`` is the highest's."""
    c0, s0, c1, s1, c2, s2 = splat(cos[0]), splat(sin[0]), splat(cos[1]), splat(sin[1]), splat(cos[2]), splat(sin[2])
    for high in range(0, rows, 8 * stride):
        for k in range(high, high + stride, v):
            x0, x4 = turn(load(src, k), load(src, k + 4 * stride), c0, s0)
            x1, x5 = turn(load(src, k + stride), load(src, k + 5 * stride), c0, s0)
            x2, x6 = turn(load(src, k + 2 * stride), load(src, k + 6 * stride), c0, s0)
            x3, x7 = turn(load(src, k + 3 * stride), load(src, k + 7 * stride), c0, s0)
            x0, x2 = turn(x0, x2, c1, s1)
            x1, x3 = turn(x1, x3, c1, s1)
            x4, x6 = turn(x4, x6, c1, s1)
            x5, x7 = turn(x5, x7, c1, s1)
            x0, x1 = turn(x0, x1, c2, s2)
            x2, x3 = turn(x2, x3, c2, s2)
            x4, x5 = turn(x4, x5, c2, s2)
            x6, x7 = turn(x6, x7, c2, s2)
            store(dst, k, x0)
            store(dst, k + stride, x1)
            store(dst, k + 2 * stride, x2)
            store(dst, k + 3 * stride, x3)
            store(dst, k + 4 * stride, x4)
            store(dst, k + 5 * stride, x5)
            store(dst, k + 6 * stride, x6)
            store(dst, k + 7 * stride, x7)


@njit(**COMPILE)
def ry1(src: Any, dst: Any, rows: int, stride: int, c: Any, s: Any, v: int) -> None:
    """Rotate one qubit by lanes ``c``, ``s``."""
    for high in range(0, rows, 2 * stride):
        for k in range(high, high + stride, v):
            x, y = turn(load(src, k), load(src, k + stride), c, s)
            store(dst, k, x)
            store(dst, k + stride, y)


@njit(**COMPILE)
def walsh(a: Any, rows: int, v: int) -> None:
    """Replace row ``m`` by the sum of all rows ``k`` with the sign ``(-1)^parity(k & m)``, in place."""
    stride = v
    while 8 * stride <= rows:
        for high in range(0, rows, 8 * stride):
            for k in range(high, high + stride, v):
                x0, x1, x2, x3 = load(a, k), load(a, k + stride), load(a, k + 2 * stride), load(a, k + 3 * stride)
                x4, x5 = load(a, k + 4 * stride), load(a, k + 5 * stride)
                x6, x7 = load(a, k + 6 * stride), load(a, k + 7 * stride)
                x0, x1, x2, x3 = x0 + x1, x0 - x1, x2 + x3, x2 - x3
                x4, x5, x6, x7 = x4 + x5, x4 - x5, x6 + x7, x6 - x7
                x0, x1, x2, x3 = x0 + x2, x1 + x3, x0 - x2, x1 - x3
                x4, x5, x6, x7 = x4 + x6, x5 + x7, x4 - x6, x5 - x7
                store(a, k, x0 + x4)
                store(a, k + stride, x1 + x5)
                store(a, k + 2 * stride, x2 + x6)
                store(a, k + 3 * stride, x3 + x7)
                store(a, k + 4 * stride, x0 - x4)
                store(a, k + 5 * stride, x1 - x5)
                store(a, k + 6 * stride, x2 - x6)
                store(a, k + 7 * stride, x3 - x7)
        stride *= 8
    while 2 * stride <= rows:
        for high in range(0, rows, 2 * stride):
            for k in range(high, high + stride, v):
                x, y = load(a, k), load(a, k + stride)
                store(a, k, x + y)
                store(a, k + stride, x - y)
        stride *= 2


@njit(**COMPILE, forceinline=True)
def overlap(a0: Any, a1: Any, b0: Any, b1: Any) -> Any:
    """Return ``a1 b0 - a0 b1``: the real part of ``<a| -iY |b>`` on one pair of amplitudes of one plane."""
    return a1 * b0 - a0 * b1


@njit(**COMPILE)
def add(a: Any, at: int, value: Any) -> None:
    """Add half of the lanes to those at a place."""
    store(a, at, load(a, at) + splat(a.dtype.type(0.5)) * value)


@njit(**COMPILE)
def ry3_back(a: Any, rows: int, stride: int, cos: Any, sin: Any, slope: Any, places: Any, v: int) -> None:
    """Turn the adjoint state and the state behind it back, and add the slopes of the three angles.

    The rotations of a level commute, so that any frame between them gives the same slopes.
    """
    c0, s0, c1, s1, c2, s2 = splat(cos[0]), splat(-sin[0]), splat(cos[1]), splat(-sin[1]), splat(cos[2]), splat(-sin[2])
    g0 = c0 - c0
    g1, g2 = g0, g0
    for high in range(0, rows, 8 * stride):
        for k in range(high, high + stride, v):
            x0, x4 = turn(load(a, k), load(a, k + 4 * stride), c0, s0)
            x1, x5 = turn(load(a, k + stride), load(a, k + 5 * stride), c0, s0)
            x2, x6 = turn(load(a, k + 2 * stride), load(a, k + 6 * stride), c0, s0)
            x3, x7 = turn(load(a, k + 3 * stride), load(a, k + 7 * stride), c0, s0)
            x0, x2 = turn(x0, x2, c1, s1)
            x1, x3 = turn(x1, x3, c1, s1)
            x4, x6 = turn(x4, x6, c1, s1)
            x5, x7 = turn(x5, x7, c1, s1)
            x0, x1 = turn(x0, x1, c2, s2)
            x2, x3 = turn(x2, x3, c2, s2)
            x4, x5 = turn(x4, x5, c2, s2)
            x6, x7 = turn(x6, x7, c2, s2)
            store(a, k, x0)
            store(a, k + stride, x1)
            store(a, k + 2 * stride, x2)
            store(a, k + 3 * stride, x3)
            store(a, k + 4 * stride, x4)
            store(a, k + 5 * stride, x5)
            store(a, k + 6 * stride, x6)
            store(a, k + 7 * stride, x7)
            j = k + rows
            y0, y4 = turn(load(a, j), load(a, j + 4 * stride), c0, s0)
            y1, y5 = turn(load(a, j + stride), load(a, j + 5 * stride), c0, s0)
            y2, y6 = turn(load(a, j + 2 * stride), load(a, j + 6 * stride), c0, s0)
            y3, y7 = turn(load(a, j + 3 * stride), load(a, j + 7 * stride), c0, s0)
            y0, y2 = turn(y0, y2, c1, s1)
            y1, y3 = turn(y1, y3, c1, s1)
            y4, y6 = turn(y4, y6, c1, s1)
            y5, y7 = turn(y5, y7, c1, s1)
            y0, y1 = turn(y0, y1, c2, s2)
            y2, y3 = turn(y2, y3, c2, s2)
            y4, y5 = turn(y4, y5, c2, s2)
            y6, y7 = turn(y6, y7, c2, s2)
            store(a, j, y0)
            store(a, j + stride, y1)
            store(a, j + 2 * stride, y2)
            store(a, j + 3 * stride, y3)
            store(a, j + 4 * stride, y4)
            store(a, j + 5 * stride, y5)
            store(a, j + 6 * stride, y6)
            store(a, j + 7 * stride, y7)
            g0 = (
                g0
                + overlap(x0, x4, y0, y4)
                + overlap(x1, x5, y1, y5)
                + overlap(x2, x6, y2, y6)
                + overlap(x3, x7, y3, y7)
            )
            g1 = (
                g1
                + overlap(x0, x2, y0, y2)
                + overlap(x1, x3, y1, y3)
                + overlap(x4, x6, y4, y6)
                + overlap(x5, x7, y5, y7)
            )
            g2 = (
                g2
                + overlap(x0, x1, y0, y1)
                + overlap(x2, x3, y2, y3)
                + overlap(x4, x5, y4, y5)
                + overlap(x6, x7, y6, y7)
            )
    add(slope, places[0] * v, g0)
    add(slope, places[1] * v, g1)
    add(slope, places[2] * v, g2)


@njit(**COMPILE)
def ry1_back(a: Any, rows: int, stride: int, c: Any, s: Any, slope: Any, place: int, v: int) -> None:
    """Turn one qubit of the adjoint state and of the state behind it back, and add the slope of the angle."""
    g = c - c
    s = g - s
    for high in range(0, rows, 2 * stride):
        for k in range(high, high + stride, v):
            x0, x1 = turn(load(a, k), load(a, k + stride), c, s)
            y0, y1 = turn(load(a, k + rows), load(a, k + rows + stride), c, s)
            store(a, k, x0)
            store(a, k + stride, x1)
            store(a, k + rows, y0)
            store(a, k + rows + stride, y1)
            g = g + overlap(x0, x1, y0, y1)
    add(slope, place * v, g)


@njit(**COMPILE)
def slopes_of_phases(bra: Any, ket: Any, rows: int, out: Any, v: int) -> None:
    """Write half of ``Im(conj(bra) ket)`` of each basis state to ``out``, then its signed sums: slopes by mask."""
    half = splat(bra.dtype.type(0.5))
    for k in range(0, rows, v):
        q = load(bra, k) * load(ket, k + rows) - load(bra, k + rows) * load(ket, k)
        store(out, k, half * q)
    walsh(out, rows, v)


@njit(**COMPILE)
def phase_sampled(a: Any, dst: Any, rows: int, mask: int, c: Any, s: Any, v: int) -> None:
    """Multiply by ``c - i s``, or ``c + i s`` where the mask's parity is odd."""
    for k in range(0, rows, v):
        re, im = load(a, k), load(a, k + rows)
        if parity((k // v) & mask):
            store(dst, k, c * re - s * im)
            store(dst, k + rows, c * im + s * re)
        else:
            store(dst, k, c * re + s * im)
            store(dst, k + rows, c * im - s * re)


@njit(**COMPILE)
def monomial(src: Any, dst: Any, rows: int, source: Any, moves: bool, cos: Any, sin: Any, phases: bool, v: int) -> None:
    """``dst[k] = (cos[k] - i sin[k]) src[source[k]]``."""
    for k in range(rows // v):
        place = (source[k] if moves else k) * v
        re, im = load(src, place), load(src, place + rows)
        if phases:
            c, s = splat(cos[k]), splat(sin[k])
            re, im = c * re + s * im, c * im - s * re
        store(dst, k * v, re)
        store(dst, k * v + rows, im)


@njit(**COMPILE)
def monomial_back(
    src: Any, dst: Any, rows: int, source: Any, moves: bool, cos: Any, sin: Any, phases: bool, v: int
) -> None:
    """The adjoint of ``monomial``."""
    for k in range(rows // v):
        re, im = load(src, k * v), load(src, k * v + rows)
        if phases:
            c, s = splat(cos[k]), splat(sin[k])
            re, im = c * re - s * im, c * im + s * re
        place = (source[k] if moves else k) * v
        store(dst, place, re)
        store(dst, place + rows, im)


@njit(**COMPILE)
def turn_wire(vectors: Any, wire: int, c: Any, s: Any, about_z: bool, v: int) -> None:
    """Rotate the two amplitudes of one qubit: rows ``re0, im0, re1, im1``."""
    at = 4 * wire * v
    re0, im0, re1, im1 = load(vectors, at), load(vectors, at + v), load(vectors, at + 2 * v), load(vectors, at + 3 * v)
    if about_z:
        re0, im0, re1, im1 = c * re0 + s * im0, c * im0 - s * re0, c * re1 - s * im1, c * im1 + s * re1
    else:
        re0, re1 = turn(re0, re1, c, s)
        im0, im1 = turn(im0, im1, c, s)
    store(vectors, at, re0)
    store(vectors, at + v, im0)
    store(vectors, at + 2 * v, re1)
    store(vectors, at + 3 * v, im1)


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
def grow(vectors: Any, wire: int, re: Any, im: Any, new_re: Any, new_im: Any, size: int, v: int) -> None:
    """Put one more qubit above a product state of ``size`` numbers; it may be done in place."""
    at = 4 * wire * v
    a, b, e, f = load(vectors, at), load(vectors, at + v), load(vectors, at + 2 * v), load(vectors, at + 3 * v)
    for k in range(0, size, v):
        x, y = load(re, k), load(im, k)
        store(new_re, k + size, x * e - y * f)
        store(new_im, k + size, x * f + y * e)
        store(new_re, k, x * a - y * b)
        store(new_im, k, x * b + y * a)


@njit(**COMPILE)
def shrink(vectors: Any, slopes: Any, wire: int, re: Any, im: Any, bra_re: Any, bra_im: Any, size: int, v: int) -> None:
    """The adjoint of ``grow``: the slope of the qubit's amplitudes to ``slopes``, that of the rest in place."""
    at = 4 * wire * v
    a, b, e, f = load(vectors, at), load(vectors, at + v), load(vectors, at + 2 * v), load(vectors, at + 3 * v)
    z0 = a - a
    z1, z2, z3 = z0, z0, z0
    for k in range(0, size, v):
        r, i = load(re, k), load(im, k)
        x0, y0, x1, y1 = load(bra_re, k), load(bra_im, k), load(bra_re, k + size), load(bra_im, k + size)
        z0 = z0 + r * x0 + i * y0
        z1 = z1 + r * y0 - i * x0
        z2 = z2 + r * x1 + i * y1
        z3 = z3 + r * y1 - i * x1
        store(bra_re, k, a * x0 + b * y0 + e * x1 + f * y1)
        store(bra_im, k, a * y0 - b * x0 + e * y1 - f * x1)
    store(slopes, at, z0)
    store(slopes, at + v, z1)
    store(slopes, at + 2 * v, z2)
    store(slopes, at + 3 * v, z3)


@njit(**COMPILE)
def pauli(a: Any, rows: int, flips: int, signs: int, n_y: int, out: Any, v: int) -> None:
    """Write the Pauli word applied to a state."""
    for k in range(rows // v):
        re, im = load(a, k * v), load(a, k * v + rows)
        # i^n_y (-1)^parity: turn by quarter circles
        quarter = (n_y + 2 * parity(k & signs)) % 4
        zero = re - re
        if quarter == 1:
            re, im = zero - im, re
        elif quarter == 2:
            re, im = zero - re, zero - im
        elif quarter == 3:
            re, im = im, zero - re
        store(out, (k ^ flips) * v, re)
        store(out, (k ^ flips) * v + rows, im)


@njit(**COMPILE)
def load_angles(x: Any, first: int, cos: Any, sin: Any, v: int) -> None:
    """Write cosine and sine of half the angles of the samples from ``first`` on, a row an angle."""
    for lane in range(v):
        for column in range(x.shape[1]):
            half = x[first + lane, column] * x.dtype.type(0.5) if first + lane < x.shape[0] else x.dtype.type(0)
            cos[column * v + lane] = math.cos(half)
            sin[column * v + lane] = math.sin(half)


@njit(**COMPILE)
def diagonals(loads: Any, shared: Any, size: int, dtype_like: Any) -> Any:
    """Return cosine and sine ``(2, n_diagonals, size)`` of half the phases; ``loads`` rows are (row, mask, slot)."""
    n_rows = loads[-1, 0] + 1 if len(loads) else 0
    phases = np.zeros((n_rows, size))
    for at in range(len(loads)):
        phases[loads[at, 0], loads[at, 1]] += shared[loads[at, 2]] * 0.5
    out = np.empty((2, n_rows, size), dtype_like.dtype)
    for row in range(n_rows):
        stride = 1
        while stride < size:
            for high in range(0, size, 2 * stride):
                for k in range(high, high + stride):
                    x, y = phases[row, k], phases[row, k + stride]
                    phases[row, k], phases[row, k + stride] = x + y, x - y
            stride *= 2
        for k in range(size):
            out[0, row, k] = math.cos(phases[row, k])
            out[1, row, k] = math.sin(phases[row, k])
    return out


@njit(**COMPILE)
def forward(
    ops: Any,
    masks: Any,
    source: Any,
    diagonal: Any,
    shared: Any,
    x: Any,
    amplitudes: Any,
    n: int,
    keeps: bool,
    saved: Any,
    scratch: Any,
    values: Any,
    first: int,
    last: int,
    v: int,
) -> None:
    """Evaluate blocks ``first`` to ``last``: values to ``values`` and, if it keeps, last states to ``saved``.

    A level is permuted from ``state`` to ``other``, and rotated from there back to ``state``.
    """
    rows = (1 << n) * v
    half = (shared * 0.5).astype(x.dtype)
    cos, sin = np.cos(half), np.sin(half)
    cos_x, sin_x = np.empty(x.shape[1] * v, x.dtype), np.empty(x.shape[1] * v, x.dtype)
    vectors = np.empty(4 * n * v, x.dtype)
    work, other = scratch[: 2 * rows], scratch[2 * rows :]
    for block in range(first, last):
        state = saved[block if keeps else 0]
        place = state
        load_angles(x, block * v, cos_x, sin_x, v)
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
                for lane in range(min(v, x.shape[0] - block * v)):
                    for k in range(1 << n):
                        state[k * v + lane] = amplitudes[block * v + lane, k]
            elif kind == MONOMIAL:
                place = other
                row = max(op[2], 0)
                monomial(
                    state, place, rows, source[max(op[1], 0)], op[1] >= 0,
                    diagonal[0, row], diagonal[1, row], op[2] >= 0, v,
                )  # fmt: skip
            elif kind == PHASE:
                at = op[2] * v
                phase_sampled(place, place, rows, op[1], load(cos_x, at), load(sin_x, at), v)
            elif kind == COPY and op[1]:
                state[:] = place
                place = state
            elif kind == RY3:
                slots = op[2:5]
                ry3(place, state, 2 * rows, op[1] * v, cos[slots], sin[slots], v)
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
        n_samples = min(v, x.shape[0] - block * v)
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


@njit(**COMPILE)
def backward(
    ops: Any,
    masks: Any,
    loads: Any,
    load_range: Any,
    source: Any,
    diagonal: Any,
    shared: Any,
    x: Any,
    n: int,
    saved: Any,
    scratch: Any,
    slopes: Any,
    dx: Any,
    d_amplitudes: Any,
    d_shared: Any,
    per_sample: bool,
    first: int,
    last: int,
    v: int,
) -> None:
    """The adjoint sweep of blocks ``first`` to ``last``, from the slopes of the values ``(b, n_observables)``.

    Only the last state was kept: it is turned back level by level beside the adjoint state, in cache, which takes less
    time than to store and fetch the states between.

    ``loads`` rows are (mask, slot, sampled), those of a level between two entries of ``load_range``. ``d_shared`` has
    a row a block, or a row a sample.
    """
    rows = (1 << n) * v
    half = (shared * 0.5).astype(x.dtype)
    cos, sin = np.cos(half), np.sin(half)
    cos_x, sin_x = np.empty(x.shape[1] * v, x.dtype), np.empty(x.shape[1] * v, x.dtype)
    vectors, d_vectors = np.empty(4 * n * v, x.dtype), np.empty(4 * n * v, x.dtype)
    # slopes of the sampled angles, then of the shared ones, a row each
    n_sampled = x.shape[1]
    slope = np.empty((n_sampled + len(shared)) * v, x.dtype)
    # the adjoint state and behind it the state: both are turned back at once
    one, two, work = scratch[: 4 * rows], scratch[4 * rows : 8 * rows], scratch[8 * rows :]
    for block in range(first, last):
        state = saved[block]
        n_samples = min(v, x.shape[0] - block * v)
        load_angles(x, block * v, cos_x, sin_x, v)
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
        level = len(load_range) - 2
        for number in range(len(ops) - 1, -1, -1):
            op = ops[number]
            kind = op[0]
            if kind == RY3:
                slots = op[2:5]
                ry3_back(bra, 2 * rows, op[1] * v, cos[slots], sin[slots], slope, slots + n_sampled, v)
            elif kind == RY1:
                c, s = splat(cos[op[2]]), splat(sin[op[2]])
                ry1_back(bra, 2 * rows, op[1] * v, c, s, slope, op[2] + n_sampled, v)
            elif kind == RY1_SAMPLED:
                c, s = load(cos_x, op[2] * v), load(sin_x, op[2] * v)
                ry1_back(bra, 2 * rows, op[1] * v, c, s, slope, op[2], v)
            elif kind == COPY:
                # every level has one: its rotations are undone here, and the slopes of its phases are read
                ket = bra[2 * rows :]
                begin, end = load_range[level], load_range[level + 1]
                if end > begin:
                    slopes_of_phases(bra, ket, rows, work, v)
                for at in range(begin, end):
                    row = (loads[at, 1] + (0 if loads[at, 2] else n_sampled)) * v
                    store(slope, row, load(slope, row) + load(work, loads[at, 0] * v))
                level -= 1
            elif kind == PHASE:
                at = op[2] * v
                s = load(sin_x, at)
                c, s = load(cos_x, at), s - s - s
                phase_sampled(bra, bra, rows, op[1], c, s, v)
                phase_sampled(bra[2 * rows :], bra[2 * rows :], rows, op[1], c, s, v)
            elif kind == MONOMIAL:
                row = max(op[2], 0)
                for part in range(2):
                    begin = 2 * part * rows
                    monomial_back(
                        bra[begin:], other[begin:], rows, source[max(op[1], 0)], op[1] >= 0,
                        diagonal[0, row], diagonal[1, row], op[2] >= 0, v,
                    )  # fmt: skip
                bra, other = other, bra
            elif kind == AMPLITUDES:
                for lane in range(n_samples):
                    for k in range(1 << n):
                        d_amplitudes[block * v + lane, k] = bra[k * v + lane]
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
        for column in range(n_sampled):
            for lane in range(n_samples):
                dx[block * v + lane, column] = slope[column * v + lane]
        for column in range(len(shared)):
            at = (n_sampled + column) * v
            if per_sample:
                for lane in range(n_samples):
                    d_shared[block * v + lane, column] = slope[at + lane]
            else:
                d_shared[block, column] = total(load(slope, at))
