"""Each rule against its formula in NumPy or somebody else's optimiser."""

import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from hcqsfl.federated.aggregation import make
from hcqsfl.federated.aggregation.bulyan import mean_around_median
from hcqsfl.federated.aggregation.dnc import outlier_scores
from hcqsfl.federated.aggregation.flat import squared_distances
from hcqsfl.federated.update import Aggregator, Update

D = 6
BASE = np.linspace(-1.0, 1.0, D)


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, D))


def step(rule: Aggregator, steps: np.ndarray, number: int = 1, examples: list[int] | None = None) -> np.ndarray:
    """How far ``rule`` moves a float64 state, given each client's own step ``(n, D)``."""
    state = {"w": torch.tensor(BASE).reshape(2, 3)}
    updates = [
        Update(f"client-{i:02d}", {"w": torch.tensor(BASE + row).reshape(2, 3)}, number, examples[i] if examples else 1)
        for i, row in enumerate(steps)
    ]
    return rule(state, updates)["w"].numpy().reshape(-1) - BASE


def close(a: np.ndarray, b: np.ndarray, rtol: float = 1e-10) -> None:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


def test_fedavg_is_the_weighted_mean() -> None:
    steps, examples = rows(5), [3, 1, 4, 1, 5]
    close(step(make("fedavg"), steps, examples=examples), np.average(steps, axis=0, weights=examples))


def test_fedavg_returns_a_single_update_bit_for_bit() -> None:
    sent = {
        "w": torch.tensor([-0.0, 1 / 3, 1e-45, -3.4e38]),
        "h": torch.tensor([0.1, 65504.0], dtype=torch.float16),
        "n": torch.tensor([7, -7]),
    }
    after = make("fedavg")({k: torch.zeros_like(t) for k, t in sent.items()}, [Update("a", sent, 0, 3)])
    assert all(torch.equal(after[k].view(torch.uint8), sent[k].view(torch.uint8)) for k in sent)


def test_a_mean_of_clients_without_examples_is_refused() -> None:
    for name in ("fedavg", "fedavgm", "fedadam"):
        with pytest.raises(ValueError, match=f"{name} weights clients by their examples, and all 2"):
            step(make(name), rows(2), examples=[0, 0])


