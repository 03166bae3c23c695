"""PAMAP2: three inertial units and a heart rate monitor on nine people, 18 activities.

The files are a grid of 100 Hz samples. Recordings were spliced at transient moments (activity 0), packets were lost by
the radio (NaN in one unit at a time), and the heart rate comes about nine times a second: 9 % of the rows are whole.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from hcqsfl.data.locate import found, inside
from hcqsfl.data.number_grid import read_grid
from hcqsfl.data.recording import Recording, is_synthetic
from hcqsfl.data.resampling import resample
from hcqsfl.registry import lookup, suggest

TITLE = "PAMAP2 Physical Activity Monitoring"
HOMEPAGE = "https://archive.ics.uci.edu/dataset/231/pamap2+physical+activity+monitoring"
LICENCE = "Creative Commons Attribution 4.0 (UCI Machine Learning Repository): name the authors."
CITATION = (
    "A. Reiss and D. Stricker (2012), Introducing a new benchmarked dataset for activity monitoring, 16th "
    "International Symposium on Wearable Computers, 108-109. doi:10.24432/C5NW2H."
)

WAY_OUT = (
    f"Get the zip from {HOMEPAGE}, unpack the PAMAP2_Dataset.zip inside it too, and name the folder that holds "
    "Protocol and Optional."
)

Part = Literal["protocol", "optional", "both"]

SFREQ = 100.0

PROTOCOL: Mapping[int, str] = {
    1: "lying",
    2: "sitting",
    3: "standing",
    4: "walking",
    5: "running",
    6: "cycling",
    7: "Nordic walking",
    12: "ascending stairs",
    13: "descending stairs",
    16: "vacuum cleaning",
    17: "ironing",
    24: "rope jumping",
}

OPTIONAL: Mapping[int, str] = {
    9: "watching TV",
    10: "computer work",
    11: "car driving",
    18: "folding laundry",
    19: "house cleaning",
    20: "playing soccer",
}

ACTIVITIES: Mapping[int, str] = {0: "transient", **dict(sorted({**PROTOCOL, **OPTIONAL}.items()))}

N_COLUMNS = 54

_UNIT_OF = {"temp": "degC", "acc16": "m/s^2", "acc6": "m/s^2", "gyro": "rad/s", "mag": "uT", "orientation": ""}


def _columns() -> dict[str, tuple[int, str]]:
    """Return the place and unit of every channel: ``heart_rate``, ``hand_temp``, ``hand_acc16_x``, ..."""
    columns = {"heart_rate": (2, "bpm")}
    for n, imu in enumerate(("hand", "chest", "ankle")):
        parts = ["temp", *(f"{s}_{axis}" for s in ("acc16", "acc6", "gyro", "mag") for axis in "xyz")]
        parts += [f"orientation_{i}" for i in range(4)]
        for i, part in enumerate(parts):
            columns[f"{imu}_{part}"] = (3 + 17 * n + i, _UNIT_OF[part.split("_")[0]])
    return columns


COLUMNS: Mapping[str, tuple[int, str]] = _columns()
"""Place, counted from 0, and unit of every channel in a row; 0 is the time stamp in s, 1 the activity."""

DEFAULT_CHANNELS = tuple(
    name for name in COLUMNS if name == "heart_rate" or name.split("_")[1] in ("acc16", "gyro", "mag")
)
"""Heart rate, and of each unit the 16 g accelerometer, gyroscope and magnetometer."""

HEART_RATE_HOLD_S = 10.0
"""How long a heart rate is carried forward. Measured about nine times a second, it is stale by then."""

_log = logging.getLogger(__name__)


def files(
    root: Path, *, part: Part = "protocol", subjects: Sequence[str] | None = None, **_options: object
) -> list[Path]:
    """Return the ``Protocol/subject*.dat`` and ``Optional/subject*.dat`` that ``load`` reads, at any depth.

    Raises:
        ValueError: ``part`` or a subject is not there, or a file is there twice.
        FileNotFoundError: there is no such file.
    """
    lookup("part of PAMAP2", dict.fromkeys(get_args(Part)), part)
    folders = ("protocol", "optional") if part == "both" else (part,)
    paths = [p for p in root.rglob("subject*.dat") if p.parent.name.lower() in folders] if root.is_dir() else []
    wanted = " or ".join(f"{folder.capitalize()}/subject*.dat" for folder in folders)
    paths = found(paths, root, wanted, WAY_OUT)
    seen: dict[tuple[str, str], Path] = {}
    for path in paths:
        other = seen.setdefault((path.parent.name.lower(), path.name), path)
        if other != path:
            raise ValueError(f"{inside(root, path)} and {inside(root, other)} are the same file of PAMAP2; keep one")
    if subjects is None:
        return paths
    there = sorted({p.stem for p in paths})
    for subject in subjects:
        if subject not in there:
            raise ValueError(f"there is no subject {subject!r} in {root}{suggest(subject, there)} {', '.join(there)}")
    return [p for p in paths if p.stem in set(subjects)]


def load(
    root: Path,
    *,
    part: Part = "protocol",
    classes: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    sfreq: float = SFREQ,
    max_gap_s: float = 0.5,
    subjects: Sequence[str] | None = None,
) -> list[Recording]:
    """Read PAMAP2: one recording for each stretch of one activity without a gap in time.

    ``position`` counts samples at ``sfreq`` on the clock of the file. A bout during which a channel holds nothing at
    all (a unit that was lost throughout) is left out, and logged.

    Args:
        root: folder that holds ``Protocol`` and ``Optional``, at any depth.
        part: which of the two to read, or ``"both"``.
        classes: activities to keep, in that order; without it those of the protocol (12), the optional part (6) or
            both (18). Transient moments and activities not named are dropped, and recordings end there.
        channels: names out of ``COLUMNS``; without it ``DEFAULT_CHANNELS``. The 6 g accelerometer saturates, so ask
            for it by name; the orientation is invalid and refused.
        sfreq: rate wanted in Hz, through an anti-alias filter; the files have 100.
        max_gap_s: lost samples, up to this many s in a row and inside one activity, are interpolated linearly; longer
            ones stay NaN where rows say so, and end the recording where rows are absent.
        subjects: only these, such as ``subject101``.

    Heart rate is carried forward from the last measurement in the same file, transient moments included, for at most
    ``HEART_RATE_HOLD_S``; it is never filled backwards, so that no sample knows the future, and never across files.

    Returns:
        Recordings with float32 signals, in order of file and time.

    Raises:
        ValueError: a row has not 54 numbers, an activity is unknown, a channel holds nothing in a whole file, or an
            option asks for what is not there.
        FileNotFoundError: there is no such file.
    """
    paths = files(root, part=part, subjects=subjects)
    ids = _class_ids(part, classes)
    names = DEFAULT_CHANNELS if channels is None else _known_channels(channels)
    if max_gap_s < 0:
        raise ValueError(f"a longest gap of {max_gap_s:g} s to interpolate was asked for; it must be at least 0")
    out: list[Recording] = []
    for path in paths:
        stamp, activity, *rows = read_grid(path, N_COLUMNS, [0, 1, *(COLUMNS[name][0] for name in names)])
        tick = _ticks(stamp, path)
        _check_activities(activity, path)
        signal = np.array(rows, dtype=np.float32)  # (n_chans, n_rows)
        for name, row in zip(names, signal, strict=True):
            if not np.isfinite(row).any():
                raise ValueError(f"{path}: channel {name} holds no number at all; leave the channel out or the subject")
            if name == "heart_rate":
                row[:] = _carried_forward(row, tick, round(HEART_RATE_HOLD_S * SFREQ))
        for first, end in _bouts(activity, tick, ids, max_gap_s):
            bout = _on_the_grid(signal[:, first:end], tick[first:end])
            _interpolate(bout, round(max_gap_s * SFREQ))
            empty = [name for name, row in zip(names, bout, strict=True) if not np.isfinite(row).any()]
            if empty:
                what = ACTIVITIES[int(activity[first])]
                _log.warning("%s, line %d: %s without %s, left out", path.name, first + 1, what, ", ".join(empty))
                continue
            bout = resample(bout, SFREQ, sfreq)
            n_samples = bout.shape[1]
            out.append(
                Recording(
                    signal=bout,
                    labels=np.full(n_samples, ids.index(int(activity[first])), dtype=np.int8),
                    sfreq=float(sfreq),
                    channels=tuple(names),
                    units=tuple(COLUMNS[name][1] for name in names),
                    subject=path.stem,
                    classes=tuple(ACTIVITIES[i] for i in ids),
                    source=inside(root, path),
                    position=round(tick[first] * sfreq / SFREQ) + np.arange(n_samples),
                    synthetic=is_synthetic(root),
                )
            )
    if not out:
        raise ValueError(f"none of the {len(paths)} files holds any of {', '.join(ACTIVITIES[i] for i in ids)}")
    return out


def _class_ids(part: str, classes: Sequence[str] | None) -> list[int]:
    if classes is None:
        return sorted({"protocol": PROTOCOL, "optional": OPTIONAL, "both": {**PROTOCOL, **OPTIONAL}}[part])
    ids = {name: i for i, name in ACTIVITIES.items() if i}
    if not classes or len(set(classes)) != len(classes):
        raise ValueError(f"classes must name each activity once, not {', '.join(classes) or 'none'}")
    return [lookup("activity of PAMAP2", ids, name) for name in classes]


def _known_channels(channels: Sequence[str]) -> tuple[str, ...]:
    if not channels:
        raise ValueError("no channel was named; leave channels out to take the default ones")
    for name in channels:
        lookup("channel of PAMAP2", COLUMNS, name)
        if "orientation" in name:
            raise ValueError(f"channel {name!r} is marked invalid by the authors of PAMAP2; leave it out")
    return tuple(channels)


def _check_activities(activity: np.ndarray, path: Path) -> None:
    wrong = np.flatnonzero(~np.isin(activity, list(ACTIVITIES)))
    if len(wrong):
        raise ValueError(f"{path}, line {wrong[0] + 1}: there is no activity {activity[wrong[0]]:g} in PAMAP2")


def _ticks(stamp: np.ndarray, path: Path) -> np.ndarray:
    """Return ``(n_rows,)`` time stamps in hundredths of a second."""
    if np.isnan(stamp).any():
        raise ValueError(f"{path}, line {np.flatnonzero(np.isnan(stamp))[0] + 1}: the time stamp is missing")
    return np.round(stamp * SFREQ).astype(np.int64)


def _carried_forward(row: np.ndarray, tick: np.ndarray, hold: int) -> np.ndarray:
    """Return ``row`` with each NaN replaced by the last value before it that is at most ``hold`` ticks old."""
    last = np.maximum.accumulate(np.where(np.isfinite(row), np.arange(len(row)), -1))
    age = tick - tick[last]
    return np.where((last >= 0) & (age >= 0) & (age <= hold), row[last], np.nan).astype(row.dtype)


def _bouts(activity: np.ndarray, tick: np.ndarray, ids: Sequence[int], max_gap_s: float) -> Iterator[tuple[int, int]]:
    """Yield first and past-the-end row of each stretch of one wanted activity, cut where time jumps or goes back."""
    step = np.diff(tick)
    cut = (np.diff(activity) != 0) | (step < 1) | (step > max(1, round(max_gap_s * SFREQ)))
    edges = np.concatenate([[0], np.flatnonzero(cut) + 1, [len(activity)]]).tolist()
    for first, end in pairwise(edges):
        if int(activity[first]) in ids:
            yield first, end


def _on_the_grid(signal: np.ndarray, tick: np.ndarray) -> np.ndarray:
    """Return ``signal`` with a column for each tick, NaN where a row is absent."""
    grid = np.full((len(signal), tick[-1] - tick[0] + 1), np.nan, dtype=signal.dtype)
    grid[:, tick - tick[0]] = signal
    return grid


def _interpolate(signal: np.ndarray, longest: int) -> None:
    """Fill, in place and linearly, runs of up to ``longest`` NaN between two values of the same row."""
    for row in signal:
        known = np.flatnonzero(np.isfinite(row))
        if len(known) in (0, len(row)):
            continue
        missing = np.flatnonzero(~np.isfinite(row))
        after = np.searchsorted(known, missing)
        between = (after > 0) & (after < len(known))
        missing, after = missing[between], after[between]
        short = missing[known[after] - known[after - 1] - 1 <= longest]
        row[short] = np.interp(short, known, row[known])
