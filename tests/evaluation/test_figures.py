import base64

import numpy as np
import pytest
from matplotlib.figure import Figure

from evaluation.examples import example, rows
from hcqsfl.evaluation import figures
from hcqsfl.evaluation.result import MAJORITY, Result

TWO_ARMS = [*rows("hybrid", seeds=(0, 1)), *rows("classical")]


@pytest.fixture(scope="module")
def result() -> Result:
    return example(seeds=(0, 1))


def all_figures(result: Result) -> dict[str, Figure]:
    made_up = result.synthetic
    return {
        "confusion": figures.confusion(result.arms[0].confusion, result.classes, title="hybrid", synthetic=made_up),
        "learning": figures.learning_curves(TWO_ARMS, synthetic=made_up),
        "subjects": figures.per_subject(result),
        "bytes": figures.bytes_per_round(TWO_ARMS, synthetic=made_up),
        "forest": figures.forest(result),
        "clients": figures.clients({"a": [3, 4, 5], "b": [0, 1, 2]}, result.classes, synthetic=made_up),
    }


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda o: hasattr(o, "get_text"))]


def test_the_same_result_gives_the_same_bytes_and_no_date(result):
    again = all_figures(result)
    for name, figure in all_figures(result).items():
        svg = figures.to_svg(figure)
        assert svg == figures.to_svg(again[name]), name
        text = base64.b64decode(svg.removeprefix("data:image/svg+xml;base64,"))
        assert b"<svg" in text
        assert b"<dc:date>" not in text
    assert figures.to_png(again["bytes"]) == figures.to_png(figures.bytes_per_round(TWO_ARMS, synthetic=True))


def test_every_figure_of_made_up_recordings_says_so_and_no_other(result):
    for name, figure in all_figures(result).items():
        assert "SYNTHETIC" in texts(figure), name
    for name, figure in all_figures(result.model_copy(update={"synthetic": False})).items():
        assert "SYNTHETIC" not in texts(figure), name


def test_a_confusion_matrix_shows_counts_and_shares_of_each_true_class():
    figure = figures.confusion([[3, 1], [0, 0]], ("rest", "stress"), title="hybrid", synthetic=False)
    left, right = ([t.get_text() for t in ax.texts] for ax in figure.axes)
    assert left == ["3", "1", "0", "0"]
    assert right == ["0.75", "0.25", "–", "–"]  # no row is of the second class


def test_learning_curves_are_the_mean_of_the_runs_and_their_range():
    figure = figures.learning_curves(TWO_ARMS, synthetic=False)
    validated, loss = figure.axes
    hybrid = validated.lines[0]
    assert hybrid.get_xdata().tolist() == [1, 2, 3]  # round 0 was not validated
    # folds A and B: 0.8 - 0.4 / (r + 1) and 0.8 - 0.4 / (r + 2)
    assert hybrid.get_ydata()[0] == pytest.approx(0.8 - (0.4 / 2 + 0.4 / 3) / 2)
    band = validated.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.6)
    assert loss.lines[0].get_ydata()[0] == pytest.approx(1.11)  # seeds 1.10 and 1.12


def test_learning_without_validation_says_so():
    unvalidated = [row | {"validation": None} for row in rows("hybrid")]
    assert "no round was validated" in texts(figures.learning_curves(unvalidated, synthetic=False))


def test_each_subject_is_drawn_once_for_each_arm(result):
    (ax,) = figures.per_subject(result).axes
    lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["hybrid", "classical", "frozen", MAJORITY]
    drawn = sorted(lines["hybrid"].get_xdata())
    assert drawn == pytest.approx(sorted(row["macro_f1"] for row in result.arms[0].per_subject.values()))
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    place = names.index("A-S3")
    assert lines["hybrid"].get_xdata()[place] == result.arms[0].per_subject["A-S3"]["macro_f1"]
    assert lines[MAJORITY].get_xdata()[place] == result.baselines[0].per_subject["A-S3"]["macro_f1"]


def test_very_many_subjects_are_drawn_as_sorted_curves():
    many = example(n=900, n_subjects=70)
    (ax,) = figures.per_subject(many).axes
    assert len(ax.lines) == 4
    assert (np.diff(ax.lines[0].get_xdata()) >= 0).all()


def test_rows_as_units_have_no_subjects_to_draw():
    with pytest.raises(ValueError, match="no table by subject"):
        figures.per_subject(example(unit="row"))


def test_a_metric_undefined_for_a_subject_leaves_a_gap():
    result = example(n=8, n_subjects=6, n_classes=2)
    assert None in [row["auroc"] for row in result.arms[0].per_subject.values()]
    (ax,) = figures.per_subject(result, metric="auroc").axes
    hybrid = next(line for line in ax.lines if line.get_label() == "hybrid")
    assert np.isnan(hybrid.get_xdata()).any()


def test_bars_are_as_long_as_the_mean_bytes_of_a_round():
    (ax,) = figures.bytes_per_round(TWO_ARMS, synthetic=False).axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([n / 1024 for n in (10150, 10150, 20000, 20000)])
    assert ax.get_xlabel() == "KiB"
    assert {"9.9 KiB", "19.5 KiB"} <= set(texts(ax.figure))


def test_the_forest_has_the_majority_class_on_top_and_its_intervals(result):
    macro_f1 = figures.forest(result).axes[0]
    assert [tick.get_text() for tick in macro_f1.get_yticklabels()] == [MAJORITY, "hybrid", "classical", "frozen"]
    assert macro_f1.yaxis_inverted()
    ends = macro_f1.containers[1].lines[2][0].get_segments()[0][:, 0]
    got = result.arms[0].metrics["macro_f1"]
    assert ends == pytest.approx([got.low, got.high])


def test_bars_of_a_client_add_up_to_its_windows():
    counts = {f"client {i}": list(range(i, i + 10)) for i in range(4)}
    (ax,) = figures.clients(counts, [f"class {c}" for c in range(10)], synthetic=False).axes
    assert len({(p.get_facecolor(), p.get_hatch()) for p in ax.patches}) == 10
    assert max(p.get_x() + p.get_width() for p in ax.patches) == sum(counts["client 3"])
