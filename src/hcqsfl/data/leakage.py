"""Look for what would make a score dishonest, before anything is trained.

Source: Kapoor & Narayanan (2023), Leakage and the reproducibility crisis in machine-learning-based science, table 1.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import roc_auc_score

from hcqsfl.data.folds import Fold
from hcqsfl.data.windows import Windows
from hcqsfl.randomness import numpy_generator
from hcqsfl.registry import suggest

AUC_LIMIT = 0.99
"""A single column that tells a class from the rest better than this is the label in disguise until shown otherwise."""

_MAX_VALUES = 50_000
_IDENTITY = frozenset(
    {
        "ip",
        "addr",
        "address",
        "mac",
        "port",
        "uid",
        "uuid",
        "guid",
        "id",
        "ids",
        "user",
        "username",
        "host",
        "hostname",
        "subject",
        "patient",
        "person",
        "participant",
        "device",
        "session",
        "record",
        "file",
        "filename",
        "path",
        "url",
        "uri",
    }
)
_TIME = frozenset(
    {
        "ts",
        "time",
        "times",
        "timestamp",
        "date",
        "datetime",
        "epoch",
        "index",
        "row",
        "rownum",
        "day",
        "hour",
        "minute",
        "year",
        "month",
    }
)
_LABEL = frozenset({"label", "labels", "target", "class", "activityid", "attack"})
_EXACTLY = {"name": "identity_column", "user_name": "identity_column", "patient_name": "identity_column"} | {
    "type": "label_column",
    "attack_type": "label_column",
    "activity": "label_column",
}

KINDS = {
    "subject_overlap": "a subject is in two of training, validation and test",
    "window_overlap": "windows that share samples are on both sides of a split",
    "duplicate_vectors": "the same values stand on both sides of a split",
    "identity_column": "a column names who or where, not what",
    "time_column": "a column tells when, not what",
    "label_column": "a column is called like the label",
    "single_column": f"one column alone tells a class from the rest with an AUC above {AUC_LIMIT}",
}


class LeakError(ValueError):
    """Training was refused because the scan found leaks."""


@dataclass(frozen=True)
class Leak:
    """One finding of the scan.

    Attributes:
        kind: one of ``KINDS``.
        what: the finding in words, with its figures.
        column: the column it is about, if any.
        allowed_by: the flag that lets training go on in spite of it, if it was given.
    """

    kind: str
    what: str
    column: str = ""
    allowed_by: str = ""

    @property
    def flag(self) -> str:
        """What to name in ``split.allow_leaks`` to train all the same."""
        return f"{self.kind}:{self.column}" if self.column else self.kind


def scan(windows: Windows, fold: Fold, seed: int = 0) -> list[Leak]:
    """Return every leak found in one fold, on raw windows, before any scaling."""
    leaks = [*_columns_by_name(windows), *_single_columns(windows.take(fold.train), seed)]
    sides = {"training": fold.train, "validation": fold.validation, "test": fold.test}
    pairs = [("training", "test"), ("training", "validation"), ("validation", "test")]
    for one, other in pairs:
        a, b = windows.take(sides[one]), windows.take(sides[other])
        between = f"between {one} and {other} of fold {fold.name}"
        common = np.intersect1d(a.subject, b.subject)
        if fold.by == "subject" and len(common):
            leaks.append(Leak("subject_overlap", f"{len(common)} subjects in common {between}: {_some(common)}"))
        if fold.by != "subject" and (n := _n_overlapping(a, b)):
            leaks.append(Leak("window_overlap", f"{n} windows share samples {between}"))
        if n := _n_duplicates(a, b):
            share = n / max(len(b), 1)
            leaks.append(
                Leak("duplicate_vectors", f"{n} windows ({share:.1%}) of {other} are equal to one of {one} {between}")
            )
    return leaks


def refuse(leaks: Sequence[Leak], allow: Collection[str] = ()) -> list[Leak]:
    """Return the leaks, those allowed marked so; refuse the rest.

    Args:
        leaks: what the scan found.
        allow: flags, each a kind (``single_column``) or a kind and a column (``single_column:Temp``).

    Raises:
        LeakError: there is a leak that no flag allows; it names each and the flag.
        ValueError: a flag names no kind of leak.
    """
    for flag in allow:
        kind = flag.partition(":")[0]
        if kind not in KINDS:
            raise ValueError(f"no leak is called {kind!r}{suggest(kind, KINDS)} Known: {', '.join(KINDS)}")
    marked = [
        replace(leak, allowed_by=next((flag for flag in (leak.flag, leak.kind) if flag in allow), "")) for leak in leaks
    ]
    refused = [leak for leak in marked if not leak.allowed_by]
    if refused:
        lines = [f"  - {leak.kind}: {leak.what}" for leak in refused]
        flags = ", ".join(repr(flag) for flag in dict.fromkeys(leak.flag for leak in refused))
        raise LeakError(
            "training is refused: the scan for leaks found\n"
            + "\n".join(dict.fromkeys(lines))
            + f"\nMend the data or the split; or, if you can say why it is no leak, set split.allow_leaks = [{flags}], "
            "which the report will show."
        )
    return marked


def _columns_by_name(windows: Windows) -> list[Leak]:
    leaks = []
    for column in windows.channels:
        kind = kind_of_name(column)
        if kind:
            leaks.append(Leak(kind, f"column {column!r} is an input: {KINDS[kind]}", column))
    return leaks


def kind_of_name(column: str) -> str:
    """Return the kind of leak that a column's name gives away, or an empty string.

    The last word counts: ``src_ip`` is an address, ``src_ip_bytes`` a number of bytes.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column).lower()
    words = [word for word in re.split(r"[\W_]+", spaced) if word]
    if not words:
        return ""
    joined, last = "_".join(words), words[-1]
    if joined in _EXACTLY:
        return _EXACTLY[joined]
    if last in _LABEL or "".join(words) in _LABEL:
        return "label_column"
    if last in _IDENTITY or words[0] == "id":
        return "identity_column"
    return "time_column" if last in _TIME or words[0] == "unnamed" else ""


