"""Any CSV file with signal columns, a label column and a stated sampling frequency."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hcqsfl.data.locate import found, inside
from hcqsfl.data.recording import IGNORED, Recording, is_synthetic
from hcqsfl.data.tables import MISSING, numbers, read_strings, require_columns

TITLE = "CSV tables of your own"
HOMEPAGE = "https://www.rfc-editor.org/rfc/rfc4180"
LICENCE = "Whatever the owner of the files says."
CITATION = "Name the source of the files."

WAY_OUT = "Name the folder that holds the tables, or another pattern."


def files(root: Path, *, pattern: str = "*.csv*", **_options: object) -> list[Path]:
    """Return the files under ``root`` that match ``pattern`` and end in ``.csv`` or ``.csv.gz``, in order of name.

    Raises:
        FileNotFoundError: there is none.
    """
    paths = [p for p in root.glob(pattern) if p.name.lower().endswith((".csv", ".csv.gz"))] if root.is_dir() else []
    return found(paths, root, f"tables called {pattern} (.csv or .csv.gz)", WAY_OUT)


def load(
    root: Path,
    *,
    signal_columns: Sequence[str],
    label_column: str,
    sfreq: float,
    subject_column: str | None = None,
    subject_pattern: str | None = None,
    classes: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    time_column: str | None = None,
    pattern: str = "*.csv*",
    delimiter: str = ",",
) -> list[Recording]:
    """Read every table under ``root`` that matches ``pattern``.

    A recording is what one file holds of one subject. ``position`` is the row in the file, counted from 0 below the
    header, so rows of other subjects in between count as a gap.

    Args:
        root: folder that holds the tables.
        signal_columns: columns that become channels, in that order; they must hold numbers. An empty value is NaN.
        label_column: column that holds the label.
        sfreq: rows a second; state 1.0 for rows without a clock.
        subject_column: column that says who was recorded. Without it a file is one subject, called as
            ``subject_pattern`` says.
        subject_pattern: regular expression searched in the file's name: its first group, or all of it where it has no
            group, is the subject. Without it the subject is the file's name up to the first dot.
        classes: name of the class for each value of the label column; several values may share a name, and rows of
            any other value belong to no class. Without it every value is a class and its own name. Values are
            compared as text, whole numbers without ``.0``.
        units: unit of each channel, where known.
        time_column: column of seconds that must advance by ``1 / sfreq``; where it jumps, a recording ends. Without it
            the rows of a file are taken as contiguous.
        pattern: which files, as in ``Path.glob``; ``**/*.csv`` searches below.
        delimiter: what separates values.

    Returns:
        Recordings with float64 signals, in order of file name and then of first appearance in the file.

    Raises:
        ValueError: a column is missing or not numeric, a channel of a subject holds no value at all, a listed label
            value occurs nowhere, or time and ``sfreq`` contradict one another.
        FileNotFoundError: there is no such file.
    """
    if not signal_columns:
        raise ValueError("no signal column was named; name at least one in signal_columns")
    if not sfreq > 0:
        raise ValueError(f"a sampling frequency of {sfreq} Hz was stated; it must be above 0")
    if label_column in signal_columns:
        raise ValueError(f"{label_column!r} is the label column and cannot be a signal column too")
    for name in units or {}:
        if name not in signal_columns:
            raise ValueError(f"a unit was given for {name!r}, which is no signal column: {', '.join(signal_columns)}")
    tables = {path: read_strings(path, delimiter) for path in files(root, pattern=pattern)}
    wanted = [*signal_columns, label_column, *filter(None, [subject_column, time_column])]
    for path, table in tables.items():
        require_columns(table, wanted, path)
    label_texts = {path: _label_text(table[label_column]) for path, table in tables.items()}
    named = _names_of_values(classes, label_texts.values(), label_column)
    names = tuple(dict.fromkeys(named.values()))
    index = {value: names.index(name) for value, name in named.items()}

    recordings = []
    for path, table in tables.items():
        signal = np.stack([numbers(table[name], path) for name in signal_columns])
        labels = label_texts[path].map(index).fillna(IGNORED).to_numpy(dtype=np.int64)
        subjects = _subjects(table, path, subject_column, subject_pattern)
        seconds = None if time_column is None else numbers(table[time_column], path)
        for subject in pd.unique(subjects):
            rows = np.flatnonzero(subjects == subject)
            _require_some_value(signal[:, rows], signal_columns, subject, path)
            for part in _contiguous(rows, seconds, sfreq, path):
                recordings.append(
                    Recording(
                        signal=np.ascontiguousarray(signal[:, part]),
                        labels=labels[part],
                        sfreq=float(sfreq),
                        channels=tuple(signal_columns),
                        units=tuple((units or {}).get(name, "") for name in signal_columns),
                        subject=str(subject),
                        classes=names,
                        source=inside(root, path),
                        position=part,
                        synthetic=is_synthetic(root),
                    )
                )
    return recordings


def _label_text(column: pd.Series) -> pd.Series:
    """Return labels as text without blanks around it, ``2.0`` as ``2``."""
    return column.str.strip().str.replace(r"^([+-]?\d+)\.0+$", r"\1", regex=True)


def _names_of_values(classes: Mapping[str, str] | None, texts: Iterable[pd.Series], column: str) -> Mapping[str, str]:
    """Return the class of each label value: as told, or each value its own."""
    there = sorted({str(value) for text in texts for value in text.unique()} - set(MISSING))
    for value in classes or {}:
        if value not in there:
            raise ValueError(
                f"classes names the label value {value!r}, but column {column!r} holds only {', '.join(there[:12])}"
            )
    return {value: value for value in there} if classes is None else classes


def _subjects(table: pd.DataFrame, path: Path, column: str | None, pattern: str | None) -> np.ndarray:
    if column is not None:
        subjects = table[column].str.strip().to_numpy()
        blank = np.flatnonzero(np.isin(subjects.astype(str), MISSING))
        if len(blank):
            raise ValueError(f"{path}, line {blank[0] + 2}: column {column!r} does not say who was recorded")
        return subjects
    if pattern is None:
        return np.full(len(table), path.name.split(".")[0])
    match = re.search(pattern, path.name)
    if match is None:
        raise ValueError(f"subject_pattern {pattern!r} finds nothing in the file name {path.name!r}")
    return np.full(len(table), match[1] if match.re.groups else match[0])


def _require_some_value(signal: np.ndarray, columns: Sequence[str], subject: str, path: Path) -> None:
    for name, some in zip(columns, np.isfinite(signal).any(axis=1), strict=True):
        if not some:
            raise ValueError(
                f"{path}: column {name!r} of subject {subject} holds no number at all; leave the column out or the file"
            )


def _contiguous(rows: np.ndarray, seconds: np.ndarray | None, sfreq: float, path: Path) -> list[np.ndarray]:
    """Split the rows of one subject where time jumps by anything but one sample, half a sample allowed."""
    if seconds is None or len(rows) < 2:
        return [rows]
    step = np.diff(seconds[rows])
    if np.isnan(step).any():
        line = rows[np.flatnonzero(np.isnan(seconds[rows]))[0]] + 2
        raise ValueError(f"{path}, line {line}: the time is missing")
    if not np.isclose(np.median(step), 1 / sfreq, rtol=0.05):
        raise ValueError(
            f"{path}: rows are {np.median(step):g} s apart (median), but at the stated {sfreq:g} Hz "
            f"they are {1 / sfreq:g} s apart"
        )
    return np.split(rows, np.flatnonzero(np.abs(step - 1 / sfreq) > 0.5 / sfreq) + 1)
