"""Writers of synthetic recordings in the four official formats.

Every root they write is stamped with a file named ``SYNTHETIC``; the loaders carry that stamp on to the report. The
recordings have subject effects and overlapping classes, so that honest scores land near those of the real data and
not at 1.0 (measured in ``docs/synthetic-data.md``). A score on them says that the machinery works, and nothing else.

A writer is one module with ``SIZES`` (options by size) and ``write(root, seed, progress, **options)``, and one line
here.
"""

from pathlib import Path
from types import ModuleType
from typing import Literal

from hcqsfl.data.synthetic.folder import Progress, stamped_request
from hcqsfl.registry import load_object, lookup

Size = Literal["tiny", "small", "full"]

WRITERS = {
    "mimic_waveform": "hcqsfl.data.synthetic.mimic_waveform",
    "pamap2": "hcqsfl.data.synthetic.pamap2",
    "ton_iot": "hcqsfl.data.synthetic.ton_iot",
    "wesad": "hcqsfl.data.synthetic.wesad",
}


def write(
    name: str, root: Path, *, seed: int = 0, size: Size = "small", progress: Progress | None = None
) -> list[Path]:
    """Write made-up recordings of the data set called ``name`` into ``root``; the same seed gives the same bytes.

    Args:
        name: a name in ``WRITERS``.
        root: folder to write into; it is made when absent.
        seed: root seed of every random choice.
        size: ``"tiny"`` for tests, ``"small"`` for a demonstration, ``"full"`` as large as the original.
        progress: called with (files done, files in all, file just written).

    Returns:
        The recording files written, without the marker.

    Raises:
        ValueError: there is no such writer or size, or ``root`` holds files that these writers did not write.
    """
    writer: ModuleType = load_object(lookup("synthetic writer", WRITERS, name))
    options = lookup(f"size of synthetic {name}", writer.SIZES, size)
    written: list[Path] = writer.write(root, seed=seed, progress=progress, **options)
    return written


def ensure(
    name: str, root: Path, *, seed: int = 0, size: Size = "small", progress: Progress | None = None
) -> list[Path]:
    """Return the recordings that ``write`` with these arguments leaves, writing only what is not already there whole.

    Raises:
        ValueError: as ``write``.
    """
    writer: ModuleType = load_object(lookup("synthetic writer", WRITERS, name))
    options = lookup(f"size of synthetic {name}", writer.SIZES, size)
    there = stamped_request(root)
    if there is not None and there.is_whole and there.answers(name, seed, options):
        return [root / path for path in there.files]
    return write(name, root, seed=seed, size=size, progress=progress)
