"""Rows over several trainings: a subject who is in all of them counts once."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_rel

from hcqsfl import build, config
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.clustered import compare, time_blocks
from hcqsfl.evaluation.pooled import INFLUENCE, contributions, differences, mean_score, pool, without_parts
from hcqsfl.recipes.attack import attack
from hcqsfl.recipes.victim import victims
from privacy.made_run import made_run


def row(values: dict[str, float], fold: str, seed: int = 0) -> Row:
    """Return the row of an attack that scored so much on each subject, beside a trivial guess of 0."""
    units, scores = list(values), np.array(list(values.values()))
    found = compare(lambda i: float(scores[i].mean()), lambda i: 0.0, units, 0, 50)
    return Row(
        "privacy", "a", "A1", "T1", "k", "none", "hybrid", fold, seed, "r", "higher", found.score.value, 0.0, "zero",
        gain=found.gain.value, n_rows=len(units), n_units=len(units), facts=contributions(found),
    )  # fmt: skip


def test_contributions_squared_are_the_textbook_variance_of_a_mean() -> None:
    values = {f"S{i}": v for i, v in enumerate((0.1, 0.4, 0.3, 0.8, 0.2))}
    squares = sum(v * v for v in row(values, "f").facts[INFLUENCE].values())
    assert squares == pytest.approx(np.var(list(values.values()), ddof=1) / 5)


def test_the_same_people_again_tell_nothing_new_and_other_people_do() -> None:
    rng = np.random.default_rng(0)
    values = dict(zip((f"S{i}" for i in range(12)), rng.normal(0.5, 0.2, 12), strict=True))
    others = {f"other {name}": value for name, value in values.items()}
    (same,) = pool([row(values, "f"), row(values, "f", 1)])
    (more,) = pool([row(values, "f"), row(others, "g")])
    one = np.std(list(values.values()), ddof=1) / 12**0.5
    assert same.gain == pytest.approx(more.gain) == pytest.approx(np.mean(list(values.values())))
    assert (same.gain_high - same.gain) == pytest.approx(2.201 * one, rel=1e-3)  # t with 11 degrees of freedom
    assert (more.gain_high - more.gain) == pytest.approx(2.069 * one / 2**0.5, rel=0.05)
    assert (same.n_units, more.n_units) == (12, 24)
    assert same.facts["pooled"] == ["f, seed 0", "f, seed 1"]


def test_two_arms_are_compared_on_the_same_people_as_by_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    people = [f"S{i}" for i in range(10)]
    shared = rng.normal(0.5, 0.3, 10)  # people differ far more than arms do
    ours, theirs = shared + 0.1 + rng.normal(0, 0.02, 10), shared + rng.normal(0, 0.02, 10)
    rows = [
        replace(row(dict(zip(people, values, strict=True)), "f", seed), arm=arm)
        for arm, values in (("hybrid", ours), ("classical", theirs))
        for seed in (0, 1)
    ]
    (found,) = differences(rows, "hybrid", "classical")
    reference = ttest_rel(ours, theirs).confidence_interval()
    assert found.value == pytest.approx((ours - theirs).mean())
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-5)
    assert (found.n_trainings, found.n_units) == (2, 10)
    (pooled,) = [r for r in pool(rows) if r.arm == "hybrid"]
    half = 2.262 * np.std(ours, ddof=1) / 10**0.5
    assert (pooled.low, pooled.high) == pytest.approx((ours.mean() - half, ours.mean() + half), abs=1e-3)
    alone = [r for r in rows if r.arm == "hybrid" or r.seed == 0]
    assert differences(alone, "hybrid", "classical")[0].n_trainings == 1
    assert differences(alone, "hybrid", "frozen") == []


def test_a_pooled_row_stands_for_its_parts_and_a_single_one_for_itself() -> None:
    parts = [row({"A": 0.1, "B": 0.3}, "f"), row({"A": 0.2, "C": 0.3}, "g")]
    alone = replace(parts[0], attack="b")
    (pooled,) = pool([*parts, alone])
    assert without_parts([*parts, alone, pooled]) == [alone, pooled]
    untold = [replace(part, facts={}) for part in parts]
    assert pool(untold)[0].gain_low is None


def test_the_budget_of_a_pooled_row_is_that_of_one_training() -> None:
    parts = [replace(row({"A": 0.1, "B": 0.3}, "f", seed), evaluations=n) for seed, n in ((0, 5000), (1, 4001))]
    (pooled,) = pool([replace(part, seconds=part.seed + 1.0) for part in parts])
    assert (pooled.evaluations, pooled.seconds) == (4501, 1.5)  # a half is an evaluation


def test_a_single_row_of_very_many_units_has_the_interval_that_it_came_with() -> None:
    alone = replace(row({"A": 0.1, "B": 0.3}, "f"), facts={}, low=0.1, high=0.3)
    assert mean_score([alone]) == (alone.score, 0.1, 0.3)
    assert mean_score([alone, replace(alone, seed=1)])[1:] == (None, None)


@pytest.mark.parametrize(("metric", "ends"), [("robust balanced accuracy", True), ("heart_rate_error", False)])
def test_the_interval_of_a_rate_ends_at_one_and_that_of_an_error_does_not(metric: str, ends: bool) -> None:
    parts = [replace(row({"A": 0.5, "B": 1.0, "C": 1.0}, fold), metric=metric) for fold in "fg"]
    (pooled,) = pool(parts)
    assert pooled.high is not None
    assert (pooled.high == 1.0) == ends
    reach = 4.303 * np.std([0.5, 1.0, 1.0], ddof=1) / 3**0.5  # t with 2 degrees of freedom
    assert pooled.low == pytest.approx(pooled.score - reach, abs=1e-3)


def test_rows_of_one_training_that_do_not_tell_themselves_apart_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="does not tell its settings apart"):
        pool([row({"A": 0.1, "B": 0.3}, "f"), row({"A": 0.2, "B": 0.3}, "f")])


def test_stretches_of_time_hold_neighbours_and_are_equally_long() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(200)
    blocks = np.array(time_blocks(np.zeros(200, int), order, 20))
    in_time = blocks[np.argsort(order)]
    assert [len(set(in_time[i : i + 10])) for i in range(0, 200, 10)] == [1] * 20
    assert len(set(blocks)) == 20
    bursts = np.repeat(rng.normal(size=20), 10)[order]  # ten flows alike: ten rows that are worth one

    def width(units) -> float:
        found = compare(lambda i: float(bursts[i].mean()), lambda i: 0.0, units, 0, 400).gain
        return found.high - found.low

    assert width(blocks.tolist()) > 2 * width([str(i) for i in range(200)])


def test_all_trainings_of_a_run_can_be_attacked_and_are_named(tmp_path, monkeypatch) -> None:
    sets = ["split.only=[]", "federation.rounds=1", "evaluation.n_resamples=100", "evaluation.controls=['classical']"]
    run = made_run(tmp_path, monkeypatch, *sets)
    ask = {
        "cache": tmp_path / "cache",
        "only": ["label_direction", "label_clusters", "linear_probe"],
        "arms": ["hybrid"],
    }
    rows = attack(run, "privacy", "smoke", networks="all", **ask)
    singles = [r for r in rows if "pooled" not in r.facts and r.score is not None]
    pooled = [r for r in rows if "pooled" in r.facts]
    assert len({r.fold for r in singles}) == 2
    assert len(pooled) * 2 == len(singles)
    assert {r.fold for r in pooled} == {"2 trainings"}
    read = {r.knowledge.rpartition("; reads ")[2] for r in pooled if r.attack in ("label_clusters", "linear_probe")}
    assert read >= {"smashed", "gradient_smashed", "gradient_features"}
    assert all(r.n_units >= 4 for r in pooled if r.attack == "label_direction")
    fold = singles[-1].fold
    (only,) = {r.fold for r in attack(run, "privacy", "smoke", networks=f"0/{fold}", **ask)}
    assert only == fold
    settings = config.load(run / "config.toml")
    windows = build.windows(settings, tmp_path / "cache")
    with pytest.raises(ValueError, match="no finished training '7/x'; say all, how many"):
        victims(run, settings, windows, ["hybrid"], 1, 1, "7/x")
