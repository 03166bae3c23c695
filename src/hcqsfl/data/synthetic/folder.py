"""The folder a synthetic data set is written into, its stamp, and the refusal to touch anybody's real recordings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import hcqsfl
from hcqsfl.data.recording import SYNTHETIC_MARKER

Progress = Callable[[int, int, Path], None]
"""Called with files done, files in all, and the file just written."""

SENTENCE = "These recordings are SYNTHETIC: a program made them up, and they are of nobody."
_WHOLE = "complete"


def _request(name: str, seed: int, options: Mapping[str, object]) -> str:
    settings = " ".join(f"{key}={value}" for key, value in sorted({"seed": seed, **options}.items()))
    return f"hcqsfl {hcqsfl.__version__} wrote {name} with {settings}"


@dataclass(frozen=True)
class Stamp:
    """What a marker says.

    Attributes:
        request: which writer, seed and options.
        files: relative paths of the files written, in order.
        is_whole: whether the writer came to its end.
    """

    request: str
    files: tuple[str, ...]
    is_whole: bool

    def answers(self, name: str, seed: int, options: Mapping[str, object]) -> bool:
        """Return whether these are the files that this writer, seed and options give."""
        return self.request == _request(name, seed, options)


def stamped_request(root: Path) -> Stamp | None:
    """Return what the marker in ``root`` says, or None where there is none of ours."""
    marker = root / SYNTHETIC_MARKER
    if not marker.is_file():
        return None
    lines = marker.read_text(encoding="utf-8").splitlines()
    if len(lines) < 2:
        return None
    is_whole = lines[-1] == _WHOLE
    return Stamp(lines[1], tuple(lines[2 : -1 if is_whole else None]), is_whole)


class SyntheticFolder:
    """Hands out paths to write, each entered in the marker before the file comes into being.

    So a writer that is killed leaves nothing that could pass for a real recording, and what an earlier request left is
    removed before the new one begins.

    Args:
        root: the folder; made when absent.
        name: the writer.
        seed: its root seed.
        options: its other arguments.
        n_files: how many files will be written, for ``progress``.
        progress: see ``Progress``.

    Raises:
        ValueError: ``root`` is not a folder, or holds a file that is not listed in a marker of these writers.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        seed: int,
        options: Mapping[str, object],
        n_files: int,
        progress: Progress | None,
    ) -> None:
        if root.exists() and not root.is_dir():
            raise ValueError(f"synthetic {name} was to go into {root}, which is a file; name a folder")
        before = stamped_request(root)
        ours = set(before.files) if before else set()
        for path in sorted(root.rglob("*")) if root.exists() else []:
            relative = path.relative_to(root).as_posix()
            if path.is_dir() and not path.is_symlink():
                continue
            if relative not in ours and not (before and relative == SYNTHETIC_MARKER):
                raise ValueError(
                    f"synthetic {name} was to go into {root}, but {relative} there was not written by a synthetic "
                    "writer; name a new or an empty folder"
                )
        for relative in ours:
            self._inside(root, relative).unlink(missing_ok=True)
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.files: list[Path] = []
        self._n_files = n_files
        self._progress = progress
        self._marker = root / SYNTHETIC_MARKER
        self._marker.write_bytes(f"{SENTENCE}\n{_request(name, seed, options)}\n".encode())

    @staticmethod
    def _inside(root: Path, relative: str) -> Path:
        path = PurePosixPath(relative)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"the marker {root / SYNTHETIC_MARKER} lists {relative}, which is outside its folder")
        return root / path

    def path(self, relative: str) -> Path:
        """Enter ``relative`` in the marker, make its folder, and return the path to write.

        Raises:
            ValueError: ``relative`` leads out of the folder.
        """
        path = self._inside(self.root, relative)
        with self._marker.open("ab") as marker:
            marker.write(f"{relative}\n".encode())
        path.parent.mkdir(parents=True, exist_ok=True)
        self.files.append(path)
        return path

    def tell(self) -> None:
        """Report that the files handed out so far are written."""
        if self._progress is not None:
            self._progress(len(self.files), self._n_files, self.files[-1])

    def finish(self) -> list[Path]:
        """Mark the folder as whole, and return the files written."""
        with self._marker.open("ab") as marker:
            marker.write(f"{_WHOLE}\n".encode())
        return self.files
