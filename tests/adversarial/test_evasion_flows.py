"""Evasion by flows: only what an attacker can touch changes, every rule holds, and no more is found than there is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adversarial.evasion_examples import CATEGORIES, CHANNELS, flows, trained
from hcqsfl.adversarial.evasion import make
from hcqsfl.adversarial.evasion.attack import Effort
from hcqsfl.adversarial.evasion.flow_rules import CHOICES, FREE, HEADER
from hcqsfl.adversarial.evasion.flows import region_of
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.data.scaling import Scaler
from hcqsfl.privacy import defences

WINDOWS = flows()
SCALER = Scaler.fit(WINDOWS, "quantile")
MOST = WINDOWS.x[:, :, 0].max(axis=0)


@pytest.fixture(scope="module")
def victim():
    x, y = torch.from_numpy(SCALER(WINDOWS)), torch.from_numpy(WINDOWS.y)
    network = nn.Sequential(nn.Flatten(), nn.Linear(x.shape[1], 32), nn.GELU(), nn.Linear(32, 2))
    network = trained(x, y, network)
    caught = np.flatnonzero((network(x).argmax(1).numpy() == 1) & (WINDOWS.y == 1))
    assert len(caught) > 120
    return network, WINDOWS.take(caught)


def evaded(victim, name: str, epsilon: float, effort: Effort | None = None, seed: int = 0) -> float:
    network, caught = victim
    region = region_of(caught, SCALER, MOST, epsilon)
    attack = make(name)
    goal = Goal(torch.ones(len(caught), dtype=torch.long), towards=0)
    x = attack.run(Oracle(network, attack.access), region, goal, effort or Effort(20, 2, 400), seed)
    assert region.broken == 0
    if attack.access != "nothing":
        assert region.shown > len(caught)
        assert (region.violations(region.sent, np.arange(len(caught))) == 0).all()
        assert torch.equal(region._input(region.sent), x)  # what is sent is what fooled the model
    with torch.no_grad():
        return float((network(x).argmax(1) == 0).float().mean())


def test_both_searches_evade_far_more_often_than_a_random_change_that_can_be_sent(victim) -> None:
    by_chance = evaded(victim, "noise", 2.0)
    assert evaded(victim, "capgd", 2.0) > by_chance + 0.2
    assert evaded(victim, "genetic", 2.0) > by_chance + 0.2


def test_both_together_are_at_least_as_strong_as_either(victim) -> None:
    effort = Effort(10, 1, 100)
    alone = [evaded(victim, name, 1.0, effort) for name in ("capgd", "genetic")]
    assert evaded(victim, "caa", 1.0, effort) >= max(alone) > 0


@pytest.mark.parametrize("name", ["caa", "capgd", "genetic", "noise", "pgd"])
def test_a_radius_of_zero_changes_no_flow(victim, name: str) -> None:
    assert evaded(victim, name, 0.0, Effort(3, 1, 60)) == 0.0


def test_more_radius_and_more_queries_never_evade_less(victim) -> None:
    by_radius = [evaded(victim, "capgd", epsilon) for epsilon in (0.25, 1.0, 3.0)]
    assert by_radius == sorted(by_radius)
    by_queries = [evaded(victim, "genetic", 1.5, Effort(queries=queries)) for queries in (20, 100, 400)]
    assert by_queries == sorted(by_queries)


def test_nothing_evades_a_model_that_calls_everything_an_attack(victim) -> None:
    class Alarm(nn.Module):
        def forward(self, x):
            return torch.tensor([0.0, 1.0]).expand(len(x), 2) + 0 * x.sum()

    for name in ("capgd", "genetic", "noise"):
        assert evaded((Alarm(), victim[1]), name, 3.0, Effort(3, 1, 60)) == 0.0


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(-1e12, 1e12), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.3, 2.0, 50.0]),
    st.integers(0, 2),
    st.integers(0, 10**6),
)
def test_whatever_is_wanted_what_is_sent_keeps_every_rule(wanted, epsilon, choice, seed) -> None:
    some = WINDOWS.take(np.random.default_rng(seed).choice(len(WINDOWS), 30, replace=False))
    region = region_of(some, SCALER, MOST, epsilon)
    choices = {name: np.full(30, choice) for name in CHOICES}
    sent = region.at(np.tile(wanted, (30, 1)), np.arange(30), choices)
    assert (region.violations(sent, np.arange(30)) == 0).all()
    untouchable = [i for i, name in enumerate(CHANNELS) if name not in (*FREE, *CHOICES, "src_ip_bytes")]
    np.testing.assert_array_equal(sent[:, untouchable], region.raw[:, untouchable])


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("dst_bytes", 1.0),
        ("src_pkts", 1.0),  # without the bytes of its headers
        ("src_bytes", 7.0),
        ("src_bytes", -1.0),
        ("src_pkts", 0.5),
        ("src_ip_bytes", 4.0),
        ("proto", 1.0),
        ("duration", -0.01),
        ("http_request_body_len", 3.0),
        ("duration", 1e9),
    ],
)
def test_each_rule_is_seen_when_it_is_broken(column: str, change: float) -> None:
    region = region_of(WINDOWS, SCALER, MOST, 3.0)
    broken = region.raw.copy()
    broken[:, CHANNELS.index(column)] += change
    assert (region.violations(broken, np.arange(len(broken))) > 0).all()
    assert (region.violations(region.raw, np.arange(len(broken))) == 0).all()


def test_training_on_flows_that_can_be_sent_makes_both_searches_weaker() -> None:
    x, y = torch.from_numpy(SCALER(WINDOWS)), torch.from_numpy(WINDOWS.y)
    attacks = WINDOWS.take(np.flatnonzero(WINDOWS.y == 1))
    regions = []

    def reach(client: str, epsilon: float):
        regions.append(region_of(attacks, SCALER, MOST, epsilon))
        return regions[-1]

    rates = []
    for epsilon in (0.0, 1.0):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(x.shape[1], 32), nn.GELU(), nn.Linear(32, 2))
        defence = defences.make("flow_training", 0, "a", flows=reach, epsilon=epsilon, steps=2)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(60):
            moved = defence.windows(x, y, lambda u, net=network: nn.functional.cross_entropy(net(u), y))
            assert torch.equal(moved[y == 0], x[y == 0])
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(moved), y).backward()
            optimizer.step()
        network.eval()
        right = network(x).argmax(1).numpy() == WINDOWS.y
        assert right.mean() > 0.85
        caught = WINDOWS.take(np.flatnonzero(right & (WINDOWS.y == 1)))
        rates.append([evaded((network, caught), name, 1.0, Effort(10, 1, 100)) for name in ("capgd", "genetic")])
    assert len(regions) == 1
    assert regions[0].shown > 0 == regions[0].broken  # not one flow that cannot be sent was trained on
    assert max(rates[1]) < min(rates[0]) - 0.1


def test_a_sum_a_reader_can_do() -> None:
    """A UDP flow of 3 packets and 100 bytes: 2 packets and 500 bytes more are 556 bytes more on the wire."""
    one = WINDOWS.take(np.array([0, 1]))
    x = one.x.copy()
    values = {"proto": 2, "conn_state": 2, "src_pkts": 3, "src_bytes": 100, "src_ip_bytes": 184, "dst_pkts": 1}
    for name, value in values.items():
        x[:, CHANNELS.index(name)] = value
    x[1, CHANNELS.index("proto")] = CATEGORIES["proto"].index("tcp")
    x[1, CHANNELS.index("src_bytes")] = 0
    x[1, CHANNELS.index("conn_state")] = CATEGORIES["conn_state"].index("S0")
    most = np.where([unit == "category" for unit in one.units], 2, 1e6)
    wide = Scaler.fit(replace(WINDOWS, x=np.concatenate([WINDOWS.x[:-1], most[None, :, None]])), "log")
    region = region_of(replace(one, x=x), wide, most, 100.0)
    wanted = np.tile([9.0, 600.9, 5.2, 0.0], (2, 1))
    sent = region.at(wanted, np.arange(2))
    place = [CHANNELS.index(name) for name in ("duration", "src_bytes", "src_pkts", "src_ip_bytes")]
    np.testing.assert_allclose(sent[0, place], [9.0, 600, 5, 184 + 500 + 2 * HEADER["udp"]])
    # an unanswered TCP connection carries no payload, but can be tried again
    np.testing.assert_allclose(sent[1, place], [9.0, 0, 5, 184 + 2 * HEADER["tcp"]])
    assert region.at(np.tile([9.0, 1e9, 3.0, 0.0], (2, 1)), np.arange(2))[0, place[3]] == 1500 * 3


def test_columns_that_the_rules_need_are_asked_for() -> None:
    kept = [i for i, name in enumerate(CHANNELS) if name != "http_version"]
    w = replace(
        WINDOWS,
        x=WINDOWS.x[:, kept],
        channels=tuple(CHANNELS[i] for i in kept),
        units=tuple(WINDOWS.units[i] for i in kept),
        categories={name: values for name, values in CATEGORIES.items() if name != "http_version"},
    )
    with pytest.raises(ValueError, match="lack: http_version; keep all features"):
        region_of(w, Scaler.fit(w), MOST[kept], 1.0)
