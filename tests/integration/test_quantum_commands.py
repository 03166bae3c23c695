"""The commands about circuits, noise and detection, as a user types them, on a small run."""

import csv
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hcqsfl import config as settings
from hcqsfl.cli import app, guarded
from hcqsfl.evaluation.result import Result
from hcqsfl.federated import checkpoint
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.train import train
from made_people import settings_text, write_table

CONFIG = settings_text(
    "Seven made-up people",
    federation={"rounds": 3},
    evaluation={"seeds": [0, 1], "controls": ["classical"], "references": []},
)

TRUST = (
    "federation.aggregator=trust_weighted",
    'federation.aggregator_options={detector = "quantum_ocsvm", false_alarms = 0.1, calibration_seeds = [7, 8]}',
)

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_table(folder / "data" / "table", 7, stress=1.2, person=0.1, noise=0.5)
    (folder / "c.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HCQSFL_DATA", str(folder / "data"))
        train(settings.load(folder / "c.toml"), folder / "run", cache=folder / ".cache" / "hcqsfl")
    return folder


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("HCQSFL_DATA", str(home / "data"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(home)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = guarded(lambda: app(list(arguments), standalone_mode=False))
        told = capsys.readouterr()
        return status, " ".join(told.out.split()), told.err  # tables break lines where they like

    return run


def test_a_noise_sweep_starts_at_the_score_of_the_run(cli: Cli, home: Path) -> None:
    status, out, err = cli("noise", "run", "--kind", "depolarising", "--strength", "0.75", "--shots", "4096", "--json")
    assert status == 0, err
    perfect, ruined, shots = json.loads(out)["points"]
    scored = Result.load(home / "run" / "result.json").arms[0].metrics["macro_f1"].value
    assert perfect["score"]["value"] == pytest.approx(scored, abs=1e-9)
    assert ruined["score"]["value"] < perfect["score"]["value"]
    assert abs(shots["score"]["value"] - scored) < 0.2
    assert {path.suffix for path in (home / "run" / "noise").iterdir()} == {".csv", ".json", ".svg", ".png"}
    status, out, _ = cli("noise", "run", "--kind", "readout", "--strength", "0.1", "--shots", "64", "--rows", "10")
    assert status == 0
    assert "10 test rows, 2 seed(s)" in out


@pytest.mark.skipif(importlib.util.find_spec("qiskit_aer") is None, reason="qiskit-aer is not installed")
def test_the_trained_layer_runs_on_aer_and_says_how_far_it_is_away(cli: Cli) -> None:
    status, out, err = cli("circuit", "run", "run", "--rows", "4", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert (len(found["ours"]), found["observables"]) == (4, ["Z0", "Z1", "Z2"])
    assert found["largest"] < 1e-10
    status, out, _ = cli("circuit", "run", "run", "--training", "hybrid/1/P2", "--shots", "400")
    assert status == 0
    assert "by chance" in out


def test_circuits_are_diagnosed_into_a_table_and_a_figure(cli: Cli, home: Path) -> None:
    small = ("--samples", "10", "--pairs", "50", "--fisher", "3", "--layers", "1")
    sizes = ("--qubits", "2", "--qubits", "3")
    status, out, err = cli("circuit", "diagnose", "hqsl", "basic_entangler", *sizes, *small, "--out", "diagnosed")
    assert status == 0, err
    assert "one qubit more multiplies" in out
    assert "Left out: circuit hqsl has 2 qubits, not 3" in out
    with (home / "diagnosed" / "diagnostics.csv").open() as file:
        assert [row["circuit"] for row in csv.DictReader(file)] == ["hqsl", "basic_entangler", "basic_entangler"]
    assert (home / "diagnosed" / "diagnostics.png").stat().st_size > 0
    status, out, _ = cli("circuit", "diagnose", "hqsl", "--qubits", "2", *small, "--out", "diagnosed", "--json")
    assert json.loads(out)["found"][0]["name"] == "hqsl"


def test_intrusions_are_detected_by_a_config(cli: Cli, home: Path) -> None:
    asked = ("--normal", "rest", "--features", "2", "--false-alarms", "0.1")
    some = ("--detector", "quantum_ocsvm", "--detector", "mahalanobis")
    allow = ("--set", 'split.allow_leaks=["single_column:EDA"]')
    status, out, err = cli("detect", "intrusions", "c.toml", *asked, *some, *allow, "--out", "found")
    assert status == 0, err
    assert "quantum one-class SVM, fidelity" in out
    assert "AUROC difference" in out
    with (home / "found" / "detection.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 4
    assert all(float(row["auroc"]) > 0.7 for row in table if row["features"] == "reduced")


def test_label_flippers_are_counted_over_all_rounds_by_a_config(cli: Cli, home: Path) -> None:
    asked = (
        "--attacker",
        "P4",
        "--detector",
        "mahalanobis",
        "--false-alarms",
        "0.1",
        "--calibrate",
        "7",
        "--calibrate",
        "8",
    )
    many = ("--set", "federation.local_epochs=4", "--set", "training.learning_rate=0.03")
    status, out, err = cli("detect", "clients", "c.toml", *asked, *many, "--out", "clients", "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["setting"]["attackers"] == ["P4"]
    assert len(told["setting"]["clients"]) == 5  # one is tested, one validates
    (found,) = told["found"]
    assert found["rates"]["detection"]["total"] == 2 * 3  # seeds, rounds
    assert found["rates"]["false_positives"]["total"] == 2 * 3 * 4
    assert found["features"] == 7
    assert {path.suffix for path in (home / "clients").glob("clients.*")} == {".csv", ".json", ".svg", ".png"}


class Stop(Exception):
    """What an interrupted run ends in."""


def stop_after(n: int) -> Progress:
    done = iter(range(n))

    def step(job: str, row: object) -> None:
        if next(done, None) is None:
            raise Stop

    return Progress(step=step)


def test_trust_by_a_detector_is_told_in_the_rows_and_survives_an_interruption(cli: Cli, home: Path) -> None:
    overrides = [*TRUST, "evaluation.seeds=[0]", "federation.protocol=splitfed_v1"]
    chosen, cache = settings.load(home / "c.toml", overrides), home / "cache"
    train(chosen, home / "trusted", cache=cache)
    with pytest.raises(Stop):
        train(chosen, home / "cut", cache=cache, progress=stop_after(1))
    train(chosen, home / "cut", cache=cache, resume=True)
    ends = [next((home / run / "jobs/hybrid/0/P2").glob("*.safetensors")) for run in ("trusted", "cut")]
    first, second = (checkpoint.load(path)[0] for path in ends)
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)
    assert first["memory/watch/calibration/5"].shape == (5, 7)  # two seeds of three rounds, five clients
    judged, verdicts = json.loads(first["memory/watch/verdicts"].numpy().tobytes())
    assert (judged, [v["number"] for v in verdicts]) == (0, [1, 2, 3])
    rows = [json.loads(line) for line in (home / "trusted/jobs/hybrid/0/P2/metrics.jsonl").read_text().splitlines()]
    told = [{e["client"] for e in row["events"] if e["kind"] == "flagged"} for row in rows]
    assert told == [set(v["flagged"]) for v in verdicts]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("circuit", "draw", "basic_entangler", "--qubits", "40"), r"40 qubits .* need .* GiB"),
        (("circuit", "draw", "ipq"), "no circuit is called 'ipq'; did you mean 'iqp'"),
        (("circuit", "export", "iqp", "--out", "absent/x.qasm"), "cannot be written to absent/x.qasm"),
        (("circuit", "diagnose", "hqls"), "did you mean 'hqsl'"),
        (("circuit", "run", "iqp", "--shots", "0"), "0 shots were asked for"),
        (("circuit", "run", "run", "--training", "classical"), "has no circuit"),
        (("circuit", "run", "run", "--training", "hybrid/first"), "ARM/SEED/FOLD"),
        (("noise", "absent"), "no run in absent"),
        (("noise", "run", "--arm", "hybrd"), r"no training hybrd.*it has: classical"),
        (("noise", "run", "--arm", "classical"), "no quantum layer"),
        (("noise", "run", "--shots", "-1"), "-1 shots were asked for"),
        (("noise", "run", "--strength", "1.5"), r"probability in \[0, 1\], not 1.5"),
        (("noise", "run", "--kind", "dephasing"), "no kind of noise is called 'dephasing'"),
        (("detect", "intrusions", "c.toml"), "no class is called 'normal'"),
        (("detect", "intrusions", "c.toml", "--detector", "svm"), "no detector is called 'svm'"),
        (("detect", "clients", "c.toml", "--attacker", "P9"), "no client is called 'P9'"),
        (("detect", "clients", "c.toml", "--share", "0.7"), "share of 0.7 of the clients"),
        (("detect", "clients", "c.toml", "--attack", "flip"), "'flip'"),
        (("detect", "clients", "c.toml", "--calibrate", "0"), "seed 0 is both calibrated on and judged"),
        (("detect", "clients", "c.toml", "--set", "federation.protocol=sequential"), "sequential averages nothing"),
    ],
)
def test_bad_input_is_one_clear_error(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    allow = ("--set", 'split.allow_leaks=["single_column:EDA"]') if arguments[0] == "detect" else ()
    status, _, err = cli(*arguments, *allow)
    assert status == 1
    (line,) = err.strip().splitlines()
    assert re.search(f"^hcqsfl: .*{message}", line)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (TRUST[:1], "trust_weighted needs a detector"),
        ((TRUST[0], "federation.aggregator_options={detectr = 1}"), "did you mean 'detector'"),
        ((TRUST[0], 'federation.aggregator_options={detector = "svm"}'), "no detector is called 'svm'"),
        ((*TRUST, "evaluation.seeds=[7]"), "seed 7 is both calibrated on and evaluated"),
        ((*TRUST, "federation.protocol=sequential"), "sequential averages nothing"),
        ((*TRUST, "federation.protocol=splitfed_v1", "federation.buffer_size=2"), "buffer_size makes none"),
        (("trunk.circuit_options={observables = ['Q0']}",), "Q0"),
        (("trunk.n_qubits=40",), "40 qubits .* need .* GiB"),
    ],
)
def test_impossible_settings_are_one_clear_error(cli: Cli, overrides: tuple[str, ...], message: str) -> None:
    sets = [word for override in overrides for word in ("--set", override)]
    status, _, err = cli("train", "c.toml", "--out", "refused", "--overwrite", *sets)
    assert status == 1
    (line,) = err.strip().splitlines()
    assert re.search(f"^hcqsfl: .*{message}", line)
