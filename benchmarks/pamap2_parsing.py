"""How much faster a PAMAP2 file is read than by ``pandas.read_csv(sep=r"\\s+")``.

A made-up Protocol file of 100 Hz rows is written in the official format, then both readers take turns on it, so that
whatever else the machine does falls on both. Run with ``python benchmarks/pamap2_parsing.py [rows]``.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from hcqsfl.data.number_grid import read_grid
from hcqsfl.data.pamap2 import N_COLUMNS
from hcqsfl.randomness import numpy_generator

REPEATS = 7
REQUIRED = 5.0


def write(path: Path, n_rows: int) -> None:
    rng = numpy_generator(0, "benchmark", "pamap2")
    values = rng.normal(0, 10, size=(n_rows, N_COLUMNS))
    values[:, 0] = 8.38 + np.arange(n_rows) / 100
    values[:, 1] = 4
    values[:, 2] = np.where(np.arange(n_rows) % 11, np.nan, 104)
    table = pd.DataFrame(values).round({0: 2})
    table.to_csv(path, sep=" ", header=False, index=False, na_rep="NaN", float_format="%.6g")


def seconds(read: Callable[[], object]) -> float:
    start = time.perf_counter()
    read()
    return time.perf_counter() - start


def measure(n_rows: int) -> float:
    """Return the median over turns of pandas' time divided by ours, and print all of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "subject101.dat"
        write(path, n_rows)
        ours = read_grid(path, N_COLUMNS, range(N_COLUMNS))  # once before the clock runs: numba compiles here
        theirs = pd.read_csv(path, sep=r"\s+", header=None, float_precision="round_trip").to_numpy().T
        np.testing.assert_array_equal(ours, theirs)
        size = path.stat().st_size / 1e6
        turns = [
            (
                seconds(lambda: pd.read_csv(path, sep=r"\s+", header=None)),
                seconds(lambda: read_grid(path, N_COLUMNS, range(N_COLUMNS))),
            )
            for _ in range(REPEATS)
        ]
    pandas, hcqsfl = np.median(turns, axis=0)
    ratio = float(np.median([a / b for a, b in turns]))
    print(f"{n_rows} rows, {size:.1f} MB, same numbers from both; median of {REPEATS} turns each")
    print(f"pandas.read_csv {pandas:.3f} s, hcqsfl {hcqsfl:.3f} s: {ratio:.1f} times as fast")
    return ratio


if __name__ == "__main__":
    ratio = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
    sys.exit(0 if ratio >= REQUIRED else f"below the required {REQUIRED:g}")
