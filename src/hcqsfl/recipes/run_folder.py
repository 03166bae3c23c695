"""The folder of one run: what is in it, and who may write there.

::

    RUN/config.toml          settings as resolved
    RUN/jobs/ARM/SEED/FOLD/  metrics.jsonl, checkpoint.safetensors, predictions.npz of one training
    RUN/metrics.jsonl        the metric rows of all trainings
    RUN/result.json          what came out
    RUN/report.html          the same for people
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcqsfl.config import Config
from hcqsfl.evaluation.files import write_whole


@dataclass(frozen=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: where it is.
    """

    path: Path

    @classmethod
    def open(cls, path: Path, config: Config, *, resume: bool = False, overwrite: bool = False) -> "RunFolder":
        """Make the folder, or go on in it.

        Raises:
            FileExistsError: there is a run already, and neither ``resume`` nor ``overwrite`` was asked for.
            ValueError: ``resume`` was asked for, but there is no run, or it has other settings.
        """
        settings, text = path / "config.toml", config.to_toml()
        if resume and overwrite:
            raise ValueError("a run is either resumed or overwritten, not both")
        if resume:
            if not settings.is_file():
                raise ValueError(f"there is no run to resume in {path}")
            before = settings.read_text(encoding="utf-8")
            if before != text:
                raise ValueError(f"the run in {path} has other settings: {_first_difference(before, text)}")
        elif path.exists() and any(path.iterdir()):
            if not overwrite:
                raise FileExistsError(
                    f"{path} is not empty; add --resume to go on there or --overwrite to start afresh"
                )
            if not settings.is_file():
                raise FileExistsError(f"{path} holds something other than a run; it is not overwritten")
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        write_whole(settings, text.encode())
        return cls(path)

    def job(self, arm: str, seed: int, fold: str) -> Path:
        """Return (and make) the folder of one training."""
        folder = self.path / "jobs" / safe_name(arm) / str(seed) / safe_name(fold)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON line to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def keep_rows(path: Path, up_to_round: int) -> list[dict[str, Any]]:
    """Return the rows of the rounds that a checkpoint has seen, and cut the rest off: they will be run again."""
    kept = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break  # the run was killed while it wrote this line
            if row["round"] <= up_to_round:
                kept.append(row)
        write_whole(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
    return kept


def safe_name(name: str) -> str:
    """Return an arm's or a fold's name as its folder is called."""
    return re.sub(r"[^\w.+-]", "_", name)


def _first_difference(before: str, now: str) -> str:
    for a, b in zip(before.splitlines(), now.splitlines(), strict=False):
        if a != b:
            return f"{a!r} there, {b!r} now"
    return "one of the two has more"