def test_fedavgm_is_torchs_sgd_with_momentum_on_the_mean_update() -> None:
    rule = make("fedavgm", momentum=0.8, learning_rate=0.5)
    weight = torch.zeros(D, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD([weight], lr=0.5, momentum=0.8)
    for number in range(4):
        steps, before = rows(3, number), weight.detach().clone()
        weight.grad = -torch.tensor(steps.mean(axis=0))
        sgd.step()
        close(step(rule, steps, number), (weight.detach() - before).numpy())


def test_fedavgm_without_momentum_is_fedavg() -> None:
    steps, examples = rows(4), [1, 2, 3, 4]
    close(step(make("fedavgm", momentum=0.0), steps, examples=examples), step(make("fedavg"), steps, examples=examples))


def test_fedadam_is_the_published_recursion() -> None:
    rule = make("fedadam", learning_rate=0.1, beta1=0.9, beta2=0.99, tau=1e-2)
    m, v = np.zeros(D), np.full(D, 1e-4)
    for number in range(4):
        steps = rows(3, number)
        delta = steps.mean(axis=0)
        m = 0.9 * m + 0.1 * delta
        v = 0.99 * v + 0.01 * delta**2
        close(step(rule, steps, number), 0.1 * m / (np.sqrt(v) + 1e-2))


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_median_is_numpys(n: int) -> None:
    close(step(make("median"), rows(n)), np.median(rows(n), axis=0))


@pytest.mark.parametrize("f", [1, 2, 3])
def test_trimmed_mean_is_scipys(f: int) -> None:
    expected = scipy.stats.trim_mean(rows(8), f / 8, axis=0)
    close(step(make("trimmed_mean", n_attackers=f), rows(8)), expected)
    close(step(make("trimmed_mean", share=f / 8), rows(8)), expected)


def krum_scores(steps: np.ndarray, f: int) -> list[float]:
    """The score written out: for each, the squared distances to the n - f - 2 nearest others."""
    n = len(steps)
    return [
        sum(sorted(((steps[i] - steps[j]) ** 2).sum() for j in range(n) if j != i)[: max(n - f - 2, 1)])
        for i in range(n)
    ]


@pytest.mark.parametrize(("n", "f"), [(3, 0), (5, 1), (9, 1), (9, 3)])
def test_krum_takes_the_smallest_score(n: int, f: int) -> None:
    for seed in range(5):
        steps = rows(n, seed)
        close(step(make("krum", n_attackers=f), steps), steps[np.argmin(krum_scores(steps, f))])


def test_multi_krum_averages_the_smallest_scores() -> None:
    steps = rows(9)
    order = np.argsort(krum_scores(steps, 2))
    close(step(make("multi_krum", n_attackers=2), steps), steps[order[:5]].mean(axis=0))
    close(step(make("multi_krum", n_attackers=2, n_selected=3), steps), steps[order[:3]].mean(axis=0))
    one = make("multi_krum", n_attackers=2, n_selected=1)
    close(step(one, steps), step(make("krum", n_attackers=2), steps))


def test_of_equal_krum_scores_the_first_name_is_taken() -> None:
    steps = np.array([[0.0] * D, [1.0] * D, [2.0] * D, [3.0] * D])
    close(step(make("krum", n_attackers=0), steps[[1, 2, 0, 3]]), steps[1])
    close(step(make("krum", n_attackers=0), steps[[2, 1, 0, 3]]), steps[2])


@pytest.mark.parametrize(("n", "f"), [(3, 0), (7, 1), (9, 1), (11, 2)])
def test_bulyan_is_the_published_two_steps(n: int, f: int) -> None:
    steps = rows(n, n)
    left, chosen = list(range(n)), []
    while len(chosen) < n - 2 * f:
        chosen.append(left.pop(int(np.argmin(krum_scores(steps[left], f)))))
    expected = []
    for column in steps[chosen].T:
        middle = np.median(column)
        nearest = sorted(column, key=lambda value: abs(value - middle))[: n - 4 * f]
        expected.append(np.mean(nearest))
    close(step(make("bulyan", n_attackers=f), steps), np.array(expected))


def test_of_values_equally_near_the_median_bulyan_keeps_the_lower() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        n = int(generator.integers(3, 12))
        n_kept = int(generator.integers(1, n + 1))
        ascending = np.sort(generator.integers(-4, 5, size=(n, 40)).astype(float), axis=0)
        nearest = np.argsort(np.abs(ascending - np.median(ascending, axis=0)), axis=0, kind="stable")[:n_kept]
        expected = np.take_along_axis(ascending, nearest, axis=0).mean(axis=0)
        close(mean_around_median(torch.tensor(generator.permutation(ascending)), n_kept).numpy(), expected)


def test_geometric_median_is_the_minimum_that_scipy_finds() -> None:
    steps = rows(7)
    for examples in ([1] * 7, [5, 1, 1, 2, 1, 3, 1]):
        rule = make("geometric_median", by_examples=True, max_iterations=2000, tolerance=1e-14)

        def cost(point: np.ndarray, examples: list[int] = examples) -> float:
            return float(np.average(np.linalg.norm(steps - point, axis=1), weights=examples))

        found = scipy.optimize.minimize(cost, steps.mean(axis=0), method="BFGS", options={"gtol": 1e-9}).x
        close(step(rule, steps, examples=examples), found, rtol=1e-5)


def test_geometric_median_on_a_line_is_the_median() -> None:
    steps = np.outer([0.0, 1.0, 5.0, 6.0, 100.0], np.ones(D))
    close(step(make("geometric_median", max_iterations=1000), steps), np.full(D, 5.0), rtol=1e-5)


def test_centred_clipping_is_the_published_recursion() -> None:
    rule = make("centred_clipping", radius=1.5, iterations=2)
    v = np.zeros(D)
    for number in range(3):
        steps = rows(5, number)
        for _ in range(2):
            lengths = np.linalg.norm(steps - v, axis=1, keepdims=True)
            v = v + ((steps - v) * np.minimum(1, 1.5 / lengths)).mean(axis=0)
        close(step(rule, steps, number), v)


@pytest.mark.parametrize("radius", [0.5, 2.0, None])
def test_norm_clipping_shortens_the_long_ones(radius: float | None) -> None:
    steps = rows(5)
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    limit = np.median(lengths) if radius is None else radius
    close(step(make("norm_clipping", radius=radius), steps), (steps * np.minimum(1, limit / lengths)).mean(axis=0))


def test_norm_clipping_leaves_updates_of_no_length_alone() -> None:
    close(step(make("norm_clipping"), np.zeros((3, D))), np.zeros(D))


def test_dnc_scores_are_projections_on_numpys_singular_vector() -> None:
    steps = rows(7)
    centred = steps - steps.mean(axis=0)
    expected = (centred @ np.linalg.svd(centred)[2][0]) ** 2
    scores = outlier_scores(torch.tensor(steps)).numpy()
    close(scores * np.abs(centred).max() ** 2, expected, rtol=1e-8)
    kept = np.sort(np.argsort(expected)[:4])
    close(step(make("dnc", n_attackers=2, filter_fraction=1.5), steps), steps[kept].mean(axis=0))


def test_dnc_without_attackers_is_the_mean() -> None:
    close(step(make("dnc", n_attackers=0), rows(4)), rows(4).mean(axis=0))


def test_dnc_keeps_only_who_never_stands_out() -> None:
    steps = rows(9, 3)
    rule = make("dnc", n_attackers=1, n_coordinates=2, iterations=3, seed=4)
    moved = step(rule, steps)
    left_out = [set(out) for k in range(1, 4) for out in itertools.combinations(range(9), k)]
    matching = [out for out in left_out if np.allclose(np.delete(steps, list(out), axis=0).mean(axis=0), moved)]
    assert len(matching) == 1
    close(step(make("dnc", n_attackers=1, n_coordinates=2, iterations=3, seed=4), steps), moved)


def rooted(own: np.ndarray) -> Callable[..., dict[str, torch.Tensor]]:
    return lambda state, version: {"w": state["w"] + torch.tensor(own).reshape(2, 3)}


def test_fltrust_weights_by_the_cosine_to_the_root_update() -> None:
    steps, own = rows(6), rows(1, 9)[0]
    lengths = np.linalg.norm(steps, axis=1)
    trust = np.maximum(0, steps @ own / (lengths * np.linalg.norm(own)))
    assert 0 < (trust == 0).sum() < 6
    stretched = steps * (np.linalg.norm(own) / lengths)[:, None]
    close(step(make("fltrust", root_update=rooted(own)), steps), np.average(stretched, axis=0, weights=trust))


def test_fltrust_trains_from_the_state_and_version_of_the_round() -> None:
    asked = []

    def root_update(state: dict[str, torch.Tensor], version: int) -> dict[str, torch.Tensor]:
        asked.append((state["w"].clone(), version))
        return {"w": state["w"] + 1}

    step(make("fltrust", root_update=root_update), rows(2) + 3, number=8)
    ((state, version),) = asked
    assert version == 8
    assert torch.equal(state, torch.tensor(BASE).reshape(2, 3))


def test_fltrust_is_refused_without_root_data_or_trust() -> None:
    with pytest.raises(ValueError, match="fltrust needs a root data set"):
        make("fltrust")
    with pytest.raises(ValueError, match="training on the root data set changed nothing"):
        step(make("fltrust", root_update=rooted(np.zeros(D))), rows(3))
    with pytest.raises(ValueError, match="all 3 weights are zero"):
        step(make("fltrust", root_update=rooted(np.ones(D))), -np.ones((3, D)))
    with pytest.raises(ValueError, match=r"server \(root data\): 'w' holds NaN"):
        step(make("fltrust", root_update=rooted(np.full(D, np.nan))), rows(3))


def test_trust_weighted_is_the_weighted_mean() -> None:
    steps = rows(3)
    trust = {"client-00": 0.5, "client-01": 0.0, "client-02": 2.0, "absent": 1.0}
    close(step(make("trust_weighted", trust=trust), steps), np.average(steps, axis=0, weights=[0.5, 0, 2]))
    rule = make("trust_weighted", trust=trust, by_examples=True)
    close(step(rule, steps, examples=[4, 9, 1]), np.average(steps, axis=0, weights=[2, 0, 2]))
    seen = make("trust_weighted", trust=lambda state, updates: {u.client: float(u.num_examples) for u in updates})
    close(step(seen, steps, examples=[4, 9, 1]), np.average(steps, axis=0, weights=[4, 9, 1]))


def test_trust_that_is_absent_negative_or_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="trust_weighted needs trust"):
        make("trust_weighted")
    for trust, says in (
        ({"client-00": 1.0}, "told no trust in client client-01; it was told: client-00"),
        ({"client-00": 1.0, "client-01": -1.0}, "a trust of -1 in client client-01"),
        ({"client-00": float("nan"), "client-01": 1.0}, "a trust of nan in client client-00"),
        ({"client-00": 0.0, "client-01": 0.0}, "by trust, and all 2 weights are zero"),
    ):
        with pytest.raises(ValueError, match=says):
            step(make("trust_weighted", trust=trust), rows(2))


