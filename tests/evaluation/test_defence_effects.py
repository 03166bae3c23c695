"""What defences take from the strongest attacker: the paired t-test of a textbook, corrected by Holm's."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_rel

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.clustered import compare
from hcqsfl.evaluation.defence_effects import effects, markdown, sentences
from hcqsfl.evaluation.pooled import contributions

PEOPLE = [f"S{i}" for i in range(12)]
DRAWN = np.random.default_rng(0).uniform(0.5, 0.7, 12)


def found(defence: str, values: np.ndarray, attack: str = "probe", better: str = "higher", seed: int = 0) -> Row:
    """Return the row of an attack that scored so much on each person, beside a trivial guess of 0.1 or 1."""
    trivial = 0.1 if better == "higher" else 1.0
    sign = 1 if better == "higher" else -1
    got = compare(lambda i: sign * float(values[i].mean()), lambda i: sign * trivial, PEOPLE, 0, 50)
    return Row(
        "privacy", attack, "A6", "T1", "k", defence, "hybrid", "f", seed, "top-1", better, float(values.mean()),
        trivial, "chance", gain=got.gain.value, gain_low=got.gain.low, gain_high=got.gain.high,
        facts=contributions(compare(lambda i: float(values[i].mean()), lambda i: trivial, PEOPLE, 0, 50)),
    )  # fmt: skip


def noisy(by: float, seed: int) -> np.ndarray:
    return DRAWN + by + np.random.default_rng(seed).normal(0, 0.05, 12)


def test_differences_are_those_of_the_paired_t_test_and_holm_corrects_them() -> None:
    settings = {"a: 1": noisy(-0.2, 1), "a: 2": noisy(-0.04, 2), "a: 3": noisy(0.0, 3)}
    rows = [found("none: none", DRAWN), *(found(name, values) for name, values in settings.items())]
    held = {effect.defence: effect for effect in effects(rows)}
    raw = {name: ttest_rel(values, DRAWN).pvalue for name, values in settings.items()}
    assert {name: e.difference.p_value for name, e in held.items()} == pytest.approx(raw, rel=1e-3)
    smallest, middle, _ = sorted(raw.values())
    assert held["a: 1"].p_holm == pytest.approx(3 * smallest, rel=1e-3)
    assert sorted(e.p_holm for e in held.values())[1] == pytest.approx(min(1, 2 * middle), rel=1e-3)
    assert held["a: 1"].lowers
    assert not held["a: 3"].lowers
    assert not any(e.raises for e in held.values())


def test_the_strongest_attacker_of_each_setting_counts_though_it_reads_otherwise() -> None:
    hidden = [found("a: 1", DRAWN - 0.4, "plain"), found("a: 1", DRAWN + 0.001, "adaptive")]
    (effect,) = effects([found("none: none", DRAWN, "plain"), *hidden])
    assert effect.difference.value == pytest.approx(0.001)
    assert not effect.lowers


def test_less_error_is_more_found() -> None:
    rows = [found("none: none", DRAWN, better="lower"), found("a: 1", noisy(0.3, 1), better="lower")]
    (effect,) = effects(rows)
    assert effect.difference.value > 0
    assert effect.lowers
    rows[1] = found("a: 1", noisy(-0.3, 1), better="lower")
    assert effects(rows)[0].raises


def test_trainings_are_added_up_by_person() -> None:
    rows = [found("none: none", DRAWN, seed=s) for s in (0, 1)]
    rows += [found("a: 1", noisy(-0.1, 4), seed=0), found("a: 1", noisy(-0.1, 5), seed=1)]
    (effect,) = effects(rows)
    assert effect.difference.n_trainings == 2
    mean = (noisy(-0.1, 4) + noisy(-0.1, 5)) / 2
    assert effect.difference.p_value == pytest.approx(ttest_rel(mean, DRAWN).pvalue, rel=1e-2)


def test_where_nothing_leaks_or_nothing_is_undefended_there_is_nothing_to_compare() -> None:
    nothing = found("none: none", np.tile([0.0, 0.2], 6))
    assert effects([nothing, found("a: 1", DRAWN)]) == []
    assert effects([found("a: 1", DRAWN), found("a: 2", DRAWN)]) == []
    untold = replace(found("a: 1", DRAWN), facts={})
    assert effects([found("none: none", DRAWN), untold]) == []
    assert markdown([]) == ""
    assert sentences([]) == []


def test_a_trunk_that_leaks_by_another_measure_alone_has_no_sentence() -> None:
    rows = [found("none: none", DRAWN), found("a: 1", noisy(-0.4, 1))]
    others = [replace(row, arm="classical", metric="top-5") for row in rows]
    held = effects(rows + others)
    assert {effect.arm for effect in held} == {"hybrid", "classical"}
    assert [said.partition(",")[0] for said in sentences(held)] == ["identity at the cut"]
    assert "hybrid" in sentences(held)[0]


def test_what_is_certain_is_told_by_panel_and_bold() -> None:
    rows = [found("none: none", DRAWN), found("noise: 1", noisy(-0.4, 1)), found("codec: int8", noisy(0.0, 3))]
    held = effects(rows)
    assert sentences(held) == [
        "identity at the cut, hybrid trunk, top-1: 1 of 2 settings leave the strongest attacker less than no defence "
        "does, after Holm's correction (noise: 1)"
    ]
    table = markdown(held).splitlines()
    assert table[0] == "## Beside no defence: identity at the cut, top-1"
    (noise,) = (line for line in table if line.startswith("| noise | 1 |"))
    (codec,) = (line for line in table if line.startswith("| codec | int8 |"))
    assert "**−0.388 [−0.41, −0.37]**, p < 0.001" in noise
    assert "**" not in codec
