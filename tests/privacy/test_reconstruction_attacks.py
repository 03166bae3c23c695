"""Reconstruction attacks: each finds what is there, none finds anything in noise, and knowing more never hurts."""

import numpy as np
import pytest

from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget
from hcqsfl.privacy.few_labels import renamed
from hcqsfl.privacy.metrics.labels import leak_auc
from hcqsfl.privacy.metrics.reconstruction import score
from hcqsfl.privacy.observation import NotApplicable, as_noise
from privacy.made_run import made_run, victim_of

ALONE = ("evaluation.without_control=true", "evaluation.controls=[]")


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A training cut after the first convolution, where half of the samples of eight filters cross."""
    with pytest.MonkeyPatch.context() as patch:
        yield victim_of(made_run(tmp_path_factory.mktemp("run"), patch, "model.cuts=[1]", *ALONE))


def reconstructed(victim, name: str, threat: str, budget: int, *, noise: bool = False, trials: int = 1, **known):
    """Return metric to (score, best trivial score) of the pulse, the second channel."""
    targets, truth, _ = victim.targets(48)
    seen = victim.observe(threat, targets)
    knowledge = victim.knowledge(**known)
    spent = Budget(budget, trials)
    made = attacks.make(name).run(as_noise(seen, 0) if noise else seen, knowledge, spent, 0)
    assert spent.spent <= budget
    assert made.windows.shape == truth.x.shape
    found = score(
        made.windows.numpy()[:, 1:], truth.x.numpy()[:, 1:], truth.y.numpy(), knowledge.x.numpy()[:, 1:],
        knowledge.y.numpy(), knowledge.n_outputs, channels=("PPG",), sfreq=knowledge.sfreq,
    )  # fmt: skip
    best = {"higher": max, "lower": min}
    return {
        s.metric: (float(s.own.mean()), best[s.better](float(b.mean()) for b in s.baselines.values())) for s in found
    }


def test_a_colluding_client_lets_the_server_read_the_pulse(cut) -> None:
    found = reconstructed(cut, "decoder_inversion", "T2", 150)
    assert found["r"][0] > 0.8 > 0.2 > found["r"][1]
    assert found["nmse"][0] < 0.5 * found["nmse"][1]
    assert found["heart_rate_error"][0] < 0.5 * found["heart_rate_error"][1]
    nothing = reconstructed(cut, "decoder_inversion", "T2", 150, noise=True)
    assert abs(nothing["r"][0]) < 0.1
    assert nothing["nmse"][0] > nothing["nmse"][1]
    assert nothing["heart_rate_error"][0] > nothing["heart_rate_error"][1]


def test_the_server_alone_reads_the_pulse_but_for_its_place_in_time(cut) -> None:
    """A shadow front is as good as the clients' but for a shift, so that the rate leaks, if not the beat."""
    for name, budget in (("decoder_inversion", 300), ("fora", 300), ("sdar", 250), ("unsplit", 1000)):
        found = reconstructed(cut, name, "T1", budget)
        assert found["r_lagged"][0] > found["r_lagged"][1] + 0.1, (name, found)
        nothing = reconstructed(cut, name, "T1", budget // 4, noise=True)
        assert nothing["r_lagged"][0] < nothing["r_lagged"][1] + 0.05, (name, nothing)


def test_sdar_is_tuned_on_a_victim_of_its_own_and_infers_kept_labels(cut) -> None:
    targets, truth, _ = cut.targets(48)
    seen, y = cut.observe("T1", targets), truth.y.numpy()
    spent = Budget(300, 3)
    made = attacks.make("sdar").run(seen, cut.knowledge(), spent, 0)
    assert spent.spent == 300
    tried = made.facts["tried"]
    assert len(tried) == 3
    chosen = min(tried, key=tried.get)
    assert chosen.startswith(f"{made.facts['weights']['simulator']:.3g}, ")
    # which of the two is which, nothing tells but a label of each
    auc = leak_auc(made.labels.numpy(), y)
    known = {int(np.flatnonzero(y == c)[0]): c for c in (0, 1)}
    assert leak_auc(renamed(made.labels.log(), known).numpy(), y) == pytest.approx(max(auc, 1 - auc))
    assert max(auc, 1 - auc) > 0.75
    nothing = attacks.make("sdar").run(as_noise(seen, 0), cut.knowledge(), Budget(80), 0)
    assert abs(leak_auc(nothing.labels.numpy(), y) - 0.5) < 0.2
    # what is tuned on does not depend on whom it is used on
    asked = [cut.observe("T1", cut.targets(n)[0]) for n in (8, 48)]
    first, second = (attacks.make("sdar").run(each, cut.knowledge(), Budget(24, 2), 0).facts["tried"] for each in asked)
    assert first == second


def test_a_search_through_the_clients_front_finds_the_pulse(cut) -> None:
    found = reconstructed(cut, "white_box_optimisation", "T2", 300, trials=2)
    assert found["r"][0] > 0.5 > 0.2 > found["r"][1]
    assert abs(reconstructed(cut, "white_box_optimisation", "T2", 300, noise=True)["r"][0]) < 0.1


def test_to_know_the_clients_front_is_worth_at_least_as_much_as_a_shadow_of_it(cut) -> None:
    white, black = (reconstructed(cut, "decoder_inversion", threat, 200) for threat in ("T2", "T1"))
    assert white["r"][0] > black["r"][0]
    assert white["nmse"][0] < black["nmse"][0]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A training on single rows of a table, whose labels are shared."""
    rows = ("windows.seconds=0.125", "model.front=tabular", "model.front_options={width=16}", "data.options.sfreq=8.0")
    more = (
        "federation.label_sharing=true",
        "federation.batch_size=64",
        "federation.local_epochs=1",
        "training.learning_rate=0.002",
    )
    with pytest.MonkeyPatch.context() as patch:
        yield victim_of(made_run(tmp_path_factory.mktemp("run"), patch, *rows, *more, *ALONE))


def test_rows_of_a_table_are_reconstructed_too(table) -> None:
    targets, truth, _ = table.targets(64)
    knowledge = table.knowledge()
    for name, threat in (("decoder_inversion", "T2"), ("white_box_optimisation", "T2"), ("sdar", "T1"), ("fora", "T1")):
        seen = table.observe(threat, targets)
        made = attacks.make(name).run(seen, knowledge, Budget(300), 0).windows.numpy()
        found = score(
            made, truth.x.numpy(), truth.y.numpy(), knowledge.x.numpy(), knowledge.y.numpy(), knowledge.n_outputs
        )
        assert {s.metric for s in found} == {"nmse", "mse", "exact_match"}
        if threat == "T2":
            assert found[0].own.mean() < 0.8 * min(each.mean() for each in found[0].baselines.values())


def test_an_attack_that_needs_the_clients_front_says_so(table) -> None:
    targets, _, _ = table.targets(4)
    with pytest.raises(NotApplicable, match="needs the front, which T1 has not"):
        attacks.make("white_box_optimisation").run(table.observe("T1", targets), table.knowledge(), Budget(9), 0)
    with pytest.raises(NotApplicable, match="T4 sees no smashed data"):
        attacks.make("decoder_inversion").run(table.observe("T4"), table.knowledge(), Budget(9), 0)
