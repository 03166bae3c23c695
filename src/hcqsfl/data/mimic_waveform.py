"""MIMIC-III Waveform Database: bedside waveforms in WFDB, labelled by the monitor's numerics of the same minute.

A record is single-segment, or a list of segments that begins with a layout header; gain and baseline change between
segments, ``~`` stands for a gap, and a segment whose files are absent is treated like one. The numerics of a record are
a record of their own, called the same with ``n`` at the end.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hcqsfl.data.locate import found, inside
from hcqsfl.data.recording import IGNORED, Recording, is_synthetic
from hcqsfl.data.resampling import rate_ratio, resample
from hcqsfl.data.wfdb_files import (
    check_length,
    read_channels,
    read_header,
    sample_files,
    segment_names,
    with_suffix,
)
from hcqsfl.registry import lookup

TITLE = "MIMIC-III Waveform Database (and its matched subset)"
HOMEPAGE = "https://physionet.org/content/mimic3wdb-matched/1.0/"
LICENCE = "Open Database License 1.0 (ODbL): name the source, share derived databases alike, keep them open."
CITATION = (
    "B. Moody, G. Moody, M. Villarroel, G. D. Clifford and I. Silva (2020), MIMIC-III Waveform Database Matched Subset "
    "(version 1.0), PhysioNet, doi:10.13026/c2294b. A. Johnson et al. (2016), MIMIC-III, a freely accessible critical "
    "care database, Scientific Data 3, 160035."
)

WAY_OUT = (
    f"Get records with their numerics (the .hea ending in n) from {HOMEPAGE}, for example with "
    "wfdb.dl_database('mimic3wdb-matched/1.0', ...), and name the folder that holds them."
)

Task = Literal["tachycardia", "pulmonary_hypertension", "hypotension", "desaturation"]

PLAUSIBLE: Mapping[str, tuple[float, float]] = {
    "PAP": (-10, 150),
    "ABP": (-10, 300),
    "ART": (-10, 300),
    "CVP": (-20, 60),
}
"""mmHg a pressure channel can show; beyond lie flushes, zeroing and open taps."""

FLAT_SECONDS = 1.0
"""A waveform that does not change for this long is saturated or disconnected."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Criterion:
    """What a task asks of the numerics.

    Attributes:
        numerics: names of the value, without blanks and case; the first that a record has is used.
        threshold: the published limit.
        above: whether the condition is at or above the limit (for heart rate: above) rather than below.
        inclusive: whether the limit itself belongs to the condition.
        condition: name of the positive class.
        plausible: range outside of which a value is taken as missing.
        unit: of the value.
    """

    numerics: tuple[str, ...]
    threshold: float
    above: bool
    inclusive: bool
    condition: str
    plausible: tuple[float, float]
    unit: str

    def holds(self, value: np.ndarray, threshold: float) -> np.ndarray:
        """Return where the condition holds."""
        if self.above:
            return value >= threshold if self.inclusive else value > threshold
        return value <= threshold if self.inclusive else value < threshold


TASKS: Mapping[str, Criterion] = {
    "tachycardia": Criterion(("HR", "PULSE"), 100, True, False, "tachycardia", (20, 300), "bpm"),
    "pulmonary_hypertension": Criterion(("PAPMEAN",), 25, True, True, "pulmonary hypertension", (1, 120), "mmHg"),
    "hypotension": Criterion(("ABPMEAN", "ARTMEAN"), 65, False, False, "hypotension", (10, 250), "mmHg"),
    "desaturation": Criterion(("SPO2",), 90, False, False, "desaturation", (30, 100), "%"),
}


@dataclass(frozen=True)
class _Segment:
    """A stretch of a record that is stored in files of its own."""

    path: Path  # without suffix
    first: int  # sample of the record
    header: Any  # wfdb.Record without samples
    index: tuple[int, ...]  # which of its signals are the channels


@dataclass(frozen=True)
class _Record:
    path: Path  # without suffix
    subject: str
    sfreq: float
    segments: tuple[_Segment, ...]
    headers: tuple[Path, ...]  # the record's own and its layout's
    offset: float  # s from the start of the numerics to that of the waveform
    numerics: Any  # wfdb.Record without samples


