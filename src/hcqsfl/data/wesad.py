"""WESAD: a chest strap and a wristband on fifteen people through baseline, stress, amusement and meditation."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hcqsfl.data.locate import found, inside
from hcqsfl.data.recording import IGNORED, Recording, is_synthetic
from hcqsfl.data.resampling import resample, resample_labels
from hcqsfl.data.restricted_pickle import read
from hcqsfl.registry import lookup, suggest

TITLE = "WESAD: wearable stress and affect detection"
HOMEPAGE = "https://archive.ics.uci.edu/dataset/465/wesad+wearable+stress+and+affect+detection"
LICENCE = "Scientific, non-commercial research only; publications must cite the data set's paper."
CITATION = (
    "P. Schmidt, A. Reiss, R. Duerichen, C. Marberger and K. Van Laerhoven (2018), Introducing WESAD, a multimodal "
    "dataset for wearable stress and affect detection, ICMI, 400-408. doi:10.1145/3242969.3242985."
)

WAY_OUT = f"Get WESAD.zip from {HOMEPAGE}, unpack it and name the folder that holds S2, S3, ..."

Device = Literal["chest", "wrist"]
Task = Literal["three_class", "binary", "four_class"]

LABEL_SFREQ = 700.0

CHEST: Mapping[str, tuple[float, tuple[str, ...], str]] = {
    "ACC": (700.0, ("ACC_x", "ACC_y", "ACC_z"), "g"),
    "ECG": (700.0, ("ECG",), "mV"),
    "EMG": (700.0, ("EMG",), "mV"),
    "EDA": (700.0, ("EDA",), "uS"),
    "Temp": (700.0, ("Temp",), "degC"),
    "Resp": (700.0, ("Resp",), "%"),
}

WRIST: Mapping[str, tuple[float, tuple[str, ...], str]] = {
    "ACC": (32.0, ("ACC_x", "ACC_y", "ACC_z"), "g"),
    "BVP": (64.0, ("BVP",), ""),
    "EDA": (4.0, ("EDA",), "uS"),
    "TEMP": (4.0, ("TEMP",), "degC"),
}

DEVICES = {"chest": CHEST, "wrist": WRIST}

WRIST_ACC_STEP = 1 / 64
"""The wristband counts acceleration in 1/64 g."""

TASKS: Mapping[str, tuple[tuple[str, ...], Mapping[int, int]]] = {
    "three_class": (("baseline", "stress", "amusement"), {1: 0, 2: 1, 3: 2}),
    "binary": (("no stress", "stress"), {1: 0, 3: 0, 2: 1}),
    "four_class": (("baseline", "stress", "amusement", "meditation"), {1: 0, 2: 1, 3: 2, 4: 3}),
}
"""Classes, and which of the study's labels go where; 0 and 5 to 7 are none of them."""

TOLERANCE_S = 2.0
"""By how much the durations of the signals of one subject may differ."""


def files(root: Path, *, subjects: Sequence[str] | None = None, **_options: object) -> list[Path]:
    """Return the ``SX/SX.pkl`` that ``load`` reads, at any depth, in order of X.

    Raises:
        ValueError: a subject asked for is not there, or one is there twice.
        FileNotFoundError: there is no such file.
    """
    paths = [p for p in root.rglob("S*.pkl") if re.fullmatch(r"S\d+", p.stem)] if root.is_dir() else []
    paths = found(paths, root, "SX/SX.pkl (S2/S2.pkl, S3/S3.pkl, ...)", WAY_OUT)
    by_subject: dict[str, Path] = {}
    for path in sorted(paths, key=lambda p: int(p.stem[1:])):
        if by_subject.setdefault(path.stem, path) != path:
            other = by_subject[path.stem]
            raise ValueError(f"{inside(root, other)} and {inside(root, path)} are of the same subject; keep one")
    for subject in subjects or ():
        if subject not in by_subject:
            there = ", ".join(by_subject)
            raise ValueError(f"there is no subject {subject!r} in {root}{suggest(subject, by_subject)} There: {there}")
    return [path for subject, path in by_subject.items() if subjects is None or subject in subjects]


