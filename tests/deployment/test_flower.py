"""Flower's messages around our turns, and our rules as its strategy."""

from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, Metadata, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod
from flwr.serverapp.strategy import FedAvg, FedMedian
from flwr.supercore.task_identity import TaskIdentity

from deployment.federations import Home
from deployment.grids import InProcess, contexts
from hcqsfl.deployment import record
from hcqsfl.deployment.flower import client_app
from hcqsfl.deployment.flower.strategy import AggregationStrategy
from hcqsfl.deployment.flower.turns import FlowerRounds, from_records, to_records
from hcqsfl.deployment.journal import Journal, read
from hcqsfl.federated.aggregation import make


def test_a_run_whose_turns_are_flower_messages_is_the_simulated_run_bit_for_bit(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what Flower tells a ServerApp's process of itself
    for name, value in (("_task_id", 1), ("_run_id", 1), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)
    home.simulate("there")
    config = home.config()
    with home.serving(config) as (plane, address):
        grid = InProcess(contexts(home, sorted(plane.clients), str(address)))
        from hcqsfl.deployment.serve import orchestrate
        from hcqsfl.recipes.progress import Progress

        rounds = FlowerRounds(grid, plane.journal)
        orchestrate(config, home.path / "here", plane, rounds, progress=Progress(), cache=home.path / "cache")
    home.assert_same("there", "here")
    assert grid.sent == 3 + 2 * 3  # who are you, then two rounds of three
    for device in client_app._devices.values():
        device.connection.close()
    client_app._devices.clear()


def test_a_turn_survives_its_way_through_flowers_records() -> None:
    words = {
        "arm": "hybrid",
        "seed": 0,
        "fold": "P2",
        "round": 3,
        "attempt": 1,
        "loss": 0.5,
        "steps": 2,
        "num_examples": 7,
    }
    data = record.pack(words, {"state/front.w": torch.randn(2, 3), "optimizer/0/step": torch.tensor(2.0)})
    found_words, found = record.unpack(from_records(to_records(data, reply=True)))
    assert found_words == words
    assert {k: t.numpy().tobytes() for k, t in found.items()} == {
        k: t.numpy().tobytes() for k, t in record.unpack(data)[1].items()
    }
    with pytest.raises(ValueError, match="no turn"):
        from_records(RecordDict())


def replies(states: list[dict], sizes: list[int]) -> list[Message]:
    found = []
    for node, (state, n) in enumerate(zip(states, sizes, strict=True), start=1):
        content = RecordDict({"arrays": ArrayRecord(state), "metrics": MetricRecord({"num-examples": n, "loss": 1.0})})
        metadata = Metadata(1, "m", node, 0, "", "", 0.0, 10.0, MessageType.TRAIN)
        found.append(Message(content=content, metadata=metadata))
    return found


@pytest.mark.parametrize(("rule", "theirs"), [("fedavg", FedAvg()), ("median", FedMedian())])
def test_our_rule_as_a_strategy_is_flowers_own_strategy(rule: str, theirs) -> None:
    torch.manual_seed(0)
    states = [{"w": torch.randn(3, 2), "b": torch.randn(2)} for _ in range(5)]
    sizes = [1, 2, 3, 4, 10]
    ours = AggregationStrategy(make(rule))
    ours._state = {"w": torch.zeros(3, 2), "b": torch.zeros(2)}
    got, metrics = ours.aggregate_train(1, replies(states, sizes))
    expected, _ = theirs.aggregate_train(1, replies(states, sizes))
    for name, tensor in expected.to_torch_state_dict().items():
        torch.testing.assert_close(got.to_torch_state_dict()[name], tensor)
    assert metrics["loss"] == 1.0


def test_an_unfit_update_is_left_out_and_a_rule_that_cannot_decide_leaves_the_state() -> None:
    good, bad = {"w": torch.ones(2)}, {"w": torch.tensor([1.0, float("nan")])}
    ours = AggregationStrategy(make("fedavg"))
    ours._state = {"w": torch.zeros(2)}
    got, _ = ours.aggregate_train(1, replies([good, bad, {"w": torch.ones(3)}], [1, 1, 1])[:2])
    assert torch.equal(got.to_torch_state_dict()["w"], torch.ones(2))
    krum = AggregationStrategy(make("krum", n_attackers=1))
    krum._state = {"w": torch.zeros(2)}
    assert krum.aggregate_train(1, replies([good], [1]))[0] is None


def test_flowers_differential_privacy_mod_acts_on_the_clients_half() -> None:
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"arrays": ArrayRecord({"w": torch.full((4,), 100.0)})}), reply_to=message)

    app = ClientApp()
    app.train(mods=[LocalDpMod(1.0, 1.0, 10.0, 1e-5)])(train)
    content = RecordDict({"arrays": ArrayRecord({"w": torch.zeros(4)}), "config": ConfigRecord()})
    message = Message(content=content, metadata=Metadata(1, "m", 0, 1, "", "", 0.0, 10.0, MessageType.TRAIN))
    reply = app(message, Context(1, 1, {}, RecordDict(), {}))
    assert reply.content["arrays"].to_torch_state_dict()["w"].norm() < 10  # clipped to 1, and noised


def test_a_node_that_is_gone_is_a_client_that_is_lost(tmp_path: Path) -> None:
    rounds = FlowerRounds(InProcess({}), Journal(tmp_path / "log"))
    assert not rounds.wait_for("a", 0.0)
    with pytest.raises(ConnectionError, match="client a has no node"):
        rounds.ask("a", b"", 0.0)


def named(*names: str) -> dict[int, Context]:
    return {i: Context(1, i, {"client": name} if name else {}, RecordDict(), {}) for i, name in enumerate(names, 1)}


def test_a_slow_node_is_asked_once_and_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    grid = InProcess(named("a", "b"))
    grid.mute = {2}
    rounds = FlowerRounds(grid, Journal(tmp_path / "log"))
    assert rounds.wait_for("a", 0.0)
    assert not any(rounds.wait_for("b", 0.0) for _ in range(5))
    assert grid.sent == 2
    grid.mute = set()
    assert rounds.wait_for("b", 0.0)
    assert grid.sent == 2


def test_a_node_that_is_no_client_or_one_that_is_there_is_refused_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    grid = InProcess(named("a", "a", ""))
    rounds = FlowerRounds(grid, Journal(tmp_path / "log"))
    assert rounds.wait_for("a", 0.0)
    assert not any(rounds.wait_for("c", 0.0) for _ in range(3))
    assert rounds.nodes() == {"a": 1}
    assert grid.sent == 3
    told = [line["reason"] for line in read(tmp_path / "log") if line["event"] == "refused"]
    assert told == ["twice", "node"]
