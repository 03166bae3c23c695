"""A deployed run is the simulated run, and what crosses the wire is no raw data."""

import json
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from deployment.federations import SECONDS, Home
from deployment.relays import Relay
from hcqsfl import build
from hcqsfl.deployment import share
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.connection import LostError, RefusedError
from hcqsfl.deployment.journal import Journal, read
from hcqsfl.evaluation.report import write_report
from hcqsfl.split import read_tap

CODED = ("federation.codec=randtopk", "federation.codec_options={share=0.5}", "federation.error_feedback=true")
ONE_CLIENT = ("federation.n_clients=1",)
CASES = {  # what other tests below run beside their own purpose is not repeated here
    "one client, Adam, hybrid": (*ONE_CLIENT, "trunk.kind=hybrid", 'evaluation.controls=["classical"]'),
    "one client, SGD with momentum": (*ONE_CLIENT, "training.optimizer=sgd", "training.momentum=0.9"),
    "halves relayed, guarded, clients away": (
        "federation.protocol=sequential",
        "federation.guard=norm",
        "federation.participation={fraction=0.7, dropout=0.3}",
    ),
    "nothing cut": ("federation.protocol=federated",),
    "all in one place": ("federation.protocol=centralised",),
    "labels shared, a rule that remembers": ("federation.label_sharing=true", "federation.aggregator=fedadam"),
    "cut inside the front, a hop more": ("model.cuts=[1, 2]",),
    "DP-SGD": ("dp_sgd.noise_multiplier=1.0", "model.front_options={width=4, n_layers=2}"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_deployed_run_is_the_simulated_run_bit_for_bit(home: Home, case: str) -> None:
    simulated, deployed = home.simulate("there", *CASES[case]), home.deploy("here", *CASES[case])
    home.assert_same("there", "here")
    assert [repr(arm.metrics) for arm in simulated.arms] == [repr(arm.metrics) for arm in deployed.arms]
    write_report([home.path / "here"], home.path / "page.html")


def test_over_mutual_tls_from_dealt_shares_and_with_a_tap(home: Home) -> None:
    """Clients that hold a folder of their own share and no more reach the same bytes; the tap reads the same."""
    tap = "recording.tap=true"
    home.simulate("there", tap)
    config = home.config(tap, *home.certificates("P1", "P3", "P4", "P5"))
    dealt = share.deal(config, home.path / "dealt", home.path / "cache")
    names = sorted(path.parent.name for path in dealt)
    with home.serving(config) as (plane, address):
        assert sorted(plane.clients) == names
        for name in names:
            root = config.data.model_copy(update={"root": home.path / "dealt" / name})
            own = config.model_copy(update={"data": root})
            home.start(home.device(own, name, address).run, name)
        home.orchestrate(config, "here", plane)
    assert not home.failures, home.failures
    home.assert_same("there", "here")
    taps = [list(read_tap(next((home.path / out).rglob("tap.bin")))) for out in ("there", "here")]
    assert taps[0] == taps[1]
    with pytest.raises(ValueError, match="is the share of client"):
        share.from_folder(home.path / "dealt" / names[0], "somebody")


class Eavesdropper(Relay):
    """A relay that keeps every byte of both directions."""

    def __init__(self, target: Address) -> None:
        self.heard = bytearray()
        super().__init__(target)

    def hear(self, said: bytes) -> None:
        self.heard += said


def heard(home: Home, out: str, *overrides: str) -> bytes:
    relays: list[Eavesdropper] = []

    def through(address: Address) -> Address:
        relays.append(Eavesdropper(address))
        return relays[-1].address

    home.deploy(out, *overrides, through=through)
    time.sleep(0.3)
    for relay in relays:
        relay.listener.close()
    return b"".join(bytes(relay.heard) for relay in relays)


def batches_of_labels(home: Home, config) -> list[bytes]:
    """The labels of every step as the client would send them: int64, in the order of its batches."""
    found = []
    for name in ("P1", "P3", "P4"):
        own = share.from_recordings(config, name, home.path / "cache").first
        from hcqsfl.randomness import torch_generator

        generator = torch_generator(0, "batches", name, 1)
        batches = torch.randperm(len(own.y), generator=generator).split(config.federation.batch_size)
        found += [own.y[batch].numpy().tobytes() for batch in batches]
    return found


def test_neither_raw_data_nor_u_shaped_labels_are_on_the_wire(home: Home) -> None:
    config = home.config("federation.rounds=1")
    wire = heard(home, "u", "federation.rounds=1")
    windows = build.windows(config, home.path / "cache")
    prepared = build.prepare(config, windows, build.make_folds(config, windows)[0])
    assert len(wire) > 10_000
    for x in (windows.x, prepared.x["train"].numpy()):
        for kind in (np.float32, np.float64, np.float16):
            for row in x.astype(kind).reshape(-1, x.shape[2]):
                assert row[:4].tobytes() not in wire
                assert row[-4:].tobytes() not in wire
    for labels in batches_of_labels(home, config):
        for kind in (np.int64, np.int32, np.uint8, np.float32):
            needle = np.frombuffer(labels, np.int64).astype(kind).tobytes()
            assert len(needle) < 8 or needle not in wire or len(set(needle)) == 1, "labels were sent"
    # the same search finds what does cross
    taken = heard(home, "tapped", "federation.rounds=1", "recording.tap=true")
    messages = [data for _, data in read_tap(next((home.path / "tapped").rglob("tap.bin")))]
    assert messages
    assert all(message[-64:] in taken for message in messages)


def test_shared_labels_are_found_on_the_wire_by_the_same_search(home: Home) -> None:
    config = home.config("federation.rounds=1")
    wire = heard(home, "shared", "federation.rounds=1", "federation.label_sharing=true")
    assert all(labels in wire for labels in batches_of_labels(home, config))


def faulty(device, times: int, after: int = 2, how: Callable[[object], None] | None = None):
    """Make a device break off after some steps of its first turns, as a kill would, and come back."""
    left = [times]
    connect = device.worker.connect

    def connecting():
        steps = connect()
        if not left[0]:
            return steps
        left[0] -= 1
        seen = [0]

        def transport(request: bytes) -> bytes:
            seen[0] += 1
            if seen[0] > after:
                device.connection._drop()  # everything breaks at once
                raise LostError("the power failed")
            return steps(request)

        return transport

    device.worker.connect = connecting
    return device


@pytest.mark.parametrize("protocol", ["splitfed_v2", "splitfed_v1", "splitfed_v3"])
def test_a_client_lost_in_its_turn_rejoins_and_the_round_leaves_no_trace_of_it(home: Home, protocol: str) -> None:
    options = (
        f"federation.protocol={protocol}",
        *CODED,
    )
    home.simulate("there", *options)
    config = home.config(*options)
    with home.serving(config) as (plane, address):
        for name in sorted(plane.clients):
            device = home.device(config, name, address)
            home.start((faulty(device, 2) if name == "P3" else device).run, name)
        home.orchestrate(config, "here", plane)
    assert not home.failures, home.failures
    home.assert_same("there", "here", traffic=False)  # what was lost did cross the wire, and is counted
    lost = [event for event in read(home.path / "server.jsonl") if event["event"] == "lost"]
    assert [event["client"] for event in lost] == ["P3", "P3"]


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ('deployment.policy="minimum"', "the round can do without it"),
        ('deployment.policy="deadline"', "waited for in vain"),
    ],
)
def test_a_client_that_stays_away_is_left_out_by_policy(home: Home, policy: str, told: str) -> None:
    config = home.config(policy, "deployment.turn_seconds=1.0", "deployment.minimum_clients=2")
    with home.serving(config) as (plane, address):
        for name in sorted(plane.clients - {"P3"}):
            home.start(home.device(config, name, address).run, name)
        for name in sorted(plane.clients - {"P3"}):
            plane.wait_for(name, SECONDS)
        result = home.orchestrate(config, "here", plane)
    assert not home.failures
    rows = home.contents("here")["rows"]
    assert [event["kind"] for row in rows for event in row["events"]] == ["failed", "failed"]
    assert all(told in event["what"] for row in rows for event in row["events"])
    assert any("failed 2 times" in note for note in result.notes)


