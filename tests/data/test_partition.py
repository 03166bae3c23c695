"""Partitioners: every window once, sizes as asked for, distributions as named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcqsfl.data import ton_iot
from hcqsfl.data.partition import PARTITIONERS, Partition, composition, deal
from hcqsfl.data.windows import Windows, slide_all


def windows(y: np.ndarray, subject: np.ndarray | None = None) -> Windows:
    n = len(y)
    return Windows(
        x=np.zeros((n, 1, 1), dtype=np.float32),
        y=np.asarray(y, dtype=np.int64),
        subject=np.array(["S1"] * n) if subject is None else subject,
        start=np.arange(n),
        recording=np.zeros(n, dtype=np.int64),
        stratum=np.asarray(y, dtype=np.int64),
        sfreq=1.0,
        channels=("a",),
        units=("V",),
        classes=tuple(f"class {c}" for c in range(int(np.max(y)) + 1)),
    )


def sizes(dealt: Partition) -> list[int]:
    return [len(part) for part in dealt.values()]


@st.composite
def training(draw: st.DrawFn) -> Windows:
    y = draw(st.lists(st.integers(0, 4), min_size=1, max_size=80))
    hosts = draw(st.lists(st.sampled_from("abcdefg"), min_size=len(y), max_size=len(y)))
    return windows(np.array(y), np.array(hosts))


@pytest.mark.parametrize("name", sorted(PARTITIONERS))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=training(),
    n_clients=st.integers(1, 9),
    seed=st.integers(0, 99),
    alpha=st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    min_size=st.integers(1, 5),
)
def test_each_window_is_dealt_exactly_once_and_no_client_is_too_small(
    name: str, data: Windows, n_clients: int, seed: int, alpha: float, min_size: int
) -> None:
    options: dict[str, Any] = {}
    if name in ("dirichlet", "quantity_skew"):
        options = {"alpha": alpha, "min_size": min_size, "retries": 3}
    elif name == "host":
        options = {"min_size": min_size}
    try:
        dealt = deal(name, data, n_clients, seed, **options)
    except ValueError:
        # what is asked for is then really impossible, but for hosts, which are merged greedily
        hosts = len(set(data.subject))
        impossible = {
            "subject": hosts < n_clients,
            "iid": len(data) < n_clients,
            "shards": not len(set(data.y)) <= n_clients <= len(data),
            "host": True,
        }
        assert impossible.get(name, n_clients * min_size > len(data))
        return
    assert len(dealt) == n_clients
    assert np.array_equal(np.sort(np.concatenate(list(dealt.values()))), np.arange(len(data)))
    assert min(sizes(dealt)) >= options.get("min_size", 1)
    assert all((np.diff(part) > 0).all() for part in dealt.values())
    again = deal(name, data, n_clients, seed, **options)
    assert list(again) == list(dealt)
    assert all(np.array_equal(dealt[client], again[client]) for client in dealt)


@pytest.mark.parametrize("name", sorted(PARTITIONERS.keys() - {"host"}))
def test_another_seed_deals_otherwise(name: str) -> None:
    data = windows(np.repeat([0, 1, 2], 40), np.array([f"S{i // 10}" for i in range(120)]))
    one, other = (deal(name, data, 4, seed) for seed in (1, 2))
    assert any(not np.array_equal(one[client], other[client]) for client in one)


@pytest.mark.parametrize(("alpha", "n_clients"), [(0.5, 4), (2.0, 10)])
def test_dirichlet_shares_have_the_mean_and_variance_of_the_distribution(alpha: float, n_clients: int) -> None:
    n = 4000
    data = windows(np.repeat([0, 1, 2, 3, 4], n))
    shares = np.concatenate(
        [
            composition(data, deal("dirichlet", data, n_clients, seed, alpha=alpha, min_size=1)) / n
            for seed in range(80)
        ],
        axis=1,
    )  # (n_clients, 400) shares of a class
    mean, total = 1 / n_clients, alpha * n_clients
    variance = mean * (1 - mean) / (total + 1)
    reference = np.random.default_rng(0).dirichlet(np.full(n_clients, alpha), 20_000)
    np.testing.assert_allclose(reference.var(axis=0), variance, rtol=0.1)
    assert np.abs(shares.mean(axis=1) - mean).max() <= 5 * np.sqrt(variance / 400)
    np.testing.assert_allclose(shares.var(), variance, rtol=0.15)
    for level in (0.25, 0.5, 0.9):
        np.testing.assert_allclose(np.quantile(shares, level), np.quantile(reference, level), atol=0.03)


def test_a_large_alpha_is_nearly_even_and_a_small_one_gathers_classes() -> None:
    data = windows(np.repeat([0, 1, 2, 3], 500))
    even = composition(data, deal("dirichlet", data, 5, 0, alpha=1e6))
    assert np.abs(even - 100).max() <= 2
    skewed = composition(data, deal("dirichlet", data, 5, 0, alpha=0.05))
    assert (skewed.max(axis=0) > 300).all()


def test_after_the_draws_the_sizes_are_repaired_from_the_largest() -> None:
    data = windows(np.zeros(100))
    dealt = deal("dirichlet", data, 20, 0, alpha=1e-3, min_size=5, retries=2)
    assert sizes(dealt) == [5] * 20
    drawn = deal("dirichlet", data, 20, 0, alpha=1e-3, min_size=1, retries=2)
    largest = max(drawn, key=lambda client: len(drawn[client]))
    assert len(drawn[largest]) > 50
    assert sorted(sizes(drawn))[:10] == [1] * 10


def test_quantity_skew_changes_sizes_and_hardly_labels() -> None:
    data = windows(np.tile([0, 1], 5000))
    counts = composition(data, deal("quantity_skew", data, 4, 3, alpha=0.5))
    total = counts.sum(axis=1)
    assert total.max() > 3 * total.min()
    # a client of n windows drawn at random holds half of each class within five standard deviations
    assert (np.abs(counts[:, 0] - total / 2) <= 2.5 * np.sqrt(total)).all()


def test_quantity_skew_sizes_have_the_variance_of_the_distribution() -> None:
    data = windows(np.zeros(2000))
    shares = np.array(
        [sizes(deal("quantity_skew", data, 5, seed, alpha=2.0, min_size=1)) for seed in range(400)]
    ) / len(data)
    assert np.abs(shares.mean(axis=0) - 0.2).max() <= 5 * np.sqrt(0.2 * 0.8 / 11 / 400)
    np.testing.assert_allclose(shares.var(), 0.2 * 0.8 / 11, rtol=0.15)


def test_one_shard_is_one_class_in_proportion() -> None:
    data = windows(np.repeat([0, 1, 2], [600, 300, 100]))
    counts = composition(data, deal("shards", data, 10, 0))
    assert ((counts > 0).sum(axis=1) == 1).all()
    assert (counts > 0).sum(axis=0).tolist() == [6, 3, 1]
    assert counts.sum(axis=1).tolist() == [100] * 10


def test_two_shards_are_at_most_two_classes() -> None:
    data = windows(np.repeat(np.arange(10), 60))
    held = (composition(data, deal("shards", data, 30, 1, shards_per_client=2)) > 0).sum(axis=1)
    assert set(held) <= {1, 2}
    assert (held == 2).sum() > 20


def test_small_hosts_are_merged_and_large_ones_stand_alone() -> None:
    hosts = np.repeat(["a", "b", "c", "d", "e"], [50, 30, 4, 3, 2])
    data = windows(np.zeros(89), hosts)

    def held(dealt: Partition) -> dict[str, set[str]]:
        return {name: set(hosts[part]) for name, part in dealt.items()}

    each = {"a": {"a"}, "b": {"b"}}
    assert held(deal("host", data, None, 0)) == each | {"c": {"c"}, "d": {"d"}, "e": {"e"}}
    # 2 + 3, then 4 + 5
    assert held(deal("host", data, 4, 0)) == each | {"d+1": {"d", "e"}, "c": {"c"}}
    assert held(deal("host", data, None, 0, min_size=6)) == each | {"c+2": {"c", "d", "e"}}
    assert held(deal("host", data, 2, 0)) == {"a": {"a"}, "b+3": {"b", "c", "d", "e"}}
    with pytest.raises(ValueError, match=r"3 clients with at least 10 windows .* of 5 hosts .* leaves 2"):
        deal("host", data, 3, 0, min_size=10)


@pytest.mark.parametrize(
    ("name", "n_clients", "options", "says"),
    [
        ("dirichlet", 4, {}, "4 clients with at least 10 windows each need 40, but there are 30 training windows"),
        ("quantity_skew", 31, {"min_size": 1}, "31 clients with at least 1 windows each need 31"),
        ("dirichlet", 2, {"alpha": 0.0}, "dirichlet partitioner was given alpha = 0; it must be above 0"),
        ("dirichlet", 2, {"min_size": 0}, "1 of each is the least"),
        ("dirichlet", 2, {"retries": 0}, "at least 1 is needed"),
        ("dirichlet", 2, {"aplha": 1.0}, "no option 'aplha'; did you mean 'alpha'"),
        ("iid", 2, {"alpha": 1.0}, "no option 'alpha'"),
        ("shards", 2, {}, "make 2 shards of one class, but there are 3 classes"),
        ("shards", 31, {}, "31 shards of one class, but there are 3 classes and 30 training windows"),
        ("shards", 0, {}, "1 is the least"),
        ("host", 4, {}, "the training part has 1 hosts"),
        ("subject", 4, {}, "the training part has 1 subjects"),
        ("iid", None, {}, "the iid partitioner needs federation.n_clients"),
        ("shards", None, {}, "the shards partitioner needs federation.n_clients"),
        ("dirichlett", 2, {}, "no partitioner is called 'dirichlett'; did you mean 'dirichlet'"),
    ],
)
def test_what_cannot_be_dealt_is_refused(name: str, n_clients: int | None, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        deal(name, windows(np.repeat([0, 1, 2], 10)), n_clients, 0, **options)


@pytest.mark.real
def test_ton_iot_is_dealt_by_host_and_by_dirichlet(real_data: Path) -> None:
    data = slide_all(ton_iot.load(real_data / "ton_iot"), 1.0)
    by_host = deal("host", data, 5, 0, min_size=50)
    assert len(by_host) == 5
    assert min(sizes(by_host)) >= 50
    assert sum(sizes(by_host)) == len(data)
    hosts = [set(data.subject[part]) for part in by_host.values()]
    assert sum(map(len, hosts)) == len(set(data.subject))
    skewed = deal("dirichlet", data, 100, 0, alpha=0.3, min_size=50)
    assert min(sizes(skewed)) >= 50
    assert sum(sizes(skewed)) == len(data)