def files(
    root: Path,
    *,
    channels: Sequence[str] = ("PAP",),
    task: Task = "tachycardia",
    subjects: Sequence[str] | None = None,
    **_options: object,
) -> list[Path]:
    """Return the headers and sample files that ``load`` reads for these channels, in order of path.

    Raises:
        ValueError: a header contradicts itself or its sample file, or no record has the channels or numerics.
        FileNotFoundError: there is no record.
    """
    paths: set[Path] = set()
    for record in _records(root, channels, task, subjects, log_level=logging.DEBUG):
        paths.update(record.headers)
        parts = [(s.path, s.header) for s in record.segments]
        for path, header in [*parts, (with_suffix(record.path, "n"), record.numerics)]:
            paths.update([with_suffix(path, ".hea"), *sample_files(path, header)])
    return sorted(paths)


def load(
    root: Path,
    *,
    channels: Sequence[str] = ("PAP",),
    task: Task = "tachycardia",
    threshold: float | None = None,
    subjects: Sequence[str] | None = None,
    sfreq: float | None = None,
    mask_implausible: bool = True,
) -> list[Recording]:
    """Read every record under ``root`` that has all ``channels`` and the numerics of ``task``.

    Records lie as PhysioNet lays them out (``p00/p000020/...``) or all in one folder. A recording is a stretch without
    a gap; ``position`` counts samples from the start of the record. Segments that lack a channel, are absent or are
    not calibrated in it (gain 1 and baseline 0 where the layout header says otherwise) end a stretch. What is left
    out is logged.

    Every sample carries the label of its minute: value ``i`` of numerics at 1/60 Hz describes minute ``i`` of the
    numerics' own clock; faster numerics are averaged over each minute. 0, NaN and values outside the criterion's
    plausible range are missing, and a minute without a value belongs to no class. Clocks are compared by base date and
    time; where either header has none, both records start together.

    Args:
        root: folder that holds the records, at any depth.
        channels: waveforms, as the headers call them: PAP, ABP, PLETH, II, ...
        task: ``tachycardia`` heart rate > 100 bpm, ``pulmonary_hypertension`` mean PAP >= 25 mmHg, ``hypotension`` mean
            ABP < 65 mmHg, ``desaturation`` SpO2 < 90 %.
        threshold: another limit, in the unit of the value.
        subjects: only these, such as ``p000772``.
        sfreq: rate wanted in Hz, through an anti-alias filter; without it each record keeps its own.
        mask_implausible: make NaN of pressures outside ``PLAUSIBLE`` and of any stretch of ``FLAT_SECONDS`` in which a
            waveform does not change at all: flushes, zeroing, saturation, disconnection.

    Returns:
        Recordings with float32 signals in the headers' units, in order of path and time.

    Raises:
        ValueError: a header contradicts itself or its sample file (length, checksum), or no record has the channels or
            the numerics.
        FileNotFoundError: there is no record.
    """
    criterion = lookup("MIMIC-III task", TASKS, task)
    limit = criterion.threshold if threshold is None else threshold
    out: list[Recording] = []
    for record in _records(root, channels, task, subjects):
        minutes = _minutes(record, criterion, limit)
        new = record.sfreq if sfreq is None else sfreq
        for first, signal, units in _stretches(record, channels):
            if mask_implausible:
                _mask(signal, channels, record.sfreq)
            signal = resample(signal, record.sfreq, new)
            position = np.arange(signal.shape[1], dtype=np.int32)
            minute = np.floor((record.offset + first / record.sfreq + position / new) / 60 + 1e-9).astype(np.int64)
            known = (minute >= 0) & (minute < len(minutes))
            if not np.isfinite(signal).any(axis=1).all():
                _log.info("%s: nothing measured from sample %d on, left out", record.path.name, first)
                continue
            out.append(
                Recording(
                    signal=signal,
                    labels=np.where(known, minutes[np.where(known, minute, 0)], IGNORED).astype(np.int8),
                    sfreq=float(new),
                    channels=tuple(channels),
                    units=units,
                    subject=record.subject,
                    classes=(f"no {criterion.condition}", criterion.condition),
                    source=inside(root, with_suffix(record.path, ".hea")),
                    position=position + np.int32(ceil(first * rate_ratio(record.sfreq, new))),
                    synthetic=is_synthetic(root),
                )
            )
    if not out:
        raise ValueError(f"the records under {root} hold no measured sample of {', '.join(channels)}")
    return out


