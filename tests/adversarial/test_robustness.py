"""The grid of attacks and defences, from a config to its table, and the suite on a finished run."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from hcqsfl import build
from hcqsfl import config as settings
from hcqsfl.adversarial.detection.watch import Screened
from hcqsfl.cli import app
from hcqsfl.federated import aggregation
from hcqsfl.federated.update import Undecided, Update
from hcqsfl.recipes.poisoned import HONEST, Scene, Shield, Shot, catalogue
from hcqsfl.recipes.train import train
from privacy.made_run import CONFIG, write_table

QUICK = ["federation.rounds=2", "federation.local_epochs=1", "recording.tap=false", "trunk.kind='classical'"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robustness")
    write_table(folder / "data" / "table", people=12)
    (folder / "c.toml").write_text(CONFIG.replace('only = ["P1+P2+P6+P8"]\n', ""))
    return folder


def scene(home, monkeypatch, *overrides: str) -> Scene:
    monkeypatch.setenv("HCQSFL_DATA", str(home / "data"))
    torch.set_num_threads(1)
    config = settings.load(home / "c.toml", [*QUICK, *overrides])
    windows = build.windows(config, home / "cache")
    fold = build.make_folds(config, windows)[0]
    arm = build.Arm("classical", "classical", config.federation.protocol)
    return Scene(config, arm, 0, build.prepare(config, windows, fold), windows.sfreq, 100)


def test_a_grid_is_run_cell_by_cell_once(home, monkeypatch) -> None:
    monkeypatch.setenv("HCQSFL_DATA", str(home / "data"))
    command = [
        "robustness",
        str(home / "c.toml"),
        "--suite",
        "poisoning",
        "--out",
        str(home / "grid"),
        "--cache",
        str(home / "cache"),
    ]
    command += [part for override in QUICK for part in ("--set", override)]
    command += ["--attack", "sign flip", "--attack", "backdoor, patch", "--share", "0.4", "--defence", "none"]
    first = CliRunner().invoke(app, [*command, "--rule", "fedavg", "--json"])
    assert first.exit_code == 0, first.output
    rows = json.loads(first.stdout)
    assert [(row["attack"], row["metric"]) for row in rows] == [
        ("no attack", "balanced_accuracy"),
        ("sign flip", "balanced_accuracy"),
        ("backdoor, patch", "balanced_accuracy"),
        ("backdoor, patch", "attack success rate"),
    ]
    honest, flipped, door, success = rows
    assert honest["facts"]["n_attackers"] == 0
    assert honest["gain"] == 0.0  # the honest run beside itself
    assert flipped["facts"]["n_attackers"] == 2
    assert flipped["gain"] == pytest.approx(flipped["baseline"] - flipped["score"])
    assert (door["id"], success["threat"], success["better"]) == ("A12", "T8", "higher")
    assert set(flipped["facts"]["recall"]) == {"rest", "stress"}
    kept = (home / "grid" / "poisoning-smoke.jsonl").read_text()
    again = CliRunner().invoke(app, [*command, "--rule", "fedavg", "--rule", "bulyan"])
    assert again.exit_code == 0, again.output
    assert "Poisoning by 40% of the clients" in again.output
    grown = (home / "grid" / "poisoning-smoke.jsonl").read_text()
    assert grown.startswith(kept)
    refused = [json.loads(line)["rows"][0] for line in grown.splitlines()[3:]]
    assert "needs at least 11 clients" in refused[1]["facts"]["not_applicable"]
    for name in ("poisoning.csv", "drop-classical.png", "success-classical.png"):
        assert (home / "grid" / name).stat().st_size > 500


def test_a_finished_run_is_poisoned_from_the_command_line(home, monkeypatch) -> None:
    monkeypatch.setenv("HCQSFL_DATA", str(home / "data"))
    config = settings.load(home / "c.toml", [*QUICK, "evaluation.controls=[]"])
    run = home / "run"
    train(config, run, cache=home / "cache")
    command = ["attack", str(run), "--suite", "poisoning", "--cache", str(home / "cache")]
    found = CliRunner().invoke(app, [*command, "--json"])
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)
    assert [row["attack"] for row in rows] == [
        "no attack", "label flip", "sign flip", "min-max", "AGR-tailored", "gradient reversal", "backdoor, patch",
        "backdoor, patch",
    ]  # fmt: skip
    assert {row["suite"] for row in rows} == {"poisoning"}
    assert all(row["gain"] is not None and row["facts"]["rounds_scored"] == [2, 2] for row in rows)
    assert rows[2]["gain"] > 0 == rows[0]["gain"]
    kept = (run / "attacks" / "smoke.jsonl").read_text()
    again = CliRunner().invoke(app, [*command, "--only", "sign flip"])
    assert again.exit_code == 0, again.output
    assert "sign flip" in again.output
    assert (run / "attacks" / "smoke.jsonl").read_text() == kept
    assert "AGR-tailored" in (run / "attacks" / "report-smoke.html").read_text()


def test_the_last_rounds_are_scored_and_not_the_last_alone(home, monkeypatch) -> None:
    longer = scene(home, monkeypatch, "federation.rounds=9")
    (row,) = longer.run(Shot("flip", "label_flip"), 0.4, Shield("fedavg"))
    assert row.facts["rounds_scored"] == [7, 9]
    assert len(row.facts["by_round"]) == 3
    assert row.score == pytest.approx(sum(row.facts["by_round"]) / 3)
    lost = row.facts["clients"]
    assert lost["low"] <= lost["lost"] <= lost["high"] <= lost["most"] + 1e-9


@pytest.mark.parametrize("protocol", ["splitfed_v2", "splitfed_v3"])
def test_attackers_who_wait_for_a_round_find_what_honest_training_left_there(home, monkeypatch, protocol) -> None:
    options = ("federation.rounds=4", f"federation.protocol='{protocol}'")
    late = replace(scene(home, monkeypatch, *options), start=3)
    (patient,) = late.run(HONEST, 0.0, Shield())
    (whole,) = scene(home, monkeypatch, *options).run(HONEST, 0.0, Shield())
    assert patient.score == whole.score  # bit for bit: nobody attacked
    assert (patient.facts["attacked_from"], patient.facts["recall"]) == (3, whole.facts["recall"])
    lone, _ = late.run(Shot("flip", "backdoor", {"target": 0}), 0.4, Shield())
    assert lone.facts["n_attackers"] == 2
    with pytest.raises(ValueError, match="must start in round 4 or before"):
        replace(late, start=5)


def test_what_cannot_be_is_a_row_that_says_why(home, monkeypatch) -> None:
    relayed = scene(home, monkeypatch, "federation.protocol='sequential'")
    for shot, shield, why in (
        (Shot("alie", "alie"), Shield("fedavg"), "alie has no place to act"),
        (Shot("flip", "label_flip"), Shield("median"), "aggregates nothing"),
        (Shot("flip", "label_flip"), Shield("fedavg", detector=True), "aggregates nothing"),
    ):
        (row,) = relayed.run(shot, 0.4, shield)
        assert why in row.facts["not_applicable"]
        assert row.score is None
    copies = scene(home, monkeypatch, "federation.protocol='splitfed_v1'")
    (row,) = copies.run(HONEST, 0.0, Shield("fedavg", guard="norm"))
    assert "splitfed_v1 has none" in row.facts["not_applicable"]


def test_detector_and_guard_report_whom_they_stopped(home, monkeypatch) -> None:
    wide = scene(home, monkeypatch, "federation.rounds=6")
    (row,) = wide.run(Shot("noise", "gaussian", {"scale": 30.0}), 0.2, Shield("fedavg", detector=True, guard="norm"))
    assert row.facts["n_attackers"] == 1
    assert row.facts["detection"] == 1.0
    assert row.facts["quarantined"] == list(wide.malicious(0.2))
    assert row.defence == "fedavg + detector + guard"


def test_who_foresees_a_detector_does_not_move_it(home, monkeypatch) -> None:
    wide = scene(home, monkeypatch, "federation.rounds=6")
    (row,) = wide.run(Shot("tailored", "agr_tailored", {"n_gammas": 3}), 0.2, Shield("fedavg", detector=True))
    assert "not_applicable" not in row.facts
    assert 0 <= row.facts["detection"] <= 1


def test_unknown_parts_of_a_grid_are_refused_by_name(home, monkeypatch) -> None:
    monkeypatch.setenv("HCQSFL_DATA", str(home / "data"))
    command = [
        "robustness",
        str(home / "c.toml"),
        "--suite",
        "poisoning",
        "--out",
        str(home / "other"),
        "--cache",
        str(home / "cache"),
    ]
    for option, value, message in (
        ("--suite", "poisn", "did you mean 'poisoning'"),
        ("--attack", "label flop", "did you mean 'label flip'"),
        ("--rule", "medain", "did you mean 'median'"),
        ("--defence", "gard", "did you mean 'guard'"),
        ("--share", "0.6", "must be in"),
    ):
        found = CliRunner().invoke(app, [*command, option, value])
        assert isinstance(found.exception, ValueError)
        assert message in str(found.exception)


def test_screening_before_a_mean_is_the_mean_weighted_by_trust() -> None:
    state = {"w": torch.zeros(4)}
    updates = [Update(f"c{i}", {"w": torch.randn(4)}, 0, 10 + i) for i in range(5)]
    trust = {"c0": 1.0, "c1": 0.0, "c2": 1.0, "c3": 1.0, "c4": 0.0}
    screened = Screened(aggregation.make("fedavg"), lambda state, updates: trust)
    weighted = aggregation.make("trust_weighted", trust=trust, by_examples=True)
    torch.testing.assert_close(screened(state, updates)["w"], weighted(state, updates)["w"])
    nobody = Screened(aggregation.make("fedavg"), lambda state, updates: dict.fromkeys(trust, 0.0))
    with pytest.raises(Undecided, match="none of the 5 clients"):
        nobody(state, updates)


def test_the_catalogue_fits_rows_of_a_table_and_signals() -> None:
    for n_times, triggers in ((1, {"rare_value"}), (64, {"patch", "sinusoid"})):
        shots = catalogue(("attack", "normal"), n_times)
        assert len({shot.label for shot in shots}) == len(shots)
        assert {shot.options["trigger"] for shot in shots if "backdoor" in shot.attack} == triggers
        assert all(shot.options["target"] == 1 for shot in shots if "backdoor" in shot.attack)
