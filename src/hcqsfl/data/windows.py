"""Cut recordings into windows of one class each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from hcqsfl.data.recording import IGNORED, Recording


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of equal length, each of one subject and one class.

    Attributes:
        x: ``(n_windows, n_chans, n_times)``, floating.
        y: ``(n_windows,)`` int64, index into ``classes``.
        subject: ``(n_windows,)`` strings.
        start: ``(n_windows,)`` int64, place of the first sample in its source.
        recording: ``(n_windows,)`` int64, which recording a window was cut from.
        stratum: ``(n_windows,)`` int64, what a split by time must divide evenly: the class, or something finer.
        sfreq: samples per second.
        channels, units, classes, categories, synthetic: as in ``Recording``.
        dropped: how many windows were left out because a sample in them was not finite.
    """

    x: np.ndarray
    y: np.ndarray
    subject: np.ndarray
    start: np.ndarray
    recording: np.ndarray
    stratum: np.ndarray
    sfreq: float
    channels: tuple[str, ...]
    units: tuple[str, ...]
    classes: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    synthetic: bool = False
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_times(self) -> int:
        """Samples in a window."""
        return int(self.x.shape[2])

    def take(self, index: np.ndarray) -> "Windows":
        """Return the windows at ``index`` (integers or a mask), in that order."""
        return replace(
            self,
            x=self.x[index],
            y=self.y[index],
            subject=self.subject[index],
            start=self.start[index],
            recording=self.recording[index],
            stratum=self.stratum[index],
        )


def slide(recording: Recording, seconds: float, overlap: float = 0.0) -> Windows:
    """Cut a recording into windows of one class each.

    A window is kept when all its samples carry the same label and none is missing, so none straddles a change of
    state or a gap. Windows start afresh at each change of label.

    Args:
        recording: the signal to cut.
        seconds: window length in s; ``n_times = round(seconds * sfreq)``.
        overlap: share of a window that the next one repeats, in [0, 1).

    Returns:
        Windows in recording order; there may be none.

    Raises:
        ValueError: ``overlap`` is outside [0, 1), a window is shorter than one sample or longer than the recording,
            or a channel holds no finite value at all.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"an overlap of {overlap} was asked for; it must be at least 0 and below 1")
    n_times = round(seconds * recording.sfreq)
    if n_times < 1:
        raise ValueError(f"a window of {seconds:g} s is shorter than one sample at {recording.sfreq:g} Hz")
    if n_times > recording.n_samples:
        raise ValueError(
            f"a window of {seconds:g} s is {n_times} samples at {recording.sfreq} Hz, "
            f"but the recording of subject {recording.subject} has {recording.n_samples}"
        )
    finite = np.isfinite(recording.signal)
    for channel, any_finite in zip(recording.channels, finite.any(axis=1), strict=True):
        if not any_finite:
            raise ValueError(
                f"channel {channel} of subject {recording.subject} ({recording.source}) holds no finite value; "
                "leave the channel out or the subject"
            )
    hop = max(1, round(n_times * (1 - overlap)))
    starts = _starts_inside_runs(_runs(recording), n_times, hop)
    # a window is whole when the number of missing samples before its end equals that before its start
    missing = np.concatenate([[0], np.cumsum(~finite.all(axis=0))])
    whole = missing[starts + n_times] == missing[starts]
    dropped = int((~whole).sum())
    starts = starts[whole]
    view = np.lib.stride_tricks.sliding_window_view(recording.signal, n_times, axis=1)  # (n_chans, positions, n_times)
    place = starts if recording.position is None else recording.position[starts]
    return Windows(
        x=np.ascontiguousarray(view[:, starts].transpose(1, 0, 2)),
        y=recording.labels[starts].astype(np.int64),
        subject=np.full(len(starts), recording.subject),
        start=place.astype(np.int64),
        recording=np.zeros(len(starts), dtype=np.int64),
        stratum=(recording.labels if recording.stratum is None else recording.stratum)[starts].astype(np.int64),
        sfreq=recording.sfreq,
        channels=recording.channels,
        units=recording.units,
        classes=recording.classes,
        categories=recording.categories,
        synthetic=recording.synthetic,
        dropped=dropped,
    )


def _runs(recording: Recording) -> np.ndarray:
    """Return ``(n_runs, 2)`` first and past-the-end sample of each stretch of one class without a jump."""
    if recording.n_samples == 0:
        return np.empty((0, 2), dtype=np.int64)
    change = np.diff(recording.labels) != 0
    if recording.position is not None:
        change |= np.diff(recording.position) != 1
    edges = np.concatenate([[0], np.flatnonzero(change) + 1, [recording.n_samples]])
    runs = np.stack([edges[:-1], edges[1:]], axis=1)
    return runs[recording.labels[runs[:, 0]] != IGNORED]


def _starts_inside_runs(runs: np.ndarray, n_times: int, hop: int) -> np.ndarray:
    starts = [np.arange(first, end - n_times + 1, hop) for first, end in runs]
    return np.concatenate(starts) if starts else np.empty(0, dtype=np.int64)


def slide_all(recordings: Sequence[Recording], seconds: float, overlap: float = 0.0) -> Windows:
    """Cut every recording that is long enough, and put the windows of all of them together.

    Raises:
        ValueError: there is no recording, the recordings differ in channels, rate or classes, or no window is left.
    """
    if not recordings:
        raise ValueError("there is no recording to cut into windows")
    first = recordings[0]
    for other in recordings[1:]:
        for name in ("channels", "units", "sfreq", "classes"):
            if getattr(other, name) != getattr(first, name):
                raise ValueError(
                    f"the recordings of subject {first.subject} ({first.source}) and of subject {other.subject} "
                    f"({other.source}) differ in {name}: {getattr(first, name)} and {getattr(other, name)}"
                )
    long_enough = [r for r in recordings if r.n_samples >= round(seconds * r.sfreq)]
    parts = [slide(r, seconds, overlap) for r in long_enough]
    if not sum(map(len, parts)):
        longest = max(r.n_samples for r in recordings) / first.sfreq
        raise ValueError(
            f"no window of {seconds:g} s fits: {len(recordings)} recordings, the longest {longest:g} s, and no stretch "
            "of one label without a gap or a missing sample is that long"
        )
    return replace(
        parts[0],
        x=np.concatenate([p.x for p in parts]),
        y=np.concatenate([p.y for p in parts]),
        subject=np.concatenate([p.subject for p in parts]),
        start=np.concatenate([p.start for p in parts]),
        recording=np.concatenate([np.full(len(p), i, dtype=np.int64) for i, p in enumerate(parts)]),
        stratum=np.concatenate([p.stratum for p in parts]),
        dropped=sum(p.dropped for p in parts),
        synthetic=any(p.synthetic for p in parts),
    )
