"""Read WFDB headers and samples, and refuse a header that its sample files contradict."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import wfdb

BYTES: Mapping[str, float] = {
    "8": 1,
    "80": 1,
    "16": 2,
    "61": 2,
    "160": 2,
    "24": 3,
    "32": 4,
    "212": 1.5,
    "310": 4 / 3,
    "311": 4 / 3,
}
"""Bytes a sample of each WFDB storage format of fixed size."""


def with_suffix(record: Path, suffix: str) -> Path:
    """Return the path of a record (which has no suffix) with ``suffix`` appended to its name."""
    return record.with_name(record.name + suffix)


def segment_names(header: Any) -> list[str]:
    """Return the segments that a header lists (its layout and ``~`` among them); none for a single-segment record."""
    return list(getattr(header, "seg_name", None) or [])


def sample_files(record: Path, header: Any) -> list[Path]:
    """Return the sample files of a single-segment record."""
    return [record.parent / name for name in dict.fromkeys(header.file_name or [])]


def read_header(record: Path) -> Any:
    """Return the header of a record as wfdb's ``Record`` or ``MultiRecord`` without samples.

    Raises:
        ValueError: the header cannot be parsed (names of files outside its folder are among what wfdb
            refuses), lacks its length or rate, or lists segments whose lengths do not add up to its own.
    """
    path = with_suffix(record, ".hea")
    try:
        header = wfdb.rdheader(str(record))
    except (ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not a WFDB header ({type(error).__name__}: {error})") from error
    if header.sig_len is None or not header.fs:
        raise ValueError(f"{path}: the header does not state its sampling frequency and number of samples")
    segments = segment_names(header)
    if segments and sum(header.seg_len) != header.sig_len:
        raise ValueError(
            f"{path}: the header states {header.sig_len} samples, but its segments have {sum(header.seg_len)}"
        )
    return header


def check_length(record: Path, header: Any) -> None:
    """Refuse a single-segment record whose sample files are shorter or longer than its header says.

    Raises:
        ValueError: a file has another size, or a storage format of unknown size.
    """
    for file in sample_files(record, header):
        signals = [i for i, name in enumerate(header.file_name) if name == file.name]
        unknown = [header.fmt[i] for i in signals if header.fmt[i] not in BYTES]
        if unknown:
            raise ValueError(f"{file}: WFDB format {unknown[0]} is not read here; known: {', '.join(BYTES)}")
        a_sample = sum(BYTES[header.fmt[i]] * (header.samps_per_frame[i] or 1) for i in signals)
        start = header.byte_offset[signals[0]] or 0
        expected, size = start + ceil(header.sig_len * a_sample), file.stat().st_size
        packed = {header.fmt[i] for i in signals} & {"212", "310", "311"}
        if size < expected or size > expected + (3 if packed else 0):
            raise ValueError(
                f"{file}: the header {with_suffix(record, '.hea').name} states {header.sig_len} samples of "
                f"{len(signals)} signals, which are {expected} bytes, but the file has {size}"
            )


def read_channels(record: Path, header: Any, index: Sequence[int]) -> np.ndarray:
    """Return ``(len(index), n_samples)`` float32 in physical units, NaN where the format's missing value stands.

    Raises:
        ValueError: length or checksum contradict the header, or a signal has several samples a frame.
    """
    check_length(record, header)
    if any((header.samps_per_frame[i] or 1) != 1 for i in index):
        raise ValueError(f"{with_suffix(record, '.hea')}: a signal with several samples a frame is not read here")
    read = wfdb.rdrecord(str(record), channels=list(index), physical=False)
    for i, summed in zip(index, read.calc_checksum(), strict=True):
        stated = header.checksum[i]
        if stated is not None and (int(summed) - int(stated)) % 65536:
            raise ValueError(
                f"{with_suffix(record, '.dat')}: the samples of {header.sig_name[i]} do not add up to the checksum "
                f"{stated} of the header; the file is damaged"
            )
    return read.dac().T.astype(np.float32)
