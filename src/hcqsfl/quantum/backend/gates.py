"""What the compiled kernels do to a block's state: rotations, phases, permutations, and their adjoints.

A block's state is a flat array of ``2 * 2**n`` rows of one vector each: the real parts of the amplitudes, then their
imaginary parts, the samples of the block side by side in a row. A block stays in the processor's cache, every
operation works on whole rows, and since RY is real the two planes are rotated as one array of twice the length.

Offsets, ``rows`` and ``stride`` are in numbers, not in rows of ``v`` samples, so that they index the arrays.
"""

from typing import Any

from numba import njit

from hcqsfl.quantum.backend.lanes import load, splat, store

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


@njit(**COMPILE, forceinline=True)
def turn3(src: Any, dst: Any, at: int, stride: int, c0: Any, s0: Any, c1: Any, s1: Any, c2: Any, s2: Any) -> Any:
    """Rotate three qubits, the highest first, on eight rows from a place; return them too."""
    x0, x4 = turn(load(src, at), load(src, at + 4 * stride), c0, s0)
    x1, x5 = turn(load(src, at + stride), load(src, at + 5 * stride), c0, s0)
    x2, x6 = turn(load(src, at + 2 * stride), load(src, at + 6 * stride), c0, s0)
    x3, x7 = turn(load(src, at + 3 * stride), load(src, at + 7 * stride), c0, s0)
    x0, x2 = turn(x0, x2, c1, s1)
    x1, x3 = turn(x1, x3, c1, s1)
    x4, x6 = turn(x4, x6, c1, s1)
    x5, x7 = turn(x5, x7, c1, s1)
    x0, x1 = turn(x0, x1, c2, s2)
    x2, x3 = turn(x2, x3, c2, s2)
    x4, x5 = turn(x4, x5, c2, s2)
    x6, x7 = turn(x6, x7, c2, s2)
    store(dst, at, x0)
    store(dst, at + stride, x1)
    store(dst, at + 2 * stride, x2)
    store(dst, at + 3 * stride, x3)
    store(dst, at + 4 * stride, x4)
    store(dst, at + 5 * stride, x5)
    store(dst, at + 6 * stride, x6)
    store(dst, at + 7 * stride, x7)
    return x0, x1, x2, x3, x4, x5, x6, x7


@njit(**COMPILE)
def ry3(src: Any, dst: Any, rows: int, stride: int, cos: Any, sin: Any, i: int, j: int, k: int, v: int) -> None:
    """Rotate three neighbouring qubits by angles ``i`` (the highest), ``j``, ``k``; the lowest has the stride given."""
    c0, s0, c1, s1, c2, s2 = splat(cos[i]), splat(sin[i]), splat(cos[j]), splat(sin[j]), splat(cos[k]), splat(sin[k])
    for high in range(0, rows, 8 * stride):
        for at in range(high, high + stride, v):
            turn3(src, dst, at, stride, c0, s0, c1, s1, c2, s2)


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
def ry3_back(a: Any, rows: int, stride: int, cos: Any, sin: Any, i: int, j: int, k: int, slope: Any, v: int) -> None:
    """Turn the adjoint state and the state behind it back, and add the slopes of the three angles ``i``, ``j``, ``k``.

    The rotations of a level commute, so that any frame between them gives the same slopes.
    """
    c0, s0, c1, s1, c2, s2 = splat(cos[i]), splat(-sin[i]), splat(cos[j]), splat(-sin[j]), splat(cos[k]), splat(-sin[k])
    g0 = c0 - c0
    g1, g2 = g0, g0
    for high in range(0, rows, 8 * stride):
        for at in range(high, high + stride, v):
            x0, x1, x2, x3, x4, x5, x6, x7 = turn3(a, a, at, stride, c0, s0, c1, s1, c2, s2)
            y0, y1, y2, y3, y4, y5, y6, y7 = turn3(a, a, at + rows, stride, c0, s0, c1, s1, c2, s2)
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
    add(slope, i * v, g0)
    add(slope, j * v, g1)
    add(slope, k * v, g2)


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
