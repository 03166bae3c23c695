"""Defences are ranked by the attack that does most against each, with intervals over seeds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.poisoning_ranking import ACCURACY, SUCCESS, Spread, cells, curves, markdown, ranking

GAINS = {
    ("flip", "fedavg"): [0.30, 0.34, 0.38],
    ("flip", "median"): [0.02, 0.04, 0.03],
    ("tailored", "fedavg"): [0.10, 0.10, 0.10],
    ("tailored", "median"): [0.20, 0.10, 0.18],
}


def row(attack: str, defence: str, seed: int, gain: float | None, metric: str = ACCURACY, share: float = 0.4) -> Row:
    facts = {"n_attackers": 8 if attack else 0, "share": share}
    score = None if gain is None else 0.9 - gain if metric == ACCURACY else 0.1 + gain
    return Row(
        "poisoning", attack, "A11", "T8", "", defence, "hybrid", "whole", seed, metric, "lower", score, 0.9, "",
        gain=gain, facts=facts,
    )  # fmt: skip


def grid() -> list[Row]:
    rows = [row(a, d, seed, gain) for (a, d), gains in GAINS.items() for seed, gain in enumerate(gains)]
    rows += [row("", d, seed, 0.01 * seed, share=0.0) for d in ("fedavg", "median") for seed in range(3)]
    return rows + [row("flip", "krum", seed, 0.0) for seed in range(3)] + [row("tailored", "krum", 0, None)]


def test_a_defence_stands_where_its_worst_attack_leaves_it() -> None:
    first, second = ranking(grid())  # krum did not meet the tailored attack
    assert (first.defence, first.attack, second.defence, second.attack) == ("median", "tailored", "fedavg", "flip")
    assert first.gain.value == pytest.approx(np.mean(GAINS["tailored", "median"]))
    assert first.score.value == pytest.approx(0.9 - first.gain.value)
    assert first.honest is not None
    assert first.honest.value == pytest.approx(0.89)


def test_what_a_defence_saves_is_paired_by_seed() -> None:
    place = ranking(grid())[0]
    each = np.subtract(GAINS["flip", "fedavg"], GAINS["tailored", "median"])
    known = ttest_1samp(each, 0.0).confidence_interval(0.95)
    assert place.saved is not None
    assert (place.saved.value, place.saved.low, place.saved.high) == pytest.approx((each.mean(), known.low, known.high))


def test_one_seed_has_no_interval() -> None:
    assert Spread.of([0.3]) == Spread(0.3, None, None, 1)


def test_every_cell_shows_each_seed_beside_its_mean() -> None:
    rows = [*grid(), replace(row("flip", "fedavg", 0, 0.1), arm="classical")]
    lines = cells(rows[::-1]).splitlines()
    assert lines[0] == "| attackers | attack | defence | classical | hybrid |"
    assert "| 40 % | flip | fedavg | 0.800 | 0.560 (0.600, 0.560, 0.520) |" in lines
    assert "| 40 % | tailored | median | – | 0.740 (0.700, 0.800, 0.720) |" in lines
    assert len(lines) == 2 + 2 + 5  # without attackers, and under each attack that the rule could meet
    assert cells(rows, SUCCESS) == ""


def test_tables_and_curves_show_every_place() -> None:
    rows = grid() + [row("backdoor", d, seed, 0.5, SUCCESS) for d in ("fedavg", "median") for seed in range(3)]
    text = markdown(ranking(rows))
    assert text.count("\n") == 4
    assert "| hybrid | 40 % | median | 89.0 [" in text
    drawn = curves(rows, synthetic=True)
    assert drawn is not None
    dots, _, own_dots, line = drawn.axes[0].lines
    assert drawn.axes[0].get_legend_handles_labels()[1] == ["plain mean", "median"]
    assert dots.get_ydata() == pytest.approx([0.9 - gain for gain in GAINS["flip", "fedavg"]])
    assert own_dots.get_ydata() == pytest.approx([0.9 - gain for gain in GAINS["tailored", "median"]])
    assert line.get_ydata() == pytest.approx([0.89, 0.9 - 0.16])
    assert markdown([]) == ""
    assert curves([], synthetic=False) is None
