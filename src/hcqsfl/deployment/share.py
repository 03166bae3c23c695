"""One client's share of an experiment: its own training windows, scaled, and what it must know to build its half.

A client's process takes its share out of the recordings on its host, or out of a folder that `hcqsfl deal` wrote and
that holds nothing of anybody else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data.windows import Windows
from hcqsfl.deployment import record
from hcqsfl.evaluation.files import write_whole
from hcqsfl.registry import lookup

SUFFIX = ".share"


@dataclass(frozen=True, eq=False)
class Share:
    """A client's windows of one fold.

    Attributes:
        client, fold: whose, and of which fold.
        x: ``(n, n_chans, n_times)`` float32, scaled.
        y: ``(n,)`` int64.
        class_weights: of the loss, or ``None``.
        like: windows without a row, which tell channels, length and classes.
    """

    client: str
    fold: str
    x: Tensor
    y: Tensor
    class_weights: Tensor | None
    like: Windows

    def to_bytes(self) -> bytes:
        """Return the share as bytes."""
        words = {
            "client": self.client,
            "fold": self.fold,
            "channels": self.like.channels,
            "units": self.like.units,
            "classes": self.like.classes,
            "sfreq": self.like.sfreq,
            "n_times": self.like.n_times,
        }
        tensors = {"x": self.x, "y": self.y}
        return record.pack(words, tensors if self.class_weights is None else tensors | {"weights": self.class_weights})


@dataclass(frozen=True, eq=False)
class Shares:
    """A client's share of every fold.

    Attributes:
        folds: their names.
        of: fold to share.
    """

    folds: tuple[str, ...]
    of: Callable[[str], Share]

    @property
    def first(self) -> Share:
        """The share of the first fold, which tells what all have in common."""
        return self.of(self.folds[0])


def client_names(config: Config, windows: Windows) -> list[str]:
    """Return everybody who is a client in any fold."""
    names = {
        name: None
        for fold in build.make_folds(config, windows)
        for name in build.clients(config, windows.take(fold.train))
    }
    return list(names)


def from_recordings(config: Config, client: str, cache: Path) -> Shares:
    """Take a client's share out of the recordings of ``data.root``.

    Raises:
        ValueError: no fold has such a client.
    """
    windows = build.windows(config, cache)
    lookup("client", dict.fromkeys(client_names(config, windows)), client)
    folds = {fold.name: fold for fold in build.make_folds(config, windows)}
    held = {
        name: fold for name, fold in folds.items() if client in build.clients(config, windows.take(fold.train))
    }  # a subject is no client where it is tested
    last: list[Share] = []

    def of(name: str) -> Share:
        if not last or last[0].fold != name:
            last[:] = list(_deal(config, windows, lookup("fold", held, name).name, client))
        return last[0]

    return Shares(tuple(held), of)


def from_folder(folder: Path, client: str) -> Shares:
    """Read a client's share from a folder that `hcqsfl deal` wrote.

    Raises:
        ValueError: a file in it is damaged, or is another client's.
    """
    found: dict[str, Share] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        share = _read(path)
        if share.client != client:
            raise ValueError(f"{path} is the share of client {share.client!r}, not of {client!r}")
        found[share.fold] = share
    return Shares(tuple(found), lambda name: lookup("fold", found, name))


def is_dealt(folder: Path) -> bool:
    """Return whether a folder is one that `hcqsfl deal` wrote for a client."""
    return any(folder.glob(f"*{SUFFIX}"))


def deal(config: Config, out: Path, cache: Path) -> list[Path]:
    """Write one folder a client, with its share of every fold and nothing else.

    Raises:
        ValueError, OSError: the settings or the recordings do not allow it.
    """
    windows = build.windows(config, cache)
    build.scan(config, windows, build.make_folds(config, windows))
    written = []
    for fold in build.make_folds(config, windows):
        for share in _deal(config, windows, fold.name, None):
            folder = out / share.client
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{share.fold.replace('/', '_')}{SUFFIX}"
            write_whole(path, share.to_bytes())
            written.append(path)
    return written


def _deal(config: Config, windows: Windows, fold_name: str, only: str | None) -> Iterator[Share]:
    fold = {fold.name: fold for fold in build.make_folds(config, windows)}[fold_name]
    prepared = build.prepare(config, windows, fold)
    like = prepared.training.take(np.zeros(0, dtype=np.int64))
    for client, index in build.dealt(config, prepared).items():
        if only in (None, client):
            x, y = prepared.x["train"][index], prepared.y["train"][index]
            yield Share(client, fold.name, x, y, prepared.class_weights, like)


def _read(path: Path) -> Share:
    try:
        words, tensors = record.unpack(path.read_bytes())
        x, y = tensors["x"], tensors["y"]
        empty, none = np.zeros((0, len(words["channels"]), words["n_times"]), np.float32), np.zeros(0, np.int64)
        like = Windows(
            x=empty,
            y=none,
            subject=np.zeros(0, "U1"),
            start=none,
            recording=none,
            stratum=none,
            sfreq=words["sfreq"],
            channels=tuple(words["channels"]),
            units=tuple(words["units"]),
            classes=tuple(words["classes"]),
        )
        return Share(words["client"], words["fold"], x, y, tensors.get("weights"), like)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the share {path} is damaged ({error}); deal it again") from None
