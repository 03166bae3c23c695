"""SecAgg+: Flower's own protocol around our turns, and a server that holds no client's update."""

import base64
import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from Crypto.Cipher import ChaCha20
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.task_identity import TaskIdentity

from deployment.federations import CONFIG, Home
from deployment.grids import InProcess, contexts
from hcqsfl.config import Config, Deployment
from hcqsfl.deployment import turn
from hcqsfl.deployment.flower import client_app, masks, sealed_client
from hcqsfl.deployment.flower.sealed_server import FlowerSealing
from hcqsfl.deployment.flower.turns import FlowerRounds
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.serve import orchestrate
from hcqsfl.deployment.up import Up
from hcqsfl.deployment.worker import Kept
from hcqsfl.federated import checkpoint
from hcqsfl.federated.aggregation import make
from hcqsfl.federated.sealed import SealedAggregator, SecAggPlus
from hcqsfl.federated.update import Undecided, serialise
from hcqsfl.recipes.progress import Progress

WHERE = ("arm", 0, "fold")
SEALED = "federation.secure_aggregation=secaggplus"


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower tells a ServerApp's process of itself."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Nodes:
    """Clients that have each finished a turn and keep its update."""

    def __init__(self, folder: Path, n: int, n_values: int = 500, app: ClientApp = client_app.app, **options) -> None:
        text = CONFIG.replace("[federation]", '[federation]\nsecure_aggregation = "SecAgg+"')
        text += "\n[federation.secure_options]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
        (folder / "c.toml").write_text(text)
        rng = np.random.default_rng(0)
        self.updates = {f"c{i}": rng.normal(0, 0.5, n_values) for i in range(1, n + 1)}
        self.examples = {client: 10 * i for i, client in enumerate(self.updates, start=1)}
        run = {"config": str(folder / "c.toml")}
        self.grid = InProcess(
            {i: Context(1, i, {"client": c}, RecordDict(), run) for i, c in enumerate(self.updates, start=1)}, app
        )
        self.rounds = FlowerRounds(self.grid, Journal(folder / "log"))  # type: ignore[arg-type]
        assert all(self.rounds.wait_for(client, 0) for client in self.updates)
        self.scheme = SecAggPlus(**options)
        self.sealing = FlowerSealing(self.rounds, self.scheme, WHERE, Deployment(rejoin_seconds=1.0))
        self.n_values = n_values
        self.keep()

    def keep(self, number: int = 1) -> None:
        for i, client in enumerate(self.updates, start=1):
            kept = Kept(turn.Where(*WHERE, number, 1), self.updates[client], self.examples[client])
            sealed_client.keep(kept, self.grid.contexts[i])

    def mean(self, *clients: str) -> np.ndarray:
        chosen = clients or tuple(self.updates)
        return np.average([self.updates[c] for c in chosen], axis=0, weights=[self.examples[c] for c in chosen])

    def sum_up(self, number: int = 1):
        return self.sealing(self.examples, self.n_values, number - 1)

    def stop_at(self) -> str:
        with pytest.raises(Undecided) as told:
            self.sum_up()
        return str(told.value)


@pytest.mark.parametrize(("n", "options"), [(3, {}), (5, {"target_range": 2**16}), (7, {"num_shares": 0.5})])
def test_the_sum_opens_to_the_weighted_mean_to_a_step_of_each_client(tmp_path: Path, n: int, options: dict) -> None:
    nodes = Nodes(tmp_path, n, **options)
    mean, summed = nodes.sum_up()
    assert set(summed) == set(nodes.updates)
    off = np.abs(mean - nodes.mean()).max()
    # e.g. 3 clients of 10, 20, 30 windows: 3 steps of 16 / 2**22, over shares of 1/3 + 2/3 + 1
    bound = n * 16 / options.get("target_range", 2**22) / (sum(range(1, n + 1)) / n)
    assert nodes.scheme.error(nodes.examples) == pytest.approx(bound)
    assert bound / 100 < off <= bound
    # the mean of stochastic rounding is what was rounded: no side is favoured
    assert abs((mean - nodes.mean()).mean()) < bound / 4


