"""Find a data set's files, and say what was looked for, where, and what there is when they are not there."""

from collections.abc import Sequence
from pathlib import Path

SHOWN = 8


def found(paths: Sequence[Path], root: Path, wanted: str, way_out: str) -> list[Path]:
    """Return ``paths`` sorted, or say clearly that there are none.

    Args:
        paths: the files found.
        root: the folder that was searched.
        wanted: what was looked for, as the user would name it.
        way_out: how to get the files, as a sentence.

    Raises:
        FileNotFoundError: ``root`` is not a folder, or ``paths`` is empty.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"looked for {wanted} in {root}, which is not a folder. {way_out}")
    if not paths:
        raise FileNotFoundError(f"looked for {wanted} in {root}, which holds {_contents(root)}. {way_out}")
    return sorted(paths)


def inside(root: Path, path: Path) -> str:
    """Return ``path`` as seen from ``root``, with forward slashes, for ``Recording.source``."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _contents(root: Path) -> str:
    names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
    if not names:
        return "nothing"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
