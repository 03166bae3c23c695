"""The evasion suite end to end on flows in TON_IoT's format: no rule broken; circuits on imperfect machines (A15)."""

from pathlib import Path

import pytest

from hcqsfl import config as settings
from hcqsfl.recipes.attack import attack
from hcqsfl.recipes.profiles import Profile
from hcqsfl.recipes.suites.evasion_flows import EVADED
from hcqsfl.recipes.train import train

CONFIG = Path(__file__).parents[2] / "configs" / "ton_iot_poisoning.toml"
PROFILE = Profile("smoke", 45, 1, 16, 1, 1, ("hybrid",), 1, 100)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    home = tmp_path_factory.mktemp("flows")
    asked = ("data.synthetic=tiny", "trunk.n_qubits=3", "model.n_smashed=3", "federation.n_clients=2",
             "federation.partition=iid", "federation.partition_options={}", "federation.local_steps=30",
             "federation.rounds=3", "training.learning_rate=0.01", "split.allow_leaks=[]", "evaluation.seeds=[0]",
             "evaluation.references=[]", "evaluation.controls=[]", "evaluation.without_control=true")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HCQSFL_DATA", str(home))
        train(settings.load(CONFIG, asked), home / "run", cache=home / "cache")
        yield attack(home / "run", "evasion", PROFILE, cache=home / "cache", only=["capgd"], arms=["hybrid"])


def test_every_machine_is_attacked_by_who_knows_it_and_by_who_does_not(rows) -> None:
    found = [row for row in rows if row.id == "A15"]
    assert {row.knowledge for row in found} == {
        f"gradients of {who}; {where}, eps 1"
        for who in ("perfect simulator", "the machine itself")
        for where in ("depolarising 0.1", "64 shots")
    }
    for row in found:
        assert row.metric == f"{EVADED} on it"
        assert row.baseline_name in ("no change", "random change of the same norm")
        assert row.score is not None
        assert 0 <= row.score <= 1
        assert row.evaluations > 0
    # gradients of a machine with few shots are averaged over eight draws, and paid for
    spent = {row.knowledge.partition(",")[0]: row.evaluations for row in found if "64 shots" in row.knowledge}
    known, unknown = (
        next(n for who, n in spent.items() if name in who) for name in ("the machine itself", "perfect simulator")
    )
    assert known > 4 * unknown


def test_no_flow_breaks_a_rule_and_more_evade_in_a_larger_ball(rows) -> None:
    found = sorted((row for row in rows if row.id == "A14" and row.metric == EVADED), key=lambda r: r.facts["epsilon"])
    assert [row.facts["epsilon"] for row in found] == [0.25, 0.5, 1.0, 2.0]
    assert all(row.facts["flows shown to the model"] > 0 == row.facts["flows that broke a rule"] for row in found)
    assert found[-1].score >= found[0].score
    assert all(row.score >= row.facts["baselines"]["no change"] == 0 for row in found)
