"""The evasion suite on a finished run: rows beside their trivial change, twins that transfer, checks, and a curve."""

from dataclasses import replace

import pytest

from hcqsfl.recipes.attack import attack
from hcqsfl.recipes.profiles import PROFILES
from hcqsfl.recipes.suites import evasion, evasion_signals
from privacy.made_run import made_run, victim_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield made_run(tmp_path_factory.mktemp("run"), patch)


@pytest.fixture(scope="module")
def rows(run):
    return attack(run, "evasion", "smoke", cache=run.parent / "cache")


def test_every_case_gives_rows_with_their_trivial_change_budget_and_radius_in_units(rows, run) -> None:
    names = {row.attack for row in rows}
    assert set(evasion_signals.ATTACKS) | {"gradient_masking"} == names
    scored = [row for row in rows if "epsilon" in row.facts and row.id == "A13"]
    for row in scored:
        assert row.threat == "T9"
        assert row.baseline_name in ("no change", "noise of the same norm")
        assert row.n_units == 4  # the test people
        assert row.evaluations > 0
    assert any("EDA" in row.facts.get("physical", "") for row in scored)
    refused = [row for row in rows if row.attack == "autopgd_dlr"]
    assert all("three classes" in row.facts["not_applicable"] for row in refused)
    assert {row.knowledge.partition(",")[0] for row in rows if row.arm == "classical"} >= {"transfer from hybrid"}
    assert (run / "attacks" / "evasion-smoke.svg").read_text().count("<path") > 10


def test_pgd_beats_noise_of_the_same_norm_by_an_interval(rows) -> None:
    won = [row for row in rows if row.attack == "pgd" and row.knowledge == "white box, eps 0.2"]
    assert any(row.leaks for row in won if row.metric == "success on windows classified correctly")
    for row in won:
        assert row.gain is not None
        assert row.gain >= 0


def test_the_machine_of_a_circuit_is_attacked_by_those_who_know_it_and_those_who_do_not(rows) -> None:
    found = [row for row in rows if row.id == "A15"]
    assert {row.arm for row in found} == {"hybrid"}
    assert {row.knowledge.partition(",")[0] for row in found} == {
        f"gradients of {who}; {where}"
        for who in ("perfect simulator", "the machine itself")
        for where in ("depolarising 0.1", "64 shots")
    }


def test_a_model_with_hidden_gradients_fails_its_checks(run) -> None:
    """Logits rounded to steps have no slope: PGD finds nothing, and the checks say so."""
    import torch
    from torch import nn

    from hcqsfl.recipes.suites import evasion_checks

    class Rounded(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x):
            logits = self.network(x)
            return torch.round(logits * 20) / 20  # its derivative is zero

    sweep = evasion_signals.sweep_of(victim_of(run), PROFILES["smoke"])
    honest = {row.metric: row.facts["passed"] for row in evasion_checks.rows(sweep)}
    sweep.network, sweep.held = Rounded(sweep.network), {}
    hidden = {row.metric: row.facts["passed"] for row in evasion_checks.rows(sweep)}
    assert honest["gradients are not zero"]
    assert honest["the loss rises along the gradient"]
    assert not hidden["gradients are not zero"]
    assert not hidden["the loss rises along the gradient"]
    assert not hidden["a ball of 20 deviations leaves no accuracy"]


def test_a_finished_suite_is_not_run_again(run, rows) -> None:
    assert attack(run, "evasion", "smoke", cache=run.parent / "cache") == rows
    assert evasion.figures([], synthetic=False) == {}


def test_fewer_windows_and_evaluations_are_kept_apart_and_arms_are_compared(run) -> None:
    ask = {"cache": run.parent / "cache", "only": ["fgsm"], "budget": {"windows": 16, "evaluations": 30}}
    made = attack(run, "evasion", "smoke", **ask)
    assert {row.n_rows for row in made} == {16}
    for kind in ("jsonl", "html", "png"):
        stem = {"jsonl": "", "html": "report-", "png": "evasion-"}[kind]
        assert (run / "attacks" / f"{stem}smoke-evaluations_30-windows_16.{kind}").is_file()
    page = (run / "attacks" / "report-smoke-evaluations_30-windows_16.html").read_text()
    assert "robust balanced accuracy of hybrid minus classical" in page


def test_an_arm_that_the_run_has_not_is_refused(run) -> None:
    with pytest.raises(ValueError, match="no arm of this run is called 'hybird'; did you mean 'hybrid'"):
        attack(run, "evasion", "smoke", cache=run.parent / "cache", arms=["hybird"])


def test_two_trainings_attacked_at_a_time_give_the_rows_of_one_after_the_other(run, rows, tmp_path) -> None:
    import shutil

    other = tmp_path / "run"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("attacks"))
    found = attack(other, "evasion", "smoke", cache=run.parent / "cache", only=["fgsm", "noise"], n_processes=2)
    expected = [row for row in rows if row.attack == "fgsm"]
    assert [replace(row, seconds=0.0) for row in found] == [replace(row, seconds=0.0) for row in expected]
    assert len({row.arm for row in found}) == 2
    lines = (other / "attacks" / "smoke.jsonl").read_text().splitlines()
    assert len(lines) == 2
