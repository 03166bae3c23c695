"""Keep windows on disk, memory-mapped, keyed by what they were made from.

An entry is a folder named by its key: one ``.npy`` file an array and ``windows.json`` for the rest, which also states
a checksum of each array. It is written under another name and renamed when whole, so what lies there is an entry or it
is nothing; one that does not fit its checksums is made again.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from hcqsfl import __version__
from hcqsfl.data.windows import Windows

FORMAT = 1
"""Rises when entries are laid out otherwise."""

HASHES = "hashes.json"
BLOCK = 1 << 20

_log = logging.getLogger(__name__)


def cached_windows(
    root_files: Sequence[Path], settings: Mapping[str, Any], build: Callable[[], Windows], folder: Path
) -> Windows:
    """Return the windows that ``build`` makes, from ``folder`` where they have been made before.

    The key is the SHA-256 of each file's contents and the last two parts of its path (a loader may take the subject
    from them), the settings, and the versions of this package and of the layout.

    Args:
        root_files: every file that the windows depend on.
        settings: everything else that they depend on: loader, its options, window length, overlap, ...; numbers,
            strings, booleans, None, lists and dicts of those.
        build: makes the windows.
        folder: where entries lie; made when absent.

    Returns:
        Windows whose arrays are memory-mapped and read-only. Where the entry cannot be written (a full disk), the
        windows as built, after a warning in the log.

    Raises:
        ValueError: a setting cannot be written as JSON.
        OSError: a file cannot be read.
    """
    entry = folder / _key(root_files, settings, folder)
    stored = _read(entry)
    if stored is not None:
        return stored
    windows = build()
    try:
        _write(windows, entry)
    except OSError as error:
        _log.warning("the windows could not be kept in %s: %s", folder, error)
        return windows
    return _read(entry) or windows


def file_sha256(path: Path, folder: Path) -> str:
    """Return the SHA-256 of a file's contents, remembered in ``folder`` while its size and time stay the same."""
    state = path.stat()
    name = str(path.resolve())
    known = _known_hashes(folder)
    match known.get(name):
        case [size, mtime_ns, str(sha256)] if (size, mtime_ns) == (state.st_size, state.st_mtime_ns):
            return sha256
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known[name] = [state.st_size, state.st_mtime_ns, digest]
    try:
        _replace_text(folder / HASHES, json.dumps(known))
    except OSError as error:
        _log.warning("the hash of %s could not be kept in %s: %s", path, folder, error)
    return digest


def _key(root_files: Sequence[Path], settings: Mapping[str, Any], folder: Path) -> str:
    files = sorted(("/".join(path.parts[-2:]), file_sha256(path, folder)) for path in root_files)
    content = {"format": FORMAT, "hcqsfl": __version__, "files": files, "settings": settings}
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the settings of the windows cannot be written as JSON: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()


def _known_hashes(folder: Path) -> dict[str, Any]:
    try:
        known = json.loads((folder / HASHES).read_text())
    except (OSError, ValueError):  # absent, or written by half: then every file is hashed again
        return {}
    return known if isinstance(known, dict) else {}


def _replace_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total = zlib.crc32(block, total)
    return total


def _write(windows: Windows, entry: Path) -> None:
    """Write an entry under another name and rename it when it is whole."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=entry.parent))
    try:
        content: dict[str, Any] = {"arrays": {}, "values": {}}
        for field in fields(Windows):
            value = getattr(windows, field.name)
            if isinstance(value, np.ndarray):
                array = value.astype(str) if value.dtype == object else value
                np.save(half / f"{field.name}.npy", array, allow_pickle=False)
                content["arrays"][field.name] = _checksum(half / f"{field.name}.npy")
            else:
                content["values"][field.name] = dict(value) if isinstance(value, Mapping) else value
        (half / "windows.json").write_text(json.dumps(content))
        if entry.exists():  # damaged, or just made by somebody else: both are the same once replaced
            entry.rename(half / "replaced")
        half.rename(entry)
        shutil.rmtree(entry / "replaced", ignore_errors=True)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def _read(entry: Path) -> Windows | None:
    """Return the windows of an entry, or None when there is none or it is damaged."""
    if not entry.exists():
        return None
    try:
        content = json.loads((entry / "windows.json").read_text())
        arrays = {}
        for name, checksum in content["arrays"].items():
            path = entry / f"{name}.npy"
            if _checksum(path) != checksum:
                raise ValueError(f"{path.name} does not fit its checksum")
            array = np.load(path, mmap_mode="r", allow_pickle=False) if _has_content(path) else np.load(path)
            arrays[name] = array
        return Windows(**arrays, **{name: _restored(value) for name, value in content["values"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("the cached windows in %s are damaged and are made again: %s", entry, error)
        return None


def _has_content(path: Path) -> bool:
    """Return whether an array file holds anything: nothing cannot be mapped."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file) if version == (1, 0) else ((1,), None, None)
    return 0 not in shape


def _restored(value: Any) -> Any:
    """Return what JSON turned into lists as the tuples that they were."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return {key: tuple(names) for key, names in value.items()}
    return value
