"""What training cost on the wire, from the rows a run writes after each round.

A row is ``{"arm", "seed", "fold", "round", "train_loss", "validation", "bytes_up", "bytes_down", "messages",
"seconds", "events"}``; ``validation`` is a mapping of ``loss`` and metrics, or None. Bytes are those of the messages as
serialised; up is from the clients. ``bytes_cut``, where given, are those of both directions that crossed the cut; the
rest are states.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

KEYS = ("arm", "seed", "fold", "round", "train_loss", "validation", "bytes_up", "bytes_down", "messages", "seconds")


@dataclass(frozen=True)
class Cost:
    """Bytes, messages and time of one arm.

    Attributes:
        runs: trainings (one for each seed and fold).
        rounds: rounds of all trainings together.
        bytes_up_per_round, bytes_down_per_round: mean over all rounds.
        bytes_up, bytes_down, messages: sum over all rounds of all trainings.
        seconds: sum of the time of the rounds in s.
    """

    runs: int
    rounds: int
    bytes_up_per_round: float
    bytes_down_per_round: float
    bytes_up: int
    bytes_down: int
    messages: int
    seconds: float

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Cost | None":
        """Sum the rows of one arm; None when it trained in no round (a baseline without a network)."""
        rows = once(rows)
        if not rows:
            return None
        up, down = sum(int(row["bytes_up"]) for row in rows), sum(int(row["bytes_down"]) for row in rows)
        return cls(
            runs=len({(row["seed"], row["fold"]) for row in rows}),
            rounds=len(rows),
            bytes_up_per_round=up / len(rows),
            bytes_down_per_round=down / len(rows),
            bytes_up=up,
            bytes_down=down,
            messages=sum(int(row["messages"]) for row in rows),
            seconds=float(sum(row["seconds"] for row in rows)),
        )


def once(rows: Iterable[Row]) -> list[Row]:
    """Keep the last row of each arm, seed, fold and round: a resumed run writes the round it was killed in again."""
    return list({(row["arm"], row["seed"], row["fold"], row["round"]): row for row in rows}.values())


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a run, one JSON object a line.

    Raises:
        ValueError: a line is cut off, is no object, or lacks a key.
        OSError: the file cannot be read.
    """
    rows: list[Row] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"line {number} of {path} is not JSON ({error.msg}); the run was cut off there, or edited"
            ) from error
        missing = [key for key in KEYS if key not in row] if isinstance(row, dict) else list(KEYS)
        if missing:
            raise ValueError(f"line {number} of {path} lacks {', '.join(missing)}")
        rows.append(row)
    return once(rows)


def human(n_bytes: float) -> str:
    """Write a number of bytes for people, in powers of 1024: ``"12.3 KiB"``."""
    if abs(n_bytes) < 1024:
        return f"{n_bytes:.0f} B"
    size = float(n_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        # 1023.95 would be written as 1024.0
        if abs(size) < 1023.95 or unit == "TiB":
            break
    return f"{size:.1f} {unit}"
