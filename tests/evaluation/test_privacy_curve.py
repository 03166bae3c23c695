"""Points of privacy against utility: the most that any attack found, the front, the area, by sums a reader can do."""

import pytest

from hcqsfl.evaluation import leak_tables
from hcqsfl.evaluation import privacy_curve as curve
from hcqsfl.evaluation.attack_rows import Row


def row(defence: str, attack: str, score: float, baseline: float, low: float | None, **more) -> Row:
    given = {
        "suite": "privacy",
        "id": "A6",
        "threat": "T1",
        "knowledge": "k",
        "arm": "hybrid",
        "fold": "f",
        "seed": 0,
        "metric": "top-1",
        "better": "higher",
        "baseline_name": "chance",
        "gain": score - baseline,
        "gain_high": None if low is None else score - baseline + 0.1,
    } | more
    return Row(defence=defence, attack=attack, score=score, baseline=baseline, gain_low=low, **given)


def task(defence: str, score: float, n_bytes: float = 1000.0, **more) -> Row:
    facts = {"bytes_per_round": n_bytes}
    return row(defence, curve.TASK, score, 0.5, None, id="", threat="", metric="balanced_accuracy", facts=facts, **more)


ROWS = [
    task("none: none", 0.9),
    row("none: none", "linear_probe", 0.6, 0.2, 0.3),  # half of what chance leaves
    row("none: none", "decoder", 0.5, 2.0, 1.0, metric="nmse", better="lower", gain=1.5, id="A1"),  # three quarters
    row("none: none", "siamese", 0.99, 0.2, -0.1),  # may be chance
    row("none: none", "siamese", 0.99, 0.2, None, knowledge="of one client"),  # may be chance too: it has no interval
    row("none: none", "raw", 1.0, 0.2, 0.5, threat="raw"),  # no adversary: a ceiling
    row("none: none", "decoder", 0.99, 0.0, 0.9, metric="ssim", id="A1"),  # a metric that counts for nothing
    task("gaussian: weak", 0.8),
    row("gaussian: weak", "linear_probe", 0.4, 0.2, 0.1),
    task("gaussian: strong", 0.7),
    row("gaussian: strong", "linear_probe", 0.44, 0.2, 0.1),
    task("gaussian: all", 0.5),
    row("gaussian: all", "linear_probe", 0.1, 0.2, -0.3),
]


def test_a_leak_is_the_most_that_any_attack_surely_found() -> None:
    held = {p.strength: p for p in curve.points(ROWS, "balanced_accuracy")}
    assert held["none"].leak == pytest.approx(0.75)
    assert held["none"].by.startswith("decoder (T1")
    assert held["weak"].leak == pytest.approx(0.25)
    assert held["all"].leak == 0.0
    assert held["all"].by == ""
    by_goal = {p.strength: p for p in curve.points(ROWS, "balanced_accuracy", "identity")}
    assert by_goal["none"].leak == pytest.approx(0.5)


def test_the_front_holds_what_nothing_beats_in_both_and_the_area_is_its_sum() -> None:
    held = curve.points(ROWS, "balanced_accuracy")
    assert [p.strength for p in curve.pareto(held)] == ["all", "weak", "none"]
    assert curve.area(held) == pytest.approx(0.25 * 0.5 + 0.5 * 0.8 + 0.25 * 0.9)
    assert curve.area([]) == 0.0


def test_table_and_figure_tell_every_point(tmp_path) -> None:
    held = curve.points(ROWS, "balanced_accuracy")
    text = curve.markdown(held, "balanced_accuracy")
    assert text.count("\n| ") == 4
    assert "Area under the Pareto front: hybrid 0.750" in text
    drawn = curve.figure(ROWS, "balanced_accuracy", "Made up", synthetic=True)
    assert {ax.get_title(loc="left") for ax in drawn.axes if ax.get_visible()} >= {
        "most that any attack found",
        "identity at the cut",
        "windows at the cut",
    }
    assert curve.table(held, "balanced_accuracy").row_count == 4


def test_what_is_read_at_the_cut_and_from_updates_stands_apart() -> None:
    rows = [*ROWS, row("gaussian: weak", "linear_probe", 1.0, 0.2, 0.5, threat="T4")]

    def leaks(panel: str) -> dict[str, float]:
        return {p.strength: p.leak for p in curve.points(rows, "balanced_accuracy", panel)}

    assert curve.panels(rows) == ["windows at the cut", "identity at the cut", "identity from updates"]
    assert leaks("identity at the cut") == pytest.approx({"none": 0.5, "weak": 0.25, "strong": 0.3, "all": 0.0})
    assert leaks("identity from updates") == {"weak": 1.0}


def test_every_attack_has_a_column_and_every_setting_a_line() -> None:
    text = leak_tables.markdown(
        [
            *ROWS,
            task("none: none", 0.95, arm="frozen"),
            row("none: none", "linear_probe", 0.3, 0.2, -0.1, arm="frozen"),
        ],
        "balanced_accuracy",
    )
    assert "## Windows at the cut: nmse\n\nLess is more found; the best trivial guess has 2.000." in text
    identity = text.split("## Identity at the cut: top-1")[1].splitlines()
    assert identity[4].count("|") == 1 + 3 + 3
    assert "| none | none | 0.900, 0.950 | 0.600\\*, 0.300 | 0.990, – | 0.990, – |" in identity
    assert "| gaussian | all | 0.500, – | 0.100, – | – | – |" in identity
    assert "ssim" not in text


def test_bytes_have_a_colour_bar_where_they_differ_and_a_number_where_they_do_not() -> None:
    def bars(rows) -> tuple[list, str]:
        drawn = curve.figure(rows, "balanced_accuracy", "Made up", synthetic=True)
        return [ax.get_ylim() for ax in drawn.axes if ax.get_ylabel() == "bytes a round"], drawn.get_suptitle()

    assert bars(ROWS) == ([], "Made up, 1000 B a round each")
    (one,), title = bars([*ROWS, task("topk: half", 0.6, 500.0), row("topk: half", "linear_probe", 0.3, 0.2, 0.05)])
    assert one == pytest.approx((500, 1000), rel=1e-3)
    assert title == "Made up"
