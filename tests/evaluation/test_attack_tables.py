"""Tables of attacks: a line a setting, trunks side by side, leaks bold; the sheet holds every row."""

import csv
import io
from dataclasses import replace

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.attack_tables import markdown, sheet

SHARED = {
    "suite": "privacy", "attack": "linear_probe", "id": "A6", "threat": "T1", "defence": "none", "fold": "f", "seed": 0,
    "baseline_name": "chance",
}  # fmt: skip


def made() -> list[Row]:
    probe = {**SHARED, "knowledge": "reads smashed", "metric": "top-1", "better": "higher", "baseline": 0.1}
    error = {**SHARED, "knowledge": "reads smashed", "metric": "EER", "better": "lower", "baseline": 0.5}
    labels = {
        **SHARED,
        "attack": "label_norm",
        "id": "A9",
        "knowledge": "own, rows",
        "metric": "AUC",
        "better": "higher",
    }
    return [
        Row(arm="hybrid", score=0.34, gain=0.24, gain_low=0.1, gain_high=0.3, **probe),
        Row(arm="classical", score=0.12, gain=0.02, gain_low=-0.1, gain_high=0.1, **probe),
        Row(arm="hybrid", score=0.4, gain=0.1, **error),
        Row(arm="hybrid", score=None, baseline=None, facts={"not_applicable": "100 % by design"}, **labels),
    ]


def test_a_line_is_a_setting_with_its_trunks_side_by_side_and_leaks_bold() -> None:
    lines = markdown(made()).splitlines()
    assert lines[0] == "## Identity"
    assert lines[2] == "| Attack | Sees | Knows | Metric | Trivial guess | hybrid | classical |"
    assert {line.count("|") for line in lines if line.startswith("|")} == {8}
    cells = "| **0.340** +0.240 [+0.10, +0.30] | 0.120 +0.020 [−0.10, +0.10] |"
    assert lines[4] == f"| A6 linear_probe | T1 | reads smashed | top-1 | 0.100 {cells}"
    assert lines[5].endswith("| EER ↓ | 0.500 | 0.400 +0.100 | – |")
    assert "- Not applicable: label_norm, T1, AUC: 100 % by design." in lines


def test_a_setting_that_never_applies_is_named_once_however_many_trainings_say_so() -> None:
    refused = [
        replace(row, facts={"not_applicable": f"{n} windows are too few"}) for n, row in enumerate(made()[3:] * 3)
    ]
    lines = [line for line in markdown(refused).splitlines() if "Not applicable" in line]
    told = "label_norm, T1, AUC: 0 windows are too few (and 2 such in other settings or trainings)."
    assert lines == [f"- Not applicable: {told}"]


def test_the_sheet_holds_every_row_and_reads_back() -> None:
    read = list(csv.DictReader(io.StringIO(sheet(made()))))
    assert [row["score"] for row in read] == ["0.34", "0.12", "0.4", ""]
    assert read[3]["knowledge"] == "own, rows"
    assert read[3]["not_applicable"] == "100 % by design"