def load(
    root: Path,
    *,
    device: Device = "chest",
    task: Task = "three_class",
    channels: Sequence[str] | None = None,
    sfreq: float = 64.0,
    subjects: Sequence[str] | None = None,
) -> list[Recording]:
    """Read the official pickles, one recording a subject, all signals of the device on one grid of ``sfreq`` Hz.

    The pickles are read without running them (see ``restricted_pickle``). Each signal passes an anti-alias filter on
    its way to ``sfreq``, up or down. A sample is labelled when all of the study's 700 Hz labels that it stands for
    agree, so those at a transition belong to no class.

    Args:
        root: folder that holds ``S2/S2.pkl`` and so on, at any depth.
        device: ``"chest"`` (ACC_x, ACC_y, ACC_z, ECG, EMG, EDA, Temp, Resp at 700 Hz) or ``"wrist"`` (ACC_x, ACC_y,
            ACC_z at 32 Hz, given in 1/64 g and returned in g; BVP at 64 Hz; EDA and TEMP at 4 Hz).
        task: ``three_class`` baseline, stress, amusement; ``binary`` stress against baseline and amusement;
            ``four_class`` with meditation.
        channels: which of them, in that order; without it all.
        sfreq: rate wanted in Hz.
        subjects: only these, such as ``S2``.

    Returns:
        Recordings with float32 signals, in order of subject number.

    Raises:
        ValueError: a pickle is damaged or holds anything but data, lacks a signal, is of another subject than its
            name says, has signals of different durations, or has a channel without any number.
        FileNotFoundError: there is no such file.
    """
    modalities = lookup("WESAD device", DEVICES, device)
    classes, code = lookup("WESAD task", TASKS, task)
    names = _channels(device, channels)
    out = []
    for path in files(root, subjects=subjects):
        content = _content(path, device)
        labels = _labels(content["label"], path)
        seconds = len(labels) / LABEL_SFREQ
        rows: dict[str, np.ndarray] = {}
        units: dict[str, str] = {}
        for modality, (rate, parts, unit) in modalities.items():
            if not set(parts) & set(names):
                continue
            samples = _samples(content["signal"][device], modality, len(parts), path, device)
            duration = samples.shape[1] / rate
            if abs(duration - seconds) > TOLERANCE_S:
                raise ValueError(
                    f"{path}: {device} {modality} lasts {duration:.2f} s at {rate:g} Hz, but the labels {seconds:.2f} s"
                )
            wanted = [i for i, part in enumerate(parts) if part in names]
            step = WRIST_ACC_STEP if (device, modality) == ("wrist", "ACC") else 1.0
            for i, row in zip(wanted, resample(samples[wanted] * step, rate, sfreq), strict=True):
                if not np.isfinite(row).any():
                    raise ValueError(f"{path}: {device} {parts[i]} holds no number at all; leave it out or the subject")
                rows[parts[i]], units[parts[i]] = row, unit
        n_samples = min(int(seconds * sfreq), *(len(row) for row in rows.values()))
        coded = np.select([labels == old for old in code], list(code.values()), IGNORED)
        out.append(
            Recording(
                signal=np.stack([rows[name][:n_samples] for name in names]).astype(np.float32),
                labels=resample_labels(coded.astype(np.int8), LABEL_SFREQ, sfreq, n_samples),
                sfreq=float(sfreq),
                channels=names,
                units=tuple(units[name] for name in names),
                subject=path.stem,
                classes=classes,
                source=inside(root, path),
                synthetic=is_synthetic(root),
            )
        )
    return out


def _channels(device: str, channels: Sequence[str] | None) -> tuple[str, ...]:
    known = [part for _, parts, _ in DEVICES[device].values() for part in parts]
    if channels is None:
        return tuple(known)
    if not channels:
        raise ValueError("no channel was named; leave channels out to take all of the device")
    return tuple(
        lookup(f"channel of WESAD's {device} device", dict(zip(known, known, strict=True)), c) for c in channels
    )


def _content(path: Path, device: str) -> Mapping[str, Any]:
    """Return what the pickle holds, after checking that it is what it should be."""
    content = read(path)
    for keys, part in (
        (("subject", "signal", "label"), content),
        ((device,), content.get("signal") if isinstance(content, dict) else None),
    ):
        there = sorted(part) if isinstance(part, dict) else []
        for key in keys:
            if key not in there:
                raise ValueError(f"{path}: no entry {key!r} where WESAD has one; there is {', '.join(there) or 'none'}")
    if content["subject"] != path.stem:
        subject = content["subject"] if isinstance(content["subject"], str) else "something else"
        raise ValueError(f"{path}: the file is called {path.stem}, but says that it is of subject {subject[:20]}")
    return content


def _samples(signals: Any, modality: str, n_parts: int, path: Path, device: str) -> np.ndarray:
    """Return ``(n_parts, n_samples)`` float64."""
    if not isinstance(signals, dict) or modality not in signals:
        there = ", ".join(sorted(signals)) if isinstance(signals, dict) else "none"
        raise ValueError(f"{path}: the {device} has no signal {modality!r}; there is {there}")
    samples = signals[modality]
    if isinstance(samples, np.ndarray) and samples.ndim == 1:
        samples = samples[:, None]
    if not isinstance(samples, np.ndarray) or samples.ndim != 2 or samples.shape[1] != n_parts or not len(samples):
        shape = samples.shape if isinstance(samples, np.ndarray) else "none"
        raise ValueError(f"{path}: {device} {modality} must be of shape (n_samples, {n_parts}), not {shape}")
    return np.ascontiguousarray(samples.T, dtype=np.float64)


def _labels(labels: Any, path: Path) -> np.ndarray:
    if (
        not isinstance(labels, np.ndarray)
        or labels.dtype.kind not in "iu"
        or labels.size != max(labels.shape, default=0)
    ):
        raise ValueError(f"{path}: the labels are not one row of whole numbers")
    labels = labels.reshape(-1)
    wrong = np.flatnonzero((labels < 0) | (labels > 7))
    if len(wrong) or not len(labels):
        raise ValueError(f"{path}: labels must be 0 to 7; there is {labels[wrong[0]] if len(wrong) else 'none'}")
    return labels
