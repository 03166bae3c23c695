"""The rows of an attack table: written one by one, so that an interrupted suite goes on where it stopped."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

SCHEMA = 1

DEPENDENCE = "dependence"
"""The ``attack`` of rows that measure, and attack nothing: they count for no leak."""


@dataclass(frozen=True)
class Row:
    """What one attack achieved in one setting, by one metric.

    Attributes:
        suite: ``privacy``, ``poisoning`` or ``evasion``.
        attack: its name in the registry.
        id: its row in the evaluation design: ``"A1"``.
        threat: the threat model: ``"T1"``.
        knowledge: what the attacker knew besides, in words.
        defence: what stood against it, with its strength.
        arm, fold, seed: of the training it was aimed at.
        metric: what is scored.
        better: whether a ``higher`` or a ``lower`` score is a better attack.
        score, low, high: of the attack, with its interval over units.
        baseline, baseline_name: of the best trivial guess, and which that is.
        gain, gain_low, gain_high: how much better than the trivial guess, positive where it is, with the interval of
            the paired difference.
        n_rows, n_units: rows scored, and subjects or rows that were resampled.
        evaluations, seconds: budget spent on one training; the time is that of all its metrics together,
            scoring included.
        facts: whatever else a reader should know.
    """

    suite: str
    attack: str
    id: str
    threat: str
    knowledge: str
    defence: str
    arm: str
    fold: str
    seed: int
    metric: str
    better: str
    score: float | None
    baseline: float | None
    baseline_name: str
    low: float | None = None
    high: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    n_rows: int = 0
    n_units: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leaks(self) -> bool:
        """Whether the attack beats the best trivial guess, by an interval that excludes zero."""
        return self.gain_low is not None and self.gain_low > 0


class RowFile:
    """A file of rows, one JSON line each, in groups that are whole or absent.

    Args:
        path: the file; made where there is none.
        overwrite: forget what is in it.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        if overwrite:
            path.unlink(missing_ok=True)
        self.groups: dict[str, list[Row]] = dict(_read(path)) if path.is_file() else {}

    def add(self, key: str, rows: Sequence[Row]) -> None:
        """Append the rows that one attack gave in one setting."""
        self.groups[key] = list(rows)
        line = json.dumps({"schema": SCHEMA, "key": key, "rows": [asdict(row) for row in rows]}, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def rows(self) -> list[Row]:
        """Return all rows, in the order in which they came."""
        return [row for group in self.groups.values() for row in group]


def _read(path: Path) -> Iterator[tuple[str, list[Row]]]:
    known = {f.name for f in fields(Row)}
    kept, whole = [], True
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            held = json.loads(line)
        except ValueError:
            whole = False  # the suite was killed while it wrote this line
            break
        if held.get("schema") != SCHEMA:
            raise ValueError(f"{path} is of another version of hcqsfl; delete it to run the attacks anew")
        kept.append(line)
        yield held["key"], [Row(**{k: v for k, v in row.items() if k in known}) for row in held["rows"]]
    if not whole:
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