def _records(
    root: Path,
    channels: Sequence[str],
    task: str,
    subjects: Sequence[str] | None,
    log_level: int = logging.WARNING,
) -> list[_Record]:
    """Return the records that have the channels and the numerics, or say what there is instead."""
    criterion = lookup("MIMIC-III task", TASKS, task)
    if not channels:
        raise ValueError("no channel was named; name at least one, such as PAP")
    paths = found(list(root.rglob("*.hea")) if root.is_dir() else [], root, "WFDB headers (.hea)", WAY_OUT)
    headers = {p.with_suffix(""): read_header(p.with_suffix("")) for p in paths}
    owned = {p.parent / name for p, header in headers.items() for name in segment_names(header)}
    tops = [p for p in headers if p not in owned and not p.name.endswith("_layout") and not _is_numerics(p, headers)]
    if subjects is not None:
        there = sorted({_subject(p) for p in tops})
        for subject in subjects:
            if subject not in there:
                raise ValueError(f"there is no subject {subject!r} under {root}; there are {', '.join(there[:12])}")
        tops = [p for p in tops if _subject(p) in set(subjects)]
    records: list[_Record] = []
    present: set[str] = set()
    bare: list[str] = []
    for path in tops:
        segments = _segments(path, headers, channels, present, log_level)
        if not segments:
            continue
        numerics = headers.get(with_suffix(path, "n"))
        if numerics is None or _column(numerics, criterion) is None:
            bare.append(path.name)
            _log.log(log_level, "%s has no numerics %s: left out", path.name, " or ".join(criterion.numerics))
            continue
        own = [path, *(path.parent / n for n in segment_names(headers[path]) if n.endswith("_layout"))]
        records.append(
            _Record(
                path=path,
                subject=_subject(path),
                sfreq=float(headers[path].fs),
                segments=tuple(segments),
                headers=tuple(with_suffix(p, ".hea") for p in own if p in headers),
                offset=_offset(headers[path], numerics),
                numerics=numerics,
            )
        )
    if records:
        return records
    if bare:
        raise ValueError(
            f"the task {task!r} needs numerics {' or '.join(criterion.numerics)}, which none of the records with "
            f"{', '.join(channels)} under {root} has: {', '.join(bare[:6])}. {WAY_OUT}"
        )
    raise ValueError(
        f"no record under {root} has calibrated samples of {', '.join(channels)}. "
        f"Channels whose samples are there: {', '.join(sorted(present)) or 'none'}"
    )


def _is_numerics(path: Path, headers: Mapping[Path, Any]) -> bool:
    return path.name.endswith("n") and (path.with_name(path.name[:-1]) in headers or headers[path].fs <= 1)


def _subject(path: Path) -> str:
    """Return ``p000020`` of the matched subset, or the number of the record (``3000003``) elsewhere."""
    for name in (path.name, path.parent.name):
        match = re.match(r"p\d{6}", name)
        if match:
            return match[0]
    return path.name.split("_")[0]


def _segments(
    path: Path, headers: Mapping[Path, Any], channels: Sequence[str], present: set[str], log_level: int
) -> list[_Segment]:
    """Return the segments with calibrated samples of all channels; note in ``present`` which channels have any."""
    top = headers[path]
    names, lengths = segment_names(top) or [path.name], getattr(top, "seg_len", None) or [top.sig_len]
    layout = next((headers.get(path.parent / n) for n in names if n.endswith("_layout")), None)
    usable: list[_Segment] = []
    absent: list[int] = []
    uncalibrated: list[int] = []
    first = 0
    for name, length in zip(names, lengths, strict=True):
        at, first = first, first + length
        if name == "~" or name.endswith("_layout"):
            continue
        part = path.parent / name
        header = headers.get(part)
        if header is None or not all(file.exists() for file in sample_files(part, header)):
            absent.append(length)
            continue
        if header.sig_len != length or header.fs != top.fs:
            raise ValueError(
                f"{with_suffix(part, '.hea')} states {header.sig_len} samples at {header.fs:g} Hz, but "
                f"{path.name}.hea says that it has {length} at {top.fs:g} Hz"
            )
        check_length(part, header)
        present.update(header.sig_name)
        if not set(channels) <= set(header.sig_name):
            continue
        index = tuple(header.sig_name.index(channel) for channel in channels)
        if all(_is_calibrated(header, i, layout) for i in index):
            usable.append(_Segment(part, at, header, index))
        else:
            uncalibrated.append(length)
    for what, lost in (("absent", absent), ("not calibrated", uncalibrated)):
        if lost:
            _log.log(log_level, "%s: %d segments (%g s) are %s", path.name, len(lost), sum(lost) / top.fs, what)
    return usable


