"""Budgets other than the profile's are taken, are written down, and never mix with the profile's own rows."""

import json
import time

import pytest
from typer.testing import CliRunner

from hcqsfl.cli import app
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.recipes.profiles import BUDGETS, PROFILES, Case, Profile
from privacy.made_run import made_run

RUNNER = CliRunner()


def test_a_budget_changes_what_it_names_alone() -> None:
    paper = PROFILES["paper"]
    made = paper.of({"evaluations": 7, "windows": 9})
    assert (made.evaluations, made.n_targets, made.trials) == (7, 9, paper.trials)
    assert made.file == "paper-evaluations_7-windows_9"
    assert paper.of({}).file == "paper"
    assert set(BUDGETS.values()) <= set(Profile.__dataclass_fields__)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"evaluation": 5}, "did you mean 'evaluations'"),
        ({"trials": 0}, "1 or more"),
        ({"trials": 2.5}, "whole number"),
    ],
)
def test_a_budget_that_is_none_is_refused(budget, message) -> None:
    with pytest.raises(ValueError, match=message):
        PROFILES["smoke"].of(budget)


def test_every_row_of_an_attack_has_the_seconds_that_it_took() -> None:
    def run() -> list[Row]:
        time.sleep(0.05)
        return [Row("privacy", "a", "A1", "T1", "", "", "hybrid", "f", 0, m, "higher", 1, 0, "") for m in ("r", "nmse")]

    first, second = Case("a", run).timed()
    assert first.seconds == second.seconds >= 0.05


def test_rows_of_another_budget_are_filed_apart_and_name_what_was_asked(tmp_path, monkeypatch) -> None:
    run = made_run(tmp_path, monkeypatch, "federation.rounds=2")
    ask = ["attack", str(run), "--only", "linear_probe/T1", "--cache", str(tmp_path / "cache"), "--json"]
    rows = {}
    for budget in ([], ["--budget", "windows=8", "--budget", "resamples=20"]):
        done = RUNNER.invoke(app, [*ask, *budget])
        assert done.exit_code == 0, done.output
        rows[bool(budget)] = max(row["n_rows"] for row in json.loads(done.stdout))
    assert rows[True] < rows[False]
    files = {path.name for path in (run / "attacks").glob("*.jsonl")}
    assert files == {"smoke.jsonl", "smoke-resamples_20-windows_8.jsonl"}