def _single_columns(training: Windows, seed: int) -> list[Leak]:
    """Score each column's single samples, one class against the rest, on a draw of the training windows."""
    if not len(training):
        return []
    n_windows = max(1, min(len(training), _MAX_VALUES // training.n_times))
    rows = np.sort(numpy_generator(seed, "leak scan").permutation(len(training))[:n_windows])
    y = np.repeat(training.y[rows], training.n_times)
    labels, counts = np.unique(y, return_counts=True)
    if len(labels) < 2:
        return []
    leaks = []
    for c, (column, unit) in enumerate(zip(training.channels, training.units, strict=True)):
        values = training.x[rows, c].reshape(-1)
        aucs = {}
        for label in labels[counts >= 10]:
            score = _rate_by_value(values, y == label) if unit == "category" else values
            auc = roc_auc_score(y == label, score)
            aucs[training.classes[label]] = max(auc, 1 - auc)
        best = max(aucs, key=lambda name: aucs[name], default="")
        if best and aucs[best] > AUC_LIMIT:
            what = f"column {column!r} alone tells {best} from the rest with an AUC of {aucs[best]:.4f}"
            leaks.append(Leak("single_column", what, column))
    return leaks


def _rate_by_value(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    _, inverse = np.unique(values, return_inverse=True)
    rate: np.ndarray = np.bincount(inverse, weights=positive) / np.bincount(inverse)
    return rate[inverse]


def _n_overlapping(a: Windows, b: Windows) -> int:
    """Count windows of ``b`` that share a sample with one of ``a`` of the same recording."""
    if not len(a) or not len(b):
        return 0
    n = 0
    for recording in np.intersect1d(a.recording, b.recording):
        starts = np.sort(a.start[a.recording == recording])
        asked = b.start[b.recording == recording]
        after = np.searchsorted(starts, asked)
        right = starts[np.minimum(after, len(starts) - 1)]
        left = starts[np.maximum(after - 1, 0)]
        n += int((np.minimum(np.abs(right - asked), np.abs(left - asked)) < a.n_times).sum())
    return n


def _n_duplicates(a: Windows, b: Windows) -> int:
    if not len(a) or not len(b):
        return 0
    return int(np.isin(_row_keys(b.x), _row_keys(a.x)).sum())


def _row_keys(x: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(x.reshape(len(x), -1)) + 0.0  # -0.0 becomes 0.0, which is equal to it
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)


def _some(names: np.ndarray, n: int = 5) -> str:
    return ", ".join(map(str, names[:n])) + (", …" if len(names) > n else "")
