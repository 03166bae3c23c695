"""What every loader returns: one contiguous stretch of one subject's signals, with a label for each sample."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

IGNORED = -1
"""The label of a sample that belongs to no class asked for: no window may hold it."""

SYNTHETIC_MARKER = "SYNTHETIC"
"""A file of this name in a data set's root says that the recordings below it were made up."""


def is_synthetic(root: Path) -> bool:
    """Return whether the recordings under ``root`` carry the marker of the synthetic writers."""
    return (root / SYNTHETIC_MARKER).exists()


@dataclass(frozen=True, eq=False)
class Recording:
    """One contiguous stretch of samples of one subject.

    A gap in time ends a recording: what follows it is another one of the same subject.

    Attributes:
        signal: ``(n_chans, n_samples)``, floating, in ``units``; NaN where nothing was measured.
        labels: ``(n_samples,)`` integers that index ``classes``, or ``IGNORED``.
        sfreq: samples per second; tables of rows without a clock have 1.0 and count in rows.
        channels: name of each channel.
        units: unit of each channel; ``"category"`` where the values index ``categories[channel]``.
        subject: who, or which host or device, was recorded.
        classes: name of each label.
        source: path of the file inside the data set's root.
        position: ``(n_samples,)`` place of each sample in its source where these are not 0, 1, 2, ...; a jump
            by anything but 1 counts as a gap.
        categories: the names that a categorical channel's values stand for.
        synthetic: whether the samples were made up.
        stratum: ``(n_samples,)`` integers: what a split by time must divide evenly, where that is finer than the label
            (the type of attack where the label is attack or not).

    Raises:
        ValueError: the parts contradict one another.
    """

    signal: np.ndarray
    labels: np.ndarray
    sfreq: float
    channels: tuple[str, ...]
    units: tuple[str, ...]
    subject: str
    classes: tuple[str, ...]
    source: str = ""
    position: np.ndarray | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    synthetic: bool = False
    stratum: np.ndarray | None = None

    def __post_init__(self) -> None:
        where = f"the recording of subject {self.subject} ({self.source})"
        if self.signal.ndim != 2 or not np.issubdtype(self.signal.dtype, np.floating):
            raise ValueError(
                f"{where}: the signal must be floating (n_chans, n_samples), "
                f"not {self.signal.dtype} of shape {self.signal.shape}"
            )
        n_chans, n_samples = self.signal.shape
        if len(self.channels) != n_chans or len(self.units) != n_chans:
            raise ValueError(
                f"{where}: {n_chans} channels of signal, {len(self.channels)} names and {len(self.units)} units"
            )
        if len(set(self.channels)) != n_chans:
            raise ValueError(f"{where}: a channel name appears twice in {', '.join(self.channels)}")
        if self.labels.shape != (n_samples,):
            raise ValueError(f"{where}: {n_samples} samples of signal but labels of shape {self.labels.shape}")
        if n_samples and not IGNORED <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(
                f"{where}: labels run from {self.labels.min()} to {self.labels.max()}, "
                f"but there are {len(self.classes)} classes"
            )
        for name, each in (("positions", self.position), ("strata", self.stratum)):
            if each is not None and each.shape != (n_samples,):
                raise ValueError(f"{where}: {n_samples} samples but {name} of shape {each.shape}")
        if not self.sfreq > 0:
            raise ValueError(f"{where}: the sampling frequency is {self.sfreq} Hz")

    @property
    def n_samples(self) -> int:
        """Number of samples a channel."""
        return int(self.signal.shape[1])
