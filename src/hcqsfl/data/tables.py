"""Read delimited text as strings first, so that nothing is guessed, and turn columns into numbers with clear errors."""

import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv as arrow_csv

from hcqsfl.registry import suggest

MISSING = ("", "-", "nan", "NaN", "NA", "null")
"""Spellings of a value that is not there."""


def read_strings(path: Path, delimiter: str = ",") -> pd.DataFrame:
    """Read a CSV file (``.gz`` too, with or without a byte order mark) with every value as the text it is.

    Raises:
        ValueError: the file is empty, cut short, not UTF-8, names a column twice, or has a row of another length.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
            names = [name.strip() for name in next(csv.reader(text, delimiter=delimiter), [])]
        if not names:
            raise ValueError(f"{path}: the file is empty")
        with opened(path, "rb") as raw:
            table = arrow_csv.read_csv(
                raw,
                # one thread: only then does an error name the row
                read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
                parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string())),
            )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: the compressed file is cut short or damaged ({error})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except pyarrow.ArrowInvalid as error:
        raise ValueError(_in_our_words(path, str(error), len(names))) from error
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{path}: the header names {', '.join(map(repr, twice))} more than once")
    if not table.num_rows:
        raise ValueError(f"{path}: the table has no rows below its header")
    return table.to_pandas()


def _in_our_words(path: Path, error: str, n_columns: int) -> str:
    row = re.search(r"Row #(\d+): Expected \d+ columns, got (\d+)", error)
    if row:
        return f"{path}, line {row[1]}: the row has {row[2]} values, but the header names {n_columns} columns"
    return f"{path}: {error.splitlines()[0]}"


def require_columns(table: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
    """Refuse a table that lacks one of ``columns``, naming the nearest that there is.

    Raises:
        ValueError: a column is missing.
    """
    for column in columns:
        if column not in table.columns:
            there = ", ".join(map(str, table.columns))
            raise ValueError(f"{path} has no column {column!r}{suggest(column, table.columns)} It has: {there}")


def numbers(column: pd.Series, path: Path) -> np.ndarray:
    """Return a column of text as float64, NaN where the value is missing (see ``MISSING``).

    Raises:
        ValueError: a value is neither a number nor missing, or is infinite; the message names the line.
    """
    text = column.str.strip()
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    wrong = np.flatnonzero((np.isnan(values) & ~text.isin(MISSING).to_numpy()) | np.isinf(values))
    if len(wrong):
        raise ValueError(
            f"{path}, line {wrong[0] + 2}: column {column.name!r} holds {column.iloc[wrong[0]]!r}, "
            f"which is not a finite number ({len(wrong)} such values)"
        )
    return values