def test_what_the_server_gets_of_a_client_is_noise_without_the_others(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, 3, n_values=20_000)
    mean, _ = nodes.sum_up()
    got = {}
    for answer in nodes.grid.answers:
        assert all(not len(record) for record in answer.content.array_records.values())  # no array but in the clear one
        asked = answer.content.config_records.get(RECORD_KEY_CONFIGS, ConfigRecord())
        if Key.MASKED_PARAMETERS in asked:
            vectors = [bytes_to_ndarray(data) for data in asked[Key.MASKED_PARAMETERS]]
            got[answer.metadata.src_node_id] = vectors[1]
    assert sorted(got) == [1, 2, 3]
    for subset in ((1,), (2,), (3,), (1, 2), (2, 3), (1, 3)):
        sent = (sum(got[i] for i in subset) % 2**32) / 2**32
        clear = sum(nodes.examples[f"c{i}"] * nodes.updates[f"c{i}"] for i in subset)
        assert np.abs(np.histogram(sent, 8, (0, 1))[0] / len(sent) - 1 / 8).max() < 0.02  # uniform
        assert abs(np.corrcoef(sent, clear)[0, 1]) < 0.03
    assert np.corrcoef(mean, nodes.mean())[0, 1] > 0.999999


def test_the_bytes_that_are_told_are_those_that_cross(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, 5, n_values=3000)
    nodes.sum_up()
    (line,) = (json.loads(text) for text in (tmp_path / "log").read_text().splitlines() if '"sealed"' in text)
    aggregator = SealedAggregator(make("fedavg"), nodes.scheme)
    aggregator.expect(list(nodes.updates))
    up, down = aggregator.wire_bytes({"w": torch.zeros(3000)})
    assert line["bytes_up"] / 5 == pytest.approx(up, rel=0.001)
    assert line["bytes_down"] / 5 == pytest.approx(down - len(serialise({"w": torch.zeros(3000)})), rel=0.01)


@pytest.mark.parametrize("stage", Stage.all())
def test_a_client_lost_at_any_step_is_survived_down_to_the_threshold_and_not_below(tmp_path: Path, stage: str) -> None:
    nodes = Nodes(tmp_path, 4)  # 3 of 4 are needed
    nodes.grid.lost = {2: stage}
    mean, summed = nodes.sum_up()
    # who handed its masked vector in before it was lost is in the sum all the same
    assert set(summed) == ({"c1", "c2", "c3", "c4"} if stage == Stage.UNMASK else {"c1", "c3", "c4"})
    assert (
        np.abs(mean - nodes.mean(*summed)).max() <= nodes.scheme.error({c: nodes.examples[c] for c in summed}) * 4 / 3
    )
    (event,) = nodes.sealing.events(1)
    assert (event.kind, event.client) == ("failed", "c2")
    assert "no answer within 1 s" in event.what
    assert not nodes.sealing.events(2)
    nodes.keep()
    nodes.grid.lost = {2: stage, 3: stage}
    told = nodes.stop_at()
    assert "2 of 4 clients are left, 3 are needed" in told
    assert "c2 at " in told
    assert "c3 at " in told


def test_losses_at_different_steps_add_up(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, 9, threshold=0.55)  # 5 of 9
    nodes.grid.lost = dict(zip((1, 3, 5, 8), Stage.all(), strict=True))
    mean, summed = nodes.sum_up()
    assert set(summed) == {"c2", "c4", "c6", "c7", "c8", "c9"}
    assert np.abs(mean - nodes.mean(*summed)).max() < 1e-4


def test_an_update_outside_the_clipping_range_is_not_cut_short_but_stays_away_untold(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, 4, clipping_range=3.0)
    nodes.updates["c4"][7] = 4567.891
    nodes.keep()
    mean, summed = nodes.sum_up()
    assert set(summed) == {"c1", "c2", "c3"}
    assert np.abs(mean - nodes.mean("c1", "c2", "c3")).max() < 1e-4
    (event,) = nodes.sealing.events(1)
    assert "raise federation.secure_options.clipping_range above 3" in event.what
    assert "4567" not in event.what


def test_an_update_is_handed_in_once_and_for_its_own_turn_alone(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, 3)
    nodes.sum_up()
    assert "no update of round 1 is kept here, or it was handed in before" in nodes.stop_at()
    nodes.keep(2)
    with pytest.raises(Undecided, match="no update of round 3 is kept here"):
        nodes.sum_up(3)


