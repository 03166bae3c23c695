"""What an attack meets: exactly what crossed, and a truth that belongs to it."""

import pytest
import torch

from hcqsfl.privacy.attack import Budget
from hcqsfl.privacy.observation import as_noise, observe
from hcqsfl.privacy.record import Record, RoundStates
from hcqsfl.recipes.victim import check_disjoint
from privacy.made_run import made_run, victim_of


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield victim_of(made_run(tmp_path_factory.mktemp("run"), patch, "federation.label_sharing=true"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield victim_of(made_run(tmp_path_factory.mktemp("run"), patch))


def test_the_truth_about_a_row_is_the_window_that_crossed(shared) -> None:
    targets, truth, releases = shared.targets(40)
    seen = shared.observe("T1", targets)
    crossed = torch.stack([seen.exchanges[t.exchange].labels[t.row] for t in targets])
    assert torch.equal(crossed, truth.y)
    assert len(releases[0]) == 4 * 2 - 1  # four rounds of two epochs, one of which is the target
    for other in releases[0]:
        assert seen.exchanges[other.exchange].labels[other.row] == truth.y[0]
    assert len(set(truth.subject)) == 3  # drawn evenly over the training subjects: 4 less the one that validates


def test_the_last_client_half_makes_the_smashed_data_of_the_next_round_to_come(kept) -> None:
    """A colluding client sees the global half that made the first batch of each round."""
    _, truth, _ = kept.targets(1)
    seen = kept.observe("T2")
    exchange = next(e for e in seen.exchanges if (e.round, e.step) == (3, 1))
    front = kept.knowledge().make_front()
    front.load_state_dict({k.removeprefix("front."): v for k, v in seen.client_states[2][""].items() if "front" in k})
    index = kept._released[list(seen.exchanges).index(exchange)]
    with torch.no_grad():
        made = front(kept.truth(index).x)
    assert torch.allclose(made, exchange.smashed, atol=1e-6)
    assert truth.x.shape[1:] == (2, 64)


def test_each_threat_model_sees_what_it_may_and_nothing_else(kept) -> None:
    server, colluding, fed = kept.observe("T1"), kept.observe("T2"), kept.observe("T4")
    assert server.exchanges
    assert server.trunk_states
    assert not server.client_states
    assert not server.updates
    assert all(e.labels is None for e in server.exchanges)  # U-shaped
    assert all(e.gradient_features is not None for e in server.exchanges)
    assert sorted(colluding.client_states) == [0, 1, 2, 3, 4]
    assert not fed.exchanges
    assert sorted(fed.updates) == [1, 2, 3, 4]
    assert len(fed.updates[1]) == 3
    asked = kept.observe("T10")
    assert asked.network is None
    assert asked.query is not None
    assert asked.query(kept.truth([0, 1]).x).shape == (2, 2)


def test_noise_has_the_shapes_and_the_moments_but_not_the_data(kept) -> None:
    targets, _, _ = kept.targets(64)
    seen = kept.observe("T1", targets)
    noise = as_noise(seen, 0)
    a, b = seen.stacked(), noise.stacked()
    assert a.shape == b.shape
    assert not torch.equal(a, b)
    assert torch.allclose(a.mean(), b.mean(), atol=0.5)


def test_an_attacker_who_has_the_victims_own_people_is_refused() -> None:
    with pytest.raises(ValueError, match="auxiliary subjects B are among the victims"):
        check_disjoint(["A", "B"], ["B", "C"])


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot do anything"):
        Budget(0)


def test_a_run_without_a_recording_says_which_setting_records(tmp_path, monkeypatch) -> None:
    victim = victim_of(made_run(tmp_path, monkeypatch, "recording.tap=false", "federation.rounds=1"))
    with pytest.raises(FileNotFoundError, match=r"recording.tap=true"):
        victim.observe("T1")


def test_of_halves_that_clients_keep_a_colluder_sees_its_own_and_a_fed_server_none() -> None:
    def round_of(**halves):
        return RoundStates({"client": {k.strip("_"): {"w": torch.tensor(v)} for k, v in halves.items()}}, {}, {})

    kept, shared = Record([], {1: round_of(a=1.0, b=2.0)}), Record([], {1: round_of(_=3.0)})
    assert list(observe(kept, "T2", label_sharing=False).client_states[1]) == ["a"]
    for threat in ("T4", "T5"):
        assert not observe(kept, threat, label_sharing=False).client_states
        assert observe(shared, threat, label_sharing=False).client_states[1][""]["w"] == 3.0
