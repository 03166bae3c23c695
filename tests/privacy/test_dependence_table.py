"""Distance correlation beside leaks: one table from which it can be read whether the one orders the other."""

from hcqsfl.evaluation.attack_rows import DEPENDENCE, Row
from hcqsfl.evaluation.dependence_table import beside, markdown, misordered, sentence
from hcqsfl.evaluation.privacy_curve import TASK, points
from hcqsfl.recipes.profiles import PROFILES
from hcqsfl.recipes.suites import dependence
from privacy.made_run import made_run, victim_of


def rows(defence: str, correlation: float, leak: float) -> list[Row]:
    def made(attack: str, id_: str, metric: str, score: float, **more) -> Row:
        return Row(
            "privacy", attack, id_, "T1", "", defence, "hybrid", "f", 0, metric, "higher", score, 0.0, "", **more
        )

    return [
        made(TASK, "", "balanced_accuracy", 0.8),
        made("decoder_inversion", "A1", "r", leak, gain=leak, gain_low=leak - 0.01, gain_high=leak + 0.01),
        made(DEPENDENCE, "–", "distance correlation", correlation, gain=correlation, facts={"p": 0.005}),
    ]


def test_pairs_in_the_wrong_order_are_counted_and_told() -> None:
    held = beside(
        rows("noise: 3", 0.2, 0.9) + rows("bottleneck: 2", 0.5, 0.4) + rows("none: none", 0.9, 0.95),
        "balanced_accuracy",
    )
    assert misordered(held) == (1, 3)  # the noise leaks more than the bottleneck, at a lower correlation
    assert "1 of 3 pairs" in sentence(held)
    table = markdown(held).splitlines()
    assert [line.split(" | ")[0] for line in table[2:5]] == ["| noise", "| bottleneck", "| none"]
    ordered = beside(rows("a: 1", 0.1, 0.1) + rows("b: 1", 0.2, 0.3), "balanced_accuracy")
    assert misordered(ordered) == (0, 1)


def test_dependence_counts_for_no_leak() -> None:
    (point,) = points(rows("a: 1", 0.99, 0.1), "balanced_accuracy")
    assert point.leak == 0.1
    assert point.n_attacks == 1


def test_what_crossed_depends_on_the_windows_and_other_rows_do_not(tmp_path, monkeypatch) -> None:
    sets = [
        "federation.rounds=1",
        "evaluation.n_resamples=100",
        "evaluation.controls=[]",
        "evaluation.without_control=true",
    ]
    victim = victim_of(made_run(tmp_path, monkeypatch, *sets))
    correlation, information = dependence.measured(victim, PROFILES["smoke"])
    assert correlation.score > 2 * correlation.baseline
    assert correlation.facts["p"] == 1 / 200
    assert information.score > information.baseline + 0.1
    assert not correlation.leaks