def test_bucketing_gives_the_means_of_disjoint_buckets_to_the_rule() -> None:
    seen: list[Update] = []

    def inner(state: dict[str, torch.Tensor], updates: list[Update]) -> dict[str, torch.Tensor]:
        seen[:] = updates
        return state

    steps = np.eye(D)[:5] * 2.0
    step(make("bucketing", rule=inner, size=2, seed=3), steps, examples=[1, 2, 4, 8, 16])
    assert [update.client for update in seen] == ["bucket-1", "bucket-2", "bucket-3"]
    means = np.array([update.state["w"].numpy().reshape(-1) - BASE for update in seen])
    assert sorted((means > 1e-9).sum(axis=1)) == [1, 2, 2]
    close(means.sum(axis=0)[:5], np.where(means[:, :5].max(axis=0) > 1.5, 2.0, 1.0))
    assert sum(update.num_examples for update in seen) == 31


def test_bucketing_draws_anew_in_each_round_and_the_same_by_seed() -> None:
    steps = rows(8)
    first, again = (make("bucketing", rule="median", seed=1) for _ in range(2))
    close(step(first, steps, 1), step(again, steps, 1))
    assert not np.allclose(step(first, steps, 1), step(first, steps, 2))
    assert not np.allclose(step(first, steps, 1), step(make("bucketing", rule="median", seed=2), steps, 1))


