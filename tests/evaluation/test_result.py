import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.examples import arm_runs, example, noisy
from hcqsfl.evaluation.bootstrap import interval_over_seeds
from hcqsfl.evaluation.classification import confusion, majority, value
from hcqsfl.evaluation.predictions import Predictions, concatenate
from hcqsfl.evaluation.result import MAJORITY, ArmRuns, Result, summarise, verdict
from hcqsfl.evaluation.significance import Comparison, holm, paired

NEEDS = {"seed": 7, "synthetic": False, "config": {}, "versions": {}, "command": "hcqsfl train x", "data": {}}


def test_a_result_survives_its_json(tmp_path):
    result = example(seeds=(0, 1))
    result.save(tmp_path / "result.json")
    assert Result.load(tmp_path / "result.json") == result
    assert json.loads(result.to_json())["schema_version"] == 1


def test_arrays_and_paths_are_written_as_json_has_them():
    arms = [arm_runs("hybrid")]
    given = NEEDS | {"data": {"class_counts": {"A": {"test": np.array([1, 2])}}, "n": np.int64(3), "at": Path("x/y")}}
    result = summarise("plain", arms, **given, n_resamples=50)
    assert result.data == {"class_counts": {"A": {"test": [1, 2]}}, "n": 3, "at": "x/y"}
    assert Result.from_json(result.to_json()) == result


def test_folds_are_pooled_before_scoring():
    arm = arm_runs("hybrid", seeds=(3, 4))
    result = summarise("pooled", [arm], **NEEDS, n_resamples=200)
    runs = [concatenate([arm.predictions[s, "A"], arm.predictions[s, "B"]]) for s in (3, 4)]
    got = result.arms[0]
    assert got.metrics["macro_f1"] == interval_over_seeds(runs, "macro_f1", seed=7, n_resamples=200)
    assert got.per_seed[4]["accuracy"] == value(runs[1], "accuracy")
    assert got.confusion == (confusion(runs[0]) + confusion(runs[1])).tolist()
    mine = [(p.predicted == p.y)[p.subject == "A-S0"].mean() for p in runs]
    assert got.per_subject["A-S0"]["accuracy"] == pytest.approx(np.mean(mine))
    assert result.folds == ["A", "B"]
    assert result.seeds == [3, 4]


def test_each_hybrid_arm_meets_its_controls_and_every_arm_the_majority_class():
    result = example()
    pairs = {(c.arm, c.against) for c in result.comparisons}
    assert pairs == {
        ("hybrid", "classical"),
        ("hybrid", "frozen"),
        ("hybrid", MAJORITY),
        ("classical", MAJORITY),
        ("frozen", MAJORITY),
    }
    of_f1 = [c for c in result.comparisons if c.comparison.metric == "macro_f1"]
    assert [c.p_holm for c in of_f1] == holm([c.comparison.p_value for c in of_f1])
    a, b = arm_runs("hybrid", "hybrid", 1.1), arm_runs("classical", "classical", 1.2)
    runs = [[concatenate([arm.predictions[0, f] for f in "AB"])] for arm in (a, b)]
    assert of_f1[0].comparison == paired(*runs, "macro_f1", seed=7, n_resamples=300)


def test_a_control_of_another_protocol_is_no_control():
    arms = [arm_runs("hybrid"), arm_runs("joined", "classical", protocol="centralised")]
    result = summarise("protocols", arms, **NEEDS, n_resamples=50)
    assert all(c.against == MAJORITY for c in result.comparisons)
    result = summarise("named", arms, **NEEDS, n_resamples=50, compare=[("joined", "hybrid")])
    assert ("joined", "hybrid") in {(c.arm, c.against) for c in result.comparisons}


def test_the_pooled_majority_class_ranks_nothing_even_where_folds_differ():
    """One fold trained on few positives and tested on many: pooled shares would rank the folds against the truth."""
    keys = {(0, "A"): (0.9, 0.3), (0, "B"): (0.1, 0.7)}
    rng = np.random.default_rng(0)
    predictions, trivial = {}, {}
    for key, (in_test, in_train) in keys.items():
        p = noisy(n=200, n_classes=2, truth=len(predictions))
        p = replace(p, y=(rng.random(200) < in_test).astype(int), subject=np.char.add(key[1], p.subject))
        predictions[key] = p
        trivial[key] = majority((rng.random(500) < in_train).astype(int), p)
    assert value(concatenate(list(trivial.values())), "auroc") < 0.2
    arm = ArmRuns("hybrid", "hybrid", "splitfed_v1", {}, predictions, trivial, [])
    result = summarise("folds", [arm], **NEEDS, n_resamples=50)
    base = result.baselines[0]
    assert base.metrics["auroc"].value == base.per_seed[0]["auroc"] == 0.5
    pooled = concatenate(list(predictions.values()))
    assert base.metrics["auprc"].value == pytest.approx(pooled.y.mean())
    # the class is predicted as each fold was trained
    assert base.metrics["accuracy"].value == value(concatenate(list(trivial.values())), "accuracy")


def test_rows_as_units_have_no_table_by_subject():
    result = example(unit="row", n_classes=2, folds=("test",))
    assert result.arms[0].per_subject == {}
    assert result.arms[0].metrics["accuracy"].n_units == 120
    assert any("rows are resampled as if independent" in note for note in result.notes)