@pytest.mark.parametrize(
    ("stage", "change", "told"),
    [
        (Stage.SETUP, {Key.PUBLIC_KEY_1: 3}, "its keys are no bytes"),
        (Stage.SHARE_KEYS, {Key.DESTINATION_LIST: [1, 3], Key.CIPHERTEXT_LIST: [b"a"]}, "differ in number"),
        (Stage.COLLECT_MASKED_VECTORS, {Key.MASKED_PARAMETERS: [b"a", b"b"]}, "malformed"),
        (Stage.UNMASK, {Key.NODE_ID_LIST: [99], Key.SHARE_LIST: [b"a"]}, "shares and owners differ"),
    ],
)
def test_an_answer_that_is_none_counts_as_lost(tmp_path: Path, stage: str, change: dict, told: str) -> None:
    nodes = Nodes(tmp_path, 4)

    def lie(now: str, reply) -> None:
        if now == stage and reply.metadata.src_node_id == 2:
            reply.content.config_records[RECORD_KEY_CONFIGS] = ConfigRecord(change)

    nodes.grid.change = lie
    _, summed = nodes.sum_up()
    assert len(summed) == (4 if stage == Stage.UNMASK else 3)
    assert told in nodes.sealing.events(1)[0].what


def test_a_share_that_is_wrong_stops_the_sum_and_says_so(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, 3)

    def lie(now: str, reply) -> None:
        if now == Stage.UNMASK and reply.metadata.src_node_id == 2:
            record = reply.content.config_records[RECORD_KEY_CONFIGS]
            record[Key.SHARE_LIST] = [share[:4] + bytes(len(share) - 4) for share in record[Key.SHARE_LIST]]

    nodes.grid.change = lie
    assert "Failed to combine shares" in nodes.stop_at()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({Key.STAGE: Stage.SETUP, Key.SAMPLE_NUMBER: 2}, "at least 3 clients"),
        ({Key.STAGE: Stage.SETUP, Key.SAMPLE_NUMBER: 5, Key.SHARE_NUMBER: 3}, "share_num = 3, settings here say 5"),
        ({Key.STAGE: Stage.SETUP, Key.SAMPLE_NUMBER: 5, Key.SHARE_NUMBER: 5, Key.THRESHOLD: 2}, "threshold = 2"),
        ({Key.STAGE: Stage.SHARE_KEYS, "1": [b"a", b"b"]}, "the keys of 1 clients, too few"),
        (
            {Key.STAGE: Stage.UNMASK, Key.ACTIVE_NODE_ID_LIST: [1, 2], Key.DEAD_NODE_ID_LIST: [2]},
            "both secrets of node 2",
        ),
    ],
)
def test_a_client_refuses_a_server_that_would_learn_more(asked: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        sealed_client.check(SecAggPlus(), ConfigRecord(asked), Context(1, 1, {}, RecordDict(), {}))


def test_masks_take_the_whole_key_where_flowers_own_take_28_bits_of_it() -> None:
    keys = [base64.urlsafe_b64encode(bytes(np.random.default_rng(i).bytes(32))) for i in range(50)]
    for key in keys:
        word = int(np.bitwise_xor.reduce(np.frombuffer(key, "<u4")))
        assert word & 0x80808080 == 0  # of text
        theirs = np.random.RandomState(word).randint(0, 2**32 - 1, 5, dtype=np.int64)
        assert np.array_equal(theirs, pseudo_rand_gen(key, 2**32, [(5,)])[0])
    swapped = keys[0][4:8] + keys[0][:4] + keys[0][8:]
    assert np.array_equal(*(pseudo_rand_gen(key, 2**32, [(5,)])[0] for key in (keys[0], swapped)))
    assert not np.array_equal(*(masks.draw(key, 2**32, [(5,)])[0] for key in (keys[0], swapped)))


def test_masks_are_chacha20_of_the_keys_digest_in_their_shapes() -> None:
    first, second, scalar = masks.draw(b"key", 2**20, [(2, 3), (4,), ()])
    stream = ChaCha20.new(key=hashlib.sha256(b"key").digest(), nonce=bytes(8)).encrypt(bytes(44))
    expected = np.frombuffer(stream, "<u4") % 2**20
    assert [first.shape, second.shape, scalar.shape] == [(2, 3), (4,), ()]
    assert np.array_equal(np.concatenate([first.ravel(), second, scalar.ravel()]), expected)
    with pytest.raises(ValueError, match="power of two"):
        masks.draw(b"key", 1000, [(1,)])


def test_flowers_differential_privacy_acts_before_the_masks(tmp_path: Path) -> None:
    app = client_app.register(ClientApp(), [LocalDpMod(0.1, 1e-9, 1.0, 1e-5)])
    nodes = Nodes(tmp_path, 3, app=app)
    mean, _ = nodes.sum_up()
    clipped = {c: 0.1 * u / np.linalg.norm(u) for c, u in nodes.updates.items()}
    expected = np.average(list(clipped.values()), axis=0, weights=list(nodes.examples.values()))
    assert np.abs(mean - expected).max() <= nodes.scheme.error(nodes.examples) + 1e-6


def test_an_app_without_the_mod_hands_nothing_in(tmp_path: Path) -> None:
    app = ClientApp()
    app.query()(client_app.query)
    app.train()(client_app.train)
    nodes = Nodes(tmp_path, 3, app=app)
    assert "this app lacks the mod that masks an update" in nodes.stop_at()
    assert all(answer.has_error() for answer in nodes.grid.answers if answer.metadata.message_type == "train")


def test_a_sealed_run_trains_as_the_plain_one_and_no_answer_holds_a_half(home: Home) -> None:
    home.simulate("there")
    text = CONFIG.replace("[federation]", '[federation]\nsecure_aggregation = "secaggplus"')
    (home.path / "c.toml").write_text(text)
    grid = deploy(home, home.config())
    assert grid.sent == 3 + 2 * (3 + 4 * 3)  # who are you; two rounds of three turns and four steps of three
    assert all(not len(record) for answer in grid.answers for record in answer.content.array_records.values())
    plain, sealed = (
        checkpoint.load(next((home.path / out / "jobs").rglob("checkpoint.safetensors")))[0]
        for out in ("there", "here")
    )
    names = [name for name in plain if name.startswith(("client/state", "trunk/module"))]
    assert any(not torch.equal(plain[name], sealed[name]) for name in names)
    for name in names:
        torch.testing.assert_close(sealed[name], plain[name], rtol=0, atol=1e-4)
    rows = home.contents("here")["rows"]
    assert [row["events"] for row in rows] == [[], []]


def deploy(home: Home, config: Config) -> InProcess:
    with home.serving(config) as (plane, address):
        grid = InProcess(contexts(home, sorted(plane.clients), str(address)))
        rounds = FlowerRounds(grid, plane.journal)  # type: ignore[arg-type]
        orchestrate(
            config,
            home.path / "here",
            plane,
            rounds,
            make_sealing=partial(FlowerSealing, rounds),
            progress=Progress(),
            cache=home.path / "cache",
        )
    for device in client_app._devices.values():
        device.connection.close()
    client_app._devices.clear()
    return grid


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["federation.aggregator=krum", "federation.aggregator_options={n_attackers=0}"], "krum judges single updates"),
        (
            ["federation.aggregator=trust_weighted", "federation.aggregator_options={detector='mahalanobis'}"],
            "trust_weighted judges single updates",
        ),
        (["federation.protocol=splitfed_v3"], "in splitfed_v3 nothing is summed"),
        (['evaluation.baselines=["local_only"]'], "take local_only out of evaluation.baselines"),
        (["federation.buffer_size=2", "federation.protocol=splitfed_v1"], "sums the updates of one round"),
        (["federation.participation={fraction=0.5}"], "2 are to take part"),
        (["federation.secure_options={threshold=0.5}"], "above 1/2"),
        (["federation.secure_options={target_range=3}"], r"2\*\*8 to 2\*\*30"),
        (["federation.secure_options={target_range=1073741824}", "federation.n_clients=4"], "overflows"),
        (["federation.secure_options={n_groups=2}"], "n_groups"),
    ],
)
def test_what_cannot_be_sealed_is_refused_by_name(home: Home, overrides: list[str], told: str) -> None:
    if "n_clients" in str(overrides):
        overrides = [*overrides, "federation.partition=iid"]
    config = home.config(SEALED, *overrides)
    with pytest.raises(ValueError, match=told):
        deploy(home, config)


def test_where_nothing_carries_it_the_way_out_is_told(home: Home) -> None:
    told = "start this config with `flwr run`"
    with pytest.raises(ValueError, match=told):
        home.simulate("there", SEALED)
    config = home.config(SEALED)
    with pytest.raises(ValueError, match=told):
        Up(config, home.path / "up", cache=home.path / "cache")
    with home.serving(config) as (plane, _), pytest.raises(ValueError, match=told):
        home.orchestrate(config, "here", plane)