def test_small_distances_between_large_updates_are_kept() -> None:
    far = torch.full((30, 50), 1e8, dtype=torch.float64)
    far[1, 0] += 1.0
    assert squared_distances(far)[0, 1] == 1.0
    assert squared_distances(far)[0, 2] == 0.0


@pytest.mark.parametrize(
    ("name", "options", "n", "says"),
    [
        (
            "krum",
            {"n_attackers": 1},
            3,
            "krum with 1 attacker needs at least 5 clients (n >= 2f + 3); this round has 3",
        ),
        ("krum", {"n_attackers": 2}, 6, "krum with 2 attackers needs at least 7 clients"),
        ("multi_krum", {"n_attackers": 1}, 4, "multi_krum with 1 attacker needs at least 5 clients"),
        ("multi_krum", {"n_attackers": 1, "n_selected": 4}, 6, "at least 7 clients (n >= m + f + 2 to select m = 4)"),
        ("bulyan", {"n_attackers": 1}, 6, "bulyan with 1 attacker needs at least 7 clients (n >= 4f + 3)"),
        ("trimmed_mean", {"n_attackers": 2}, 4, "trimmed_mean with 2 attackers needs at least 5 clients (n >= 2f + 1)"),
        (
            "trimmed_mean",
            {"share": 0.1},
            9,
            "trims nothing: a share of 0.1 of 9 clients is less than one client; a share",
        ),
        ("dnc", {"n_attackers": 2}, 4, "leaves out 2 clients and needs at least 5; this round has 4"),
        ("dnc", {"n_attackers": 1, "filter_fraction": 4.0}, 4, "leaves out 4 clients and needs at least 5"),
        (
            "bucketing",
            {"rule": "krum", "n_attackers": 1},
            8,
            "made 4 buckets, which stand for clients, of 8 clients: k",
        ),
    ],
)
def test_a_round_with_too_few_clients_is_refused(name: str, options: dict[str, object], n: int, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        step(make(name, **options), rows(n))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("bucketing", {"rule": "median", "size": 1}, "buckets of fewer than 2 clients change nothing"),
        ("bulyan", {"n_attackers": -1}, "n_attackers must be at least 0"),
        ("centred_clipping", {"radius": 0.0}, "radius of 0; it must be above 0"),
        ("centred_clipping", {"iterations": 0}, "at least 1 is needed"),
        ("dnc", {"n_attackers": 1, "iterations": 0}, "at least 1 iteration"),
        ("fedadam", {"beta2": 1.0}, "beta2 of 1; it must be at least 0 and below 1"),
        ("fedadam", {"tau": 0.0}, "tau of 0; it must be above 0"),
        ("fedavgm", {"momentum": 1.0}, "momentum of 1; it must be at least 0 and below 1"),
        ("geometric_median", {"nu": 0.0}, "nu = 0; it must be above 0"),
        ("norm_clipping", {"radius": float("nan")}, "radius of nan"),
        ("trimmed_mean", {"n_attackers": 0}, "trims nothing; use fedavg"),
        ("trimmed_mean", {"share": 0.5}, "above 0 and below 0.5"),
        ("trimmed_mean", {}, "needs either n_attackers or share"),
    ],
)
def test_an_option_out_of_range_is_refused(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(name, **options)