@pytest.mark.parametrize(
    ("difference", "low", "high", "p_holm", "says"),
    [
        (
            -0.012,
            -0.03,
            0.01,
            0.4,
            "is not better than the classical control: Macro-F1 difference −0.012 [−0.030, +0.010]",
        ),
        (0.012, -0.01, 0.03, 0.4, "is not better than"),
        (0.05, 0.01, 0.09, 0.01, "is better than the classical control"),
        (0.05, 0.01, 0.09, 0.2, "is not significantly better than"),
        (-0.05, -0.09, -0.01, 0.01, "is worse than the classical control"),
        (0.05, 0.01, 0.09, None, "is better than the classical control by the interval alone"),
        (0.05, None, None, None, "cannot be said"),
        (None, None, None, None, "cannot be compared"),
    ],
)
def test_the_sentence_follows_from_the_figures(difference, low, high, p_holm, says):
    comparison = Comparison("macro_f1", difference, low, high, p_holm, 8, "some test")
    sentence = verdict("quantum trunk", "classical control", comparison, p_holm)
    assert sentence.startswith(("The quantum trunk", "Whether the quantum trunk"))
    assert says in sentence


def test_a_quantum_trunk_that_does_not_help_is_said_not_to():
    notes = example().notes
    assert any(n.startswith("The quantum trunk is not better than the classical control: Macro-F1") for n in notes)


def test_a_difference_over_subjects_that_pooled_scores_contradict_is_told():
    """One of 10 rows gains 5, one of 200 loses 20: +0.20 as a mean over two people, 150 against 165 of 210."""
    subject = np.array(["few"] * 10 + ["many"] * 200)
    right = {"hybrid": [8, 142], "classical": [3, 162]}

    def run(name: str) -> ArmRuns:
        hit = np.concatenate([np.arange(n) < k for n, k in zip((10, 200), right[name], strict=True)])
        y = np.arange(210) % 2
        p = Predictions(y, np.eye(2)[np.where(hit, y, 1 - y)], subject, ("no", "yes"), "subject")
        return replace(
            arm_runs(name, name, n_classes=2), predictions={(0, "A"): p}, majority={(0, "A"): majority(y, p)}
        )

    result = summarise("x", [run("hybrid"), run("classical")], **NEEDS, n_resamples=100, compared_metrics=("accuracy",))
    (told,) = [n for n in result.notes if n.startswith("Accuracy of hybrid minus classical")]
    assert "is +0.200 as a mean over subjects" in told
    assert "pooled are 0.714 and 0.786" in told
    assert "by subject +0.2" in " ".join(c.sentence for c in result.comparisons)
    assert not any(" as a mean over " in n for n in example(unit="row").notes)


def test_caveats_are_written_where_they_hold():
    few = " ".join(example(n_subjects=2).notes)
    assert "SYNTHETIC" in few
    assert "one seed only (0)" in few
    assert "few subjects (4)" in few
    assert "below 6 no paired test" in few
    many = " ".join(example(seeds=(0, 1), synthetic=False).notes)
    assert "SYNTHETIC" not in many
    assert "one seed only" not in many
    assert "few subjects" not in many
    leak = {"kind": "identity", "what": "src_ip alone has AUC 0.99", "allowed_by": "--allow-leak=identity"}
    assert "overridden by --allow-leak=identity: src_ip alone" in " ".join(example(leaks=[leak]).notes)
    wide = [arm_runs("hybrid"), arm_runs("classical", "classical", n_parameters={"front": 300, "trunk": 600})]
    notes = summarise("sizes", wide, **NEEDS, n_resamples=50).notes
    assert "differ by more than 5 % in parameters: hybrid 369, classical 900" in " ".join(notes)


def test_arms_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no arm"):
        summarise("none", [], **NEEDS)
    with pytest.raises(ValueError, match="names of their own"):
        summarise("twice", [arm_runs("hybrid"), arm_runs("hybrid")], **NEEDS)
    with pytest.raises(ValueError, match="not run alike"):
        summarise("folds", [arm_runs("hybrid"), arm_runs("classical", folds=("A",))], **NEEDS)
    other = arm_runs("classical")
    shifted = {key: replace(p, y=np.roll(p.y, 1)) for key, p in other.predictions.items()}
    with pytest.raises(ValueError, match="not tested on the same rows in seed 0, fold A"):
        summarise("rows", [arm_runs("hybrid"), replace(other, predictions=shifted)], **NEEDS)
    with pytest.raises(ValueError, match="needs a kind and what was found"):
        summarise("leaks", [arm_runs("hybrid")], **NEEDS, leaks=[{"type": "identity"}])
    with pytest.raises(ValueError, match="names the arm 'quantum'"):
        summarise("named", [arm_runs("hybrid")], **NEEDS, compare=[("quantum", "hybrid")])


def test_a_result_cut_off_anywhere_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "result.json"
    text = example().to_json()
    for length in range(0, len(text) - 2, len(text) // 40):
        path.write_text(text[:length])
        with pytest.raises(ValueError, match=r"result\.json is not JSON"):
            Result.load(path)


def test_results_of_another_version_or_shape_are_refused(tmp_path):
    content = json.loads(example().to_json())
    with pytest.raises(ValueError, match="schema version 2, and this version of hcqsfl reads 1"):
        Result.from_json(json.dumps(content | {"schema_version": 2}))
    with pytest.raises(ValueError, match="names no schema version"):
        Result.from_json("{}")
    with pytest.raises(ValueError, match="names no schema version"):
        Result.from_json("[]")
    with pytest.raises(ValueError, match="not a whole result: arms"):
        Result.from_json(json.dumps({k: v for k, v in content.items() if k != "arms"}))
    with pytest.raises(ValueError, match=r"not a whole result: surprise"):
        Result.from_json(json.dumps(content | {"surprise": 1}))
    with pytest.raises(ValueError, match=r"no result\.json in"):
        Result.load(tmp_path / "result.json")
