"""Read a text file that is one grid of numbers: columns separated by blanks, no header, ``NaN`` for what is missing.

Two readers share the work. A compiled one walks over the bytes of a well-formed file and gives up at the first thing it
does not expect; a careful one then reads the file again, and either accepts what is merely unusual or says what is
wrong and in which line.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv as arrow_csv

THREADS = 2
ZERO = 48
MINUS, PLUS, POINT, BLANK, SMALL_E, CAPITAL_E, CAPITAL_N = (ord(c) - ZERO for c in "-+. eEN")
SMALL = 3_000_000
"""Bytes below which loading the compiled reader costs more than it saves."""


def read_grid(path: Path, n_columns: int, columns: Sequence[int]) -> np.ndarray:
    """Read some columns of a file of numbers.

    Args:
        path: the file.
        n_columns: how many numbers every row has to hold.
        columns: which of them to return, counted from 0.

    Returns:
        ``(len(columns), n_rows)`` float64, correctly rounded; NaN where the file says ``NaN``.

    Raises:
        ValueError: the file is empty, a row has another length, or a value is not a finite number or ``NaN``; the
            message names file and line.
    """
    text = path.read_bytes()
    if len(text) > SMALL:
        fast = _read_fast(text, n_columns, columns)
        if fast is not None:
            return fast
    return _read_carefully(path, text, n_columns, columns)


def _read_fast(text: bytes, n_columns: int, columns: Sequence[int]) -> np.ndarray | None:
    """Return the grid, or None when anything is not as expected."""
    if not text.endswith(b"\n"):
        text += b"\n"
    place_of = np.full(n_columns, len(columns), dtype=np.int64)  # what is not wanted goes to a spare place
    place_of[list(columns)] = np.arange(len(columns))
    cuts = [0, *(text.index(b"\n", part * len(text) // THREADS) + 1 for part in range(1, THREADS)), len(text)]
    data = np.frombuffer(text, dtype=np.uint8)
    count, parse = _compiled()
    counts = [count(data[start:end]) for start, end in pairwise(cuts)]
    grid = np.empty((sum(counts), len(columns) + 1))  # a row at a time is written
    first = np.cumsum([0, *counts])
    with ThreadPoolExecutor(THREADS) as pool:
        done = pool.map(lambda i: parse(data, cuts[i], cuts[i + 1], place_of, grid, first[i]), range(THREADS))
        return grid[:, :-1].T if all(done) else None


@cache
def _compiled():  # type: ignore[no-untyped-def]
    """Return the compiled line counter and reader (numba keeps it on disk where it can)."""
    import numba  # here, since it is slow to import and small files do without

    powers = tuple(10.0**k for k in range(23))

    @numba.njit(nogil=True, cache=True)
    def count(data):  # type: ignore[no-untyped-def]  # pragma: no cover
        """Return how many lines end in ``data``."""
        lines = 0
        for byte in data:
            lines += byte == 10
        return lines

    @numba.njit(nogil=True, cache=True)
    def parse(data, start, end, place_of, grid, row):  # type: ignore[no-untyped-def]  # pragma: no cover
        """Fill ``grid`` from ``row`` on; return whether every byte was as expected. The last byte ends a line."""
        tens = np.array(powers)
        last = len(place_of) - 1
        one = np.uint64(1)  # unsigned places spare a check for negative ones
        at = np.uint64(start)
        end = np.uint64(end)
        while at < end:
            for i in range(last + 1):
                digit = np.int64(data[at]) - ZERO
                if digit == CAPITAL_N:
                    if data[at + one] != 97 or data[at + one + one] != 78:
                        return False
                    at += np.uint64(3)
                    digit = np.int64(data[at]) - ZERO
                    value = np.nan
                else:
                    sign = np.int64(1)
                    if digit == MINUS:
                        sign = np.int64(-1)
                        at += one
                        digit = np.int64(data[at]) - ZERO
                    mantissa = np.int64(0)
                    first = at
                    while 0 <= digit <= 9:
                        mantissa = mantissa * 10 + digit
                        at += one
                        digit = np.int64(data[at]) - ZERO
                    digits = np.int64(at - first)
                    places = np.int64(0)
                    if digit == POINT:
                        at += one
                        first = at
                        digit = np.int64(data[at]) - ZERO
                        while 0 <= digit <= 9:
                            mantissa = mantissa * 10 + digit
                            at += one
                            digit = np.int64(data[at]) - ZERO
                        places = np.int64(at - first)
                        digits += places
                    if digit in (SMALL_E, CAPITAL_E):
                        at += one
                        digit = np.int64(data[at]) - ZERO
                        down = digit == MINUS
                        if down or digit == PLUS:
                            at += one
                            digit = np.int64(data[at]) - ZERO
                        if not 0 <= digit <= 9:
                            return False
                        exponent = np.int64(0)
                        while 0 <= digit <= 9 and exponent < 100:
                            exponent = exponent * 10 + digit
                            at += one
                            digit = np.int64(data[at]) - ZERO
                        places += exponent if down else -exponent
                    # up to 15 digits and 10**22 both fit a float64 exactly, so one division rounds correctly
                    if digits == 0 or digits > 15 or places > 22 or places < -22:
                        return False
                    mantissa *= sign
                    value = mantissa / tens[places] if places >= 0 else mantissa * tens[-places]
                if i < last and digit != BLANK:
                    return False
                while data[at] == 32:
                    at += one
                grid[row, place_of[i]] = value
            if data[at] == 13:
                at += one
            if data[at] != 10:
                return False
            at += one
            row += 1
        return True

    return count, parse


def _read_carefully(path: Path, text: bytes, n_columns: int, columns: Sequence[int]) -> np.ndarray:
    """Read any mixture of blanks and line ends, or say what is wrong and where."""
    if not text.strip():
        raise ValueError(f"{path}: the file is empty")
    try:
        table = _arrow(text, n_columns)
    except pyarrow.ArrowInvalid:
        plain = re.sub(rb" *\r?\n *", b"\n", re.sub(rb"[ \t]+", b" ", text.lstrip(b" \t")))
        try:
            table = _arrow(plain, n_columns)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(_in_our_words(path, str(error), n_columns)) from error
    grid = np.stack([table[str(i)].to_numpy() for i in columns]) if columns else np.empty((0, table.num_rows))
    if np.isinf(grid).any():
        column, row = np.argwhere(np.isinf(grid))[0]
        raise ValueError(f"{path}, line {row + 1}: column {columns[column] + 1} is infinite")
    return np.asarray(grid)


def _arrow(text: bytes, n_columns: int) -> pyarrow.Table:
    names = [str(i) for i in range(n_columns)]
    return arrow_csv.read_csv(
        pyarrow.BufferReader(text),
        # one thread: only then does an error name the row
        read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names),
        parse_options=arrow_csv.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pyarrow.float64()), null_values=["NaN"]
        ),
    )


def _in_our_words(path: Path, error: str, n_columns: int) -> str:
    short = re.search(r"Row #(\d+): Expected \d+ columns, got (\d+)", error)
    if short:
        return f"{path}, line {short[1]}: the row has {short[2]} numbers, but every row must have {n_columns}"
    wrong = re.search(r"CSV column #(\d+): Row #(\d+): .*invalid value '(.*)'", error)
    if wrong:
        return f"{path}, line {wrong[2]}: column {int(wrong[1]) + 1} holds {wrong[3]!r}, which is not a number"
    return f"{path}: {error.splitlines()[0]}"
