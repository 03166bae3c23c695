"""Secure aggregation: exact sums, dropouts, and a server that holds no client's update."""

import numpy as np
import pytest
import torch

from hcqsfl.federated.aggregation import make
from hcqsfl.federated.aggregation.fedavg import fedavg
from hcqsfl.federated.secure_aggregation import CKKS, PairwiseMasks, SecureAggregator
from hcqsfl.federated.update import Update
from models.examples import plan, setup

STATE = {"w": torch.zeros(5, 3), "b": torch.ones(4), "n": torch.tensor(3)}


def updates(n: int = 5) -> list[Update]:
    g = torch.Generator().manual_seed(0)
    return [
        Update(
            f"c{i}",
            {"w": torch.randn(5, 3, generator=g), "b": torch.randn(4, generator=g), "n": torch.tensor(3)},
            0,
            10 + i,
        )
        for i in range(n)
    ]


def close(a, b, tolerance: float) -> bool:
    return all(torch.allclose(a[k], b[k], rtol=0, atol=tolerance) for k in a)


@pytest.mark.parametrize("scheme", [PairwiseMasks(), CKKS()], ids=["masks", "ckks"])
def test_the_mean_is_federated_averagings(scheme) -> None:
    found = SecureAggregator(fedavg(), scheme)(STATE, updates())
    assert close(found, fedavg()(STATE, updates()), 1e-6)


def test_masks_cancel_exactly_and_one_vector_alone_is_uniform_noise() -> None:
    masks, rng = PairwiseMasks(7), np.random.default_rng(0)
    vectors = {f"c{i}": rng.normal(size=20_000) for i in range(4)}
    total = masks.total(vectors, list(vectors), 3)
    exact = sum(masks.fixed(v, 4).view(np.int64) for v in vectors.values()) / 2.0**32
    assert np.array_equal(total, exact)
    sent = masks.masked("c1", vectors["c1"], list(vectors), 3).astype(np.float64) / 2.0**64
    assert abs(sent.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(sent, vectors["c1"])[0, 1]) < 0.03
    assert not np.array_equal(masks.mask("a", "b", 1, 9), masks.mask("a", "b", 2, 9))


def test_the_masks_of_those_who_dropped_out_are_taken_off_unless_too_few_are_left() -> None:
    masks = PairwiseMasks(1)
    vectors = {"a": np.array([1.5]), "c": np.array([-4.0])}
    assert masks.total(vectors, ["a", "b", "c", "d"], 0) == [-2.5]
    with pytest.raises(ValueError, match="2 of the 5 clients"):
        masks.total(vectors, ["a", "b", "c", "d", "e"], 0)
    with pytest.raises(ValueError, match="fewer than 2"):
        masks.total({"a": np.array([1.0])}, ["a", "b"], 0)


def test_a_number_that_would_overflow_is_refused() -> None:
    with pytest.raises(ValueError, match="lower fraction_bits"):
        PairwiseMasks(fraction_bits=48).fixed(np.array([1e6]), 10)


def test_a_robust_rule_sees_groups_and_outvotes_the_one_with_the_attacker() -> None:
    honest = updates(9)
    odd = [Update(u.client, {**u.state, "b": u.state["b"] + 1e4 * (u.client == "c3")}, 0, 10) for u in honest]
    secure = SecureAggregator(make("median"), PairwiseMasks(), n_groups=3)
    secure.expect([u.client for u in odd])
    found = secure(STATE, odd)
    assert found["b"].abs().max() < 10
    seen = secure.shown(odd)
    assert [u.client for u in seen] == ["group-1", "group-2", "group-3"]
    assert sum(u.num_examples for u in seen) == 90
    with pytest.raises(ValueError, match="is a client's update"):
        SecureAggregator(make("median"), PairwiseMasks(), n_groups=5)(STATE, odd)
    with pytest.raises(ValueError, match="under encryption"):
        SecureAggregator(make("median"), CKKS(), n_groups=3)


def test_a_round_shows_no_clients_update_and_trains_as_without() -> None:
    def wrapped(scheme):
        return lambda rule: SecureAggregator(rule, scheme)

    plain = setup("splitfed_v2")
    masked = setup("splitfed_v2", secure=wrapped(PairwiseMasks()))
    encrypted = setup("splitfed_v2", secure=wrapped(CKKS()))
    a, b, c = (each.federation.run_round() for each in (plain, masked, encrypted))
    assert {u.client for u in a.updates["client"]} == {"client-0", "client-1", "client-2"}
    assert [u.client for u in b.updates["client"]] == ["group-1"]
    assert not c.updates["client"]
    for other in (masked, encrypted):
        assert close(plain.federation.parts[0].state, other.federation.parts[0].state, 1e-6)
    n = sum(t.numel() for t in plain.federation.parts[0].state.values())
    assert b.sent["client-0"] == 8 * (n + 1)
    assert c.sent["client-0"] > 10 * a.sent["client-0"]
    assert c.received["client-0"] == c.sent["client-0"]


def test_asynchronous_rounds_are_refused() -> None:
    secure = plan(secure=lambda rule: SecureAggregator(rule, PairwiseMasks())).secure
    with pytest.raises(ValueError, match="a server that sees sums alone"):
        setup("splitfed_v1", buffer_size=2, secure=secure)
