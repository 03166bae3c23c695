"""Compare two finished runs under the same attacks: a defended one with an undefended one, say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hcqsfl import config
from hcqsfl.evaluation.attack_rows import Row, RowFile
from hcqsfl.evaluation.pooled import Difference, differences
from hcqsfl.recipes.profiles import PROFILES
from hcqsfl.registry import lookup

ELSEWHERE = ("only", "allow_leaks")
"""Settings of the split that say nothing of which windows a fold tests."""


def compare_attacks(
    run: Path,
    other: Path,
    profile: str = "smoke",
    *,
    budget: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    arms: Sequence[str] = (),
) -> dict[str, list[Difference]]:
    """Return how far the scores of two runs lie apart under the same attacks, on the same folds and seeds.

    Args:
        run, other: their folders; both were attacked.
        profile: the attacks' profile.
        budget: other budgets than the profile's, by name, if they were attacked so.
        only: attacks, by name; all unless given.
        arms: trunks; all that both have unless given.

    Returns:
        Trunk to the differences, the first run's score minus the other's, with 95 % intervals over subjects.

    Raises:
        ValueError: there is no such profile or budget, a trunk has no rows, the runs were not split alike from the same
            data, or no attack was scored on a fold and seed of both.
        FileNotFoundError: one of them is no run, or was not attacked so.
    """
    file = lookup("profile", PROFILES, profile).of(budget or {}).file
    split, split_other = _split(run), _split(other)
    for key, value in split.items():
        if value != split_other[key]:
            raise ValueError(f"{run} and {other} do not test the same windows: {key} is {value} and {split_other[key]}")
    ours, theirs = (_rows(folder, file, only) for folder in (run, other))
    known = {row.arm: row.arm for row in ours}
    found = {}
    for arm in [lookup("attacked arm of the run", known, arm) for arm in arms] or known:
        sides = [_of(ours, arm, "run"), _of(theirs, arm, "other")]
        if told := differences([row for side in sides for row in side], "run", "other"):
            found[arm] = [replace(each, arm=f"{arm} of {run}", control=f"{arm} of {other}") for each in told]
    if not found:
        raise ValueError(
            f"no attack was scored in both runs on one fold and seed: {run} has {_trainings(ours)}; "
            f"{other} has {_trainings(theirs)}"
        )
    return found


def _split(run: Path) -> dict[str, Any]:
    """Return the settings that say which windows a fold tests."""
    if not (run / "config.toml").is_file():
        raise FileNotFoundError(f"{run} is no run: it has no config.toml")
    settings = config.load(run / "config.toml").model_dump(mode="json")
    parts = ("data", "windows", "split")
    return {f"{part}.{key}": value for part in parts for key, value in settings[part].items() if key not in ELSEWHERE}


def _rows(run: Path, file: str, only: Sequence[str]) -> list[Row]:
    path = run / "attacks" / f"{file}.jsonl"
    if not path.is_file():
        there = ", ".join(sorted(each.stem for each in path.parent.glob("*.jsonl"))) or "none"
        raise FileNotFoundError(f"{run} has no rows of attacks by {file} (there are: {there}); run hcqsfl attack first")
    return [row for row in RowFile(path).rows() if not only or row.attack in only]


def _of(rows: Sequence[Row], arm: str, side: str) -> list[Row]:
    """Return the rows of one arm under the name of its run; defences are what the runs differ in."""
    return [replace(row, arm=side, defence="") for row in rows if row.arm == arm]


def _trainings(rows: Sequence[Row]) -> str:
    return ", ".join(dict.fromkeys(f"{row.arm}/{row.seed}/{row.fold}" for row in rows)) or "none"
