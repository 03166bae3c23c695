"""Two runs are compared under the same attacks: on the same people, paired, or with a word on why that cannot be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel
from typer.testing import CliRunner

from hcqsfl.cli import app
from hcqsfl.evaluation.attack_rows import RowFile
from hcqsfl.recipes.compare_attacks import compare_attacks
from privacy.made_run import CONFIG
from privacy.test_pooled_rows import row

PEOPLE = [f"P{i}" for i in range(8)]


def attacked(folder: Path, values: np.ndarray, fold: str = "f", defence: str = "none", changed: str = "") -> Path:
    """Write a run whose hybrid trunk was attacked once, with so much leaking of each person."""
    (folder / "attacks").mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG.replace(*changed.split("|")) if changed else CONFIG)
    made = replace(row(dict(zip(PEOPLE, values, strict=True)), fold), defence=defence)
    RowFile(folder / "attacks" / "smoke.jsonl").add("a", [made])
    return folder


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(0)
    shared = rng.normal(0.5, 0.3, len(PEOPLE))  # people differ far more than runs do
    ours, theirs = shared - 0.2 + rng.normal(0, 0.05, len(PEOPLE)), shared
    defended = attacked(tmp_path / "defended", ours, defence="lipschitz")
    return defended, attacked(tmp_path / "open", theirs), ours, theirs


def test_a_defended_run_is_compared_with_an_undefended_one_as_by_the_paired_t_test(runs) -> None:
    defended, undefended, ours, theirs = runs
    done = CliRunner().invoke(app, ["compare-attacks", str(defended), str(undefended), "--only", "a", "--json"])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    reference = ttest_rel(ours, theirs).confidence_interval()
    assert found["trunk"] == "hybrid"
    assert found["scores"] == pytest.approx([ours.mean(), theirs.mean()])
    assert found["value"] == pytest.approx((ours - theirs).mean())
    assert (found["low"], found["high"]) == pytest.approx((reference.low, reference.high), abs=1e-5)


def test_the_table_names_both_scores_and_their_difference(runs) -> None:
    defended, undefended, ours, theirs = runs
    done = CliRunner().invoke(app, ["compare-attacks", str(defended), str(undefended)])
    for number in (f"{ours.mean():.3f}", f"{theirs.mean():.3f}", f"{(ours - theirs).mean():+.3f}"):
        assert number in done.stdout
    assert "1 training(s) each, 8 subjects" in " ".join(done.stdout.split())


def test_runs_that_cannot_be_paired_are_refused_with_the_reason(runs, tmp_path) -> None:
    defended, undefended, ours, _ = runs
    longer = attacked(tmp_path / "longer", ours, changed="seconds = 8.0|seconds = 4.0")
    elsewhere = attacked(tmp_path / "elsewhere", ours, fold="g")
    one_fold = attacked(tmp_path / "one_fold", ours, changed='only = ["P1+P2+P6+P8"]|only = []')
    untold = attacked(tmp_path / "untold", ours)
    (untold / "attacks" / "smoke.jsonl").unlink()
    assert compare_attacks(defended, one_fold)["hybrid"][0].value == 0
    for other, arms, message in (
        (longer, [], r"not test the same windows: windows.seconds is 8.0 and 4.0"),
        (elsewhere, [], r"no attack was scored in both.*defended has hybrid/0/f; .*elsewhere has hybrid/0/g"),
        (untold, [], r"untold has no rows of attacks by smoke \(there are: none\); run hcqsfl attack first"),
        (tmp_path / "nowhere", [], r"nowhere is no run"),
        (undefended, ["hybird"], r"no attacked arm of the run is called 'hybird'; did you mean 'hybrid'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            compare_attacks(defended, other, arms=arms)
