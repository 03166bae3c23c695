"""Several data sets in one federation, from the command line to a report with a row for each."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hcqsfl import config as settings
from hcqsfl.evaluation.result import Result
from hcqsfl.recipes.cross import cross

MEMBER = """
name = "{name}"
[data]
name = "csv_table"
root = "{name}"
options = {{ signal_columns = {columns}, label_column = "state", subject_column = "who", sfreq = 4.0 }}
[windows]
seconds = 4.0
[split]
scheme = "leave_one_subject_out"
[model]
front_options = {{ width = 4, n_layers = 2 }}
"""

CROSS = """
name = "two"
n_smashed = 3
n_features = 4
n_folds = 2
[data_sets]
skin = "skin.toml"
motion = "motion.toml"
[trunk]
n_qubits = 3
n_layers = 1
backend = "fused"
[federation]
rounds = 3
batch_size = 8
[evaluation]
seeds = [0]
controls = ["classical"]
n_resamples = 200
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    for name, columns, states in (
        ("skin", ["EDA"], ["rest", "stress"]),
        ("motion", ["x", "y"], ["sit", "walk", "run"]),
    ):
        frames = [
            pd.DataFrame({c: rng.normal(i, 1, 64) for c in columns} | {"state": state, "who": f"P{person}"})
            for person in range(4)
            for i, state in enumerate(states)
        ]
        (tmp_path / "data" / name).mkdir(parents=True)
        pd.concat(frames).to_csv(tmp_path / "data" / name / "table.csv", index=False)
        (tmp_path / f"{name}.toml").write_text(MEMBER.format(name=name, columns=columns))
    (tmp_path / "cross.toml").write_text(CROSS)
    monkeypatch.setenv("HCQSFL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_data_set_has_its_row_beside_itself_alone(home: Path) -> None:
    results = cross(settings.load_cross(home / "cross.toml"), home / "out", cache=home / "cache")
    assert list(results) == ["skin", "motion"]
    for name, result in results.items():
        assert [arm.name for arm in result.arms] == ["hybrid", "classical", "alone", "random forest"]
        assert len(result.folds) == 2
        assert any("2 of the 4 folds" in note for note in result.notes)
        assert Result.load(home / "out" / name / "result.json") == result
    assert len(results["motion"].classes) == 3
    page = (home / "out" / "report.html").read_text()
    assert "skin, two" in page
    assert "motion, two" in page


def test_an_interrupted_run_goes_on_where_it_was(home: Path) -> None:
    whole = cross(settings.load_cross(home / "cross.toml"), home / "whole", cache=home / "cache")
    cross(settings.load_cross(home / "cross.toml"), home / "cut", cache=home / "cache")
    for predictions in (home / "cut").rglob("predictions.npz"):
        predictions.unlink()
    resumed = cross(settings.load_cross(home / "cross.toml"), home / "cut", cache=home / "cache", resume=True)
    for name in whole:
        assert resumed[name].arms[0].metrics == whole[name].arms[0].metrics


def test_the_command_line_prints_a_table_for_each(home: Path) -> None:
    command = [sys.executable, "-m", "hcqsfl", "cross", "cross.toml", "--out", "out", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert set(json.loads(ended.stdout)) == {"skin", "motion"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("federation.protocol=federated", "have no trunk to share"),
        ("data_sets.motion=nowhere.toml", "there is no config file"),
        ("n_fold=3", "did you mean 'n_folds'"),
        ("federation.label_sharing=true", "share a trunk, not a head"),
    ],
)
def test_what_cannot_be_shared_is_refused(home: Path, override: str, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        cross(settings.load_cross(home / "cross.toml", [override]), home / "out", cache=home / "cache")
