"""What a model said about the windows it was tested on."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from hcqsfl.evaluation.files import write_whole

UNITS = ("subject", "host", "row")
_FIELDS = ("y", "scores", "subject", "classes", "unit")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores of a model on test windows, beside the truth.

    Attributes:
        y: ``(n,)`` int64, true class, index into ``classes``.
        scores: ``(n, n_classes)`` float64, logits or log-probabilities; the highest is the class predicted.
        subject: ``(n,)`` strings, whom (or which host) a row comes from.
        classes: class names; in a binary problem the second is the positive one.
        unit: what is independent of what, and so is resampled: ``"subject"``, ``"host"`` or ``"row"``.

    Raises:
        ValueError: there is no row, lengths or shapes disagree, a score is not finite, or a class is out of range.
    """

    y: np.ndarray
    scores: np.ndarray
    subject: np.ndarray
    classes: tuple[str, ...]
    unit: str = "subject"

    def __post_init__(self) -> None:
        y, scores, subject = np.asarray(self.y), np.asarray(self.scores), np.asarray(self.subject)
        classes = tuple(str(name) for name in self.classes)
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(f"predictions need at least two classes of different names; these were given: {classes}")
        if self.unit not in UNITS:
            raise ValueError(f"predictions are resampled by one of {', '.join(UNITS)}, not by {self.unit!r}")
        if y.ndim != 1 or len(y) == 0:
            raise ValueError(f"y must be one class for each of at least one row; it has shape {y.shape}")
        if scores.shape != (len(y), len(classes)):
            raise ValueError(
                f"scores have shape {scores.shape}; {len(y)} rows of {len(classes)} classes need "
                f"{(len(y), len(classes))}"
            )
        if subject.shape != y.shape:
            raise ValueError(f"subject has shape {subject.shape}, but there are {len(y)} rows")
        if not np.issubdtype(y.dtype, np.integer):
            raise ValueError(f"y must be integers (indices into the classes); it is {y.dtype}")
        if y.min() < 0 or y.max() >= len(classes):
            raise ValueError(
                f"y runs from {y.min()} to {y.max()}, but there are {len(classes)} classes: 0 to {len(classes) - 1}"
            )
        scores = scores.astype(np.float64)
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
            raise ValueError(f"the scores of row {row} (subject {subject[row]}) are not finite: {scores[row].tolist()}")
        object.__setattr__(self, "y", y.astype(np.int64))
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "subject", subject.astype(str))
        object.__setattr__(self, "classes", classes)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def predicted(self) -> np.ndarray:
        """``(n,)`` class of the highest score; the first of equals."""
        return self.scores.argmax(axis=1)

    @property
    def probabilities(self) -> np.ndarray:
        """``(n, n_classes)`` softmax of the scores."""
        return softmax(self.scores, axis=1)

    @property
    def n_units(self) -> int:
        """How many subjects, hosts or rows there are to resample."""
        return len(self) if self.unit == "row" else len(np.unique(self.subject))

    def save(self, path: Path) -> None:
        """Write an ``.npz`` without pickles, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            y=self.y,
            scores=self.scores,
            subject=self.subject,
            classes=np.array(self.classes),
            unit=np.array(self.unit),
        )
        write_whole(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what ``save`` wrote.

        Raises:
            ValueError: the file is cut off, is no ``.npz``, holds objects, or lacks a field.
            OSError: it cannot be read.
        """
        try:
            # from the bytes, so that no handle stays open when the archive is broken
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as archive:
                missing = [name for name in _FIELDS if name not in archive.files]
                if missing:
                    raise ValueError(f"it lacks {', '.join(missing)}")
                fields = {name: archive[name] for name in _FIELDS}
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} does not hold predictions: {error}") from error
        return cls(
            y=fields["y"],
            scores=fields["scores"],
            subject=fields["subject"],
            classes=tuple(fields["classes"].tolist()),
            unit=str(fields["unit"]),
        )


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Put predictions on different rows, such as those of the folds, below one another.

    Raises:
        ValueError: there is none, or they differ in classes or unit.
    """
    if not parts:
        raise ValueError("there are no predictions to put together")
    first = parts[0]
    for part in parts[1:]:
        if (part.classes, part.unit) != (first.classes, first.unit):
            raise ValueError(
                f"predictions of different problems cannot be pooled: classes {first.classes} by {first.unit} "
                f"and {part.classes} by {part.unit}"
            )
    return Predictions(
        y=np.concatenate([part.y for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        subject=np.concatenate([part.subject for part in parts]),
        classes=first.classes,
        unit=first.unit,
    )