def test_a_client_with_other_settings_is_refused_with_both_values(home: Home) -> None:
    config = home.config(*ONE_CLIENT)
    with home.serving(config) as (plane, address):
        (name,) = plane.clients
        other = home.config(*ONE_CLIENT, "model.n_smashed=7", "federation.batch_size=16")
        with pytest.raises(RefusedError) as told:
            home.device(other, name, address).run()
        assert "model.n_smashed is 7 at client client-1 and 3 at the server" in str(told.value)
        assert "federation.batch_size is 16 at client client-1 and 8 at the server" in str(told.value)
    assert any(event["event"] == "refused" for event in read(home.path / "server.jsonl"))


def test_what_cannot_be_deployed_is_told(home: Home) -> None:
    for overrides, told in (
        (
            ("federation.protocol=splitfed_v1", "federation.buffer_size=2"),
            "asynchronous rounds run on a simulated clock",
        ),
        (('model.parties={a=["EDA"], b=["TEMP"]}',), "the parties of a vertical split"),
        (("federation.secure_aggregation=masks",), "hides nothing across machines"),
        (("model.cuts=[1, 2]", "deployment.order=free"), "several hops"),
    ):
        config = home.config(*overrides)
        with home.serving(config) as (plane, _), pytest.raises(ValueError, match=told):
            home.orchestrate(config, told[:5], plane)


def test_clients_at_one_trunk_in_free_order_all_train(home: Home) -> None:
    result = home.deploy("here", 'deployment.order="free"', "federation.local_epochs=3")
    rows = home.contents("here")["rows"]
    assert [(row["events"], row["messages"]) for row in rows] == [([], 36), ([], 36)]
    assert result.arms


def test_a_lying_result_is_refused_and_the_round_goes_on(home: Home) -> None:
    """A client that hands in NaN, another shape, or more windows than it was dealt is left out."""
    from hcqsfl.deployment import record

    lies = [
        lambda words, tensors: (words | {"num_examples": 10**6}, tensors),
        lambda words, tensors: (words, {k: torch.zeros(1, 1) for k in tensors}),
    ]
    config = home.config()
    with home.serving(config) as (plane, address):
        for name in sorted(plane.clients):
            device = home.device(config, name, address)
            if name == "P4":
                honest, turns = device.worker.run, iter(lies)
                device.worker.run = lambda task, h=honest, t=turns: record.pack(*next(t)(*record.unpack(h(task))))
            home.start(device.run, name)
        home.orchestrate(config, "here", plane)
    told = [event["what"] for row in home.contents("here")["rows"] for event in row["events"]]
    assert "holds 1000000 windows, but was dealt 16" in told[0]
    assert "of shape (1, 1)" in told[1]


def test_the_journal_is_json_lines_without_data(home: Home) -> None:
    home.deploy("here", *ONE_CLIENT)
    lines = (home.path / "server.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events[0] == "metrics"
    assert events.count("round") == 2
    assert events[-1] == "stopped"
    assert struct.calcsize("d") * 8 < max(map(len, lines)) < 2000
    assert Journal is not None