def _is_calibrated(header: Any, i: int, layout: Any) -> bool:
    """Return whether signal ``i`` is in physical units: the monitor writes gain 1 and baseline 0 before it knows."""
    if header.adc_gain[i] != 1 or header.baseline[i] != 0:
        return True
    if layout is None or header.sig_name[i] not in layout.sig_name:
        return True
    return bool(layout.adc_gain[layout.sig_name.index(header.sig_name[i])] == 1)


def _offset(waveform: Any, numerics: Any) -> float:
    """Return by how many seconds the waveform starts after its numerics; 0 where a header does not say."""
    if not waveform.base_time or not numerics.base_time:
        return 0.0
    both_dated = waveform.base_date and numerics.base_date
    days = (waveform.base_date - numerics.base_date).days if both_dated else 0
    return days * 86400 + _seconds(waveform.base_time) - _seconds(numerics.base_time)


def _seconds(clock: time) -> float:
    return clock.hour * 3600 + clock.minute * 60 + clock.second + clock.microsecond / 1e6


def _column(numerics: Any, criterion: Criterion) -> int | None:
    """Return which signal holds the criterion's value, whatever the spelling: ``PAPMean``, ``PAP MEAN``."""
    names = [re.sub(r"[^A-Z0-9]", "", name.upper()) for name in getattr(numerics, "sig_name", None) or []]
    return next((names.index(name) for name in criterion.numerics if name in names), None)


def _minutes(record: _Record, criterion: Criterion, threshold: float) -> np.ndarray:
    """Return ``(n_minutes,)`` labels: 1 where the condition holds, 0 where not, ``IGNORED`` where nobody knows."""
    numerics = record.numerics
    path = with_suffix(record.path, "n")
    column = _column(numerics, criterion)
    if column is None or not numerics.fs >= 0.99 / 60:
        raise ValueError(f"{path}.hea: numerics at {numerics.fs:g} Hz are fewer than one a minute")
    value = read_channels(path, numerics, [column])[0].astype(np.float64)
    low, high = criterion.plausible
    value[~((value >= low) & (value <= high))] = np.nan
    a_minute = numerics.fs * 60
    minute = (
        np.arange(len(value)) if abs(a_minute - 1) < 0.01 else (np.arange(len(value)) / a_minute + 1e-9).astype(int)
    )
    known = np.isfinite(value)
    count = np.bincount(minute, known)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(minute, np.where(known, value, 0)) / count
    return np.where(count > 0, criterion.holds(mean, threshold), IGNORED).astype(np.int8)


def _stretches(record: _Record, channels: Sequence[str]) -> Iterator[tuple[int, np.ndarray, tuple[str, ...]]]:
    """Yield ``first sample, (n_chans, n_samples), units`` of each stretch without a gap."""
    first, end = 0, -1
    parts: list[np.ndarray] = []
    units: tuple[str, ...] = ()
    for segment in record.segments:
        own = tuple(segment.header.units[i] for i in segment.index)
        if parts and (segment.first != end or own != units):
            yield first, np.concatenate(parts, axis=1), units
            parts = []
        if not parts:
            first, units = segment.first, own
        parts.append(read_channels(segment.path, segment.header, segment.index))
        end = segment.first + segment.header.sig_len
    if parts:
        yield first, np.concatenate(parts, axis=1), units


def _mask(signal: np.ndarray, channels: Sequence[str], sfreq: float) -> None:
    """Make NaN, in place, of what a waveform cannot be."""
    for row, channel in zip(signal, channels, strict=True):
        low, high = PLAUSIBLE.get(channel, (-np.inf, np.inf))
        row[(row < low) | (row > high)] = np.nan
        edges = np.concatenate([[0], np.flatnonzero(np.diff(row) != 0) + 1, [len(row)]])
        length = np.diff(edges)
        row[np.repeat(length >= FLAT_SECONDS * sfreq, length)] = np.nan
