"""Read recordings and say what is in them."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hcqsfl.data import dataset
from hcqsfl.data.recording import Recording


def inspect(name: str, root: Path, options: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Return what a data set's recordings hold, one row a subject.

    Lengths are in seconds, or in rows where the data have no clock.

    Raises:
        ValueError, FileNotFoundError: there is no such data set, or its recordings are absent or damaged.
    """
    module = dataset(name)
    say(f"reading {module.TITLE}")
    recordings: list[Recording] = module.load(root, **options)
    by_subject: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        by_subject[recording.subject].append(recording)
    first = recordings[0]
    # tables count in rows and are given a rate of 1
    clock = first.position is None or first.sfreq != 1.0
    return {
        "title": module.TITLE,
        "synthetic": any(r.synthetic for r in recordings),
        "clock": clock,
        "channels": list(first.channels),
        "units": list(first.units),
        "classes": list(first.classes),
        "subjects": [_row(subject, group) for subject, group in sorted(by_subject.items())],
    }


def _row(subject: str, group: list[Recording]) -> dict[str, Any]:
    sfreq, classes = group[0].sfreq, group[0].classes
    n_samples = sum(r.n_samples for r in group)
    counts = sum((np.bincount(r.labels[r.labels >= 0], minlength=len(classes)) for r in group), np.zeros(len(classes)))
    missing = sum(int((~np.isfinite(r.signal)).sum()) for r in group)
    return {
        "subject": subject,
        "recordings": len(group),
        "sfreq": sfreq,
        "length": round(n_samples / sfreq, 1),
        "missing": missing / max(n_samples * len(group[0].channels), 1),
        "by_class": {label: round(n / sfreq, 1) for label, n in zip(classes, counts.tolist(), strict=True) if n},
    }
