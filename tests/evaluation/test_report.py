import csv
import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from evaluation.examples import arm_runs, example, rows, run_folder
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.console import attack_table, table
from hcqsfl.evaluation.report import escape_tex, read_run, write_report, write_tables
from hcqsfl.evaluation.result import MAJORITY, summarise


class Page(HTMLParser):
    """What a browser would make of the page: elements, their attributes and the text outside styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    leak = {"kind": "identity", "what": "src_ip alone has AUC 0.99", "allowed_by": "--allow-leak=identity"}
    return [
        run_folder(root / "one", example(seeds=(0, 1))),
        run_folder(root / "two", example(n_classes=2, synthetic=False, leaks=[leak])),
    ]


@pytest.fixture(scope="module")
def pages(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    made = [write_report([folder], out / f"{folder.name}.html") for folder in folders]
    return [Page(path.read_text()) for path in made]


def test_the_page_needs_nothing_else(pages):
    for page in pages:
        assert page.open == []
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
        images = [attributes for tag, attributes in page.elements if tag == "img"]
        assert len(images) == 8  # forest, subjects, learning, three confusions, bytes, clients
        assert all(image["src"].startswith("data:image/svg+xml;base64,") and image["alt"] for image in images)
        targets = [a["href"] for _, a in page.elements if "href" in a]
        assert all(target.startswith("#") for target in targets)
        assert any("default-src 'none'" in (a.get("content") or "") for _, a in page.elements)


def test_the_banner_stands_on_made_up_recordings_only(pages):
    made_up, real = pages
    assert "SYNTHETIC: made-up recordings" in made_up.text
    assert "SYNTHETIC" not in real.text


def test_scores_stand_beside_the_majority_class_which_comes_first(pages, folders):
    result = read_run(folders[0]).result
    got = result.arms[0].metrics["macro_f1"]
    assert f"{got.value:.3f} [{got.low:.3f}, {got.high:.3f}]" in pages[0].text
    scores = pages[0].text.split("Scores")[1]
    assert scores.index(MAJORITY) < scores.index("hybrid") < scores.index("classical") < scores.index("frozen")


def test_what_a_reader_must_know_is_on_the_page(pages, folders):
    for page, folder in zip(pages, folders, strict=True):
        run = read_run(folder)
        for said in [*run.result.notes, run.result.command, *(c.sentence for c in run.result.comparisons[:1])]:
            assert " ".join(said.split()) in page.text
        assert "Mean F1 over the full label set, always" in page.text
        assert 'name = "a & b <c>"' in page.text
    assert "overridden by --allow-leak=identity" in pages[1].text
    assert "AUROC" in pages[1].text
    assert "one seed only" in pages[1].text


def test_names_are_shown_and_not_obeyed(tmp_path):
    nasty = "<script>alert('x')</script> & \"q\" $x^{$"
    arms = [arm_runs("hybrid"), arm_runs(nasty, "classical")]
    settings = {"seed": 0, "synthetic": False, "versions": {nasty: nasty}, "command": nasty, "n_resamples": 50}
    data = {"title": nasty, nasty: [nasty], "class_counts": {nasty: {nasty: [1, 2, 3]}}, "clients": {nasty: [1, 2, 3]}}
    leaks = [{"kind": nasty, "what": nasty, "allowed_by": nasty}]
    result = summarise(nasty, arms, config={}, data=data, leaks=leaks, notes=[nasty], **settings)
    html = write_report([run_folder(tmp_path / "run", result)], tmp_path).read_text()
    assert "<script" not in html
    page = Page(html)
    assert page.open == []
    assert page.text.count(nasty) > 10


def test_the_same_run_gives_the_same_page(folders, tmp_path):
    first, second = write_report(folders[:1], tmp_path / "a"), write_report(folders[:1], tmp_path / "b" / "page.html")
    assert (first.name, second.name) == ("report.html", "page.html")
    assert first.read_bytes() == second.read_bytes()


def test_several_runs_stand_side_by_side(folders, tmp_path):
    page = Page(write_report(folders, tmp_path).read_text())
    assert "Side by side" in page.text
    assert "SYNTHETIC in part" in page.text
    sections = [a["id"] for tag, a in page.elements if tag == "section"]
    assert sections == ["run0", "run1"]
    assert [a["href"] for _, a in page.elements if "href" in a] == ["#run0", "#run1"]


def test_a_run_by_row_without_rounds_has_a_page(tmp_path):
    result = example(unit="row", data={}, synthetic=False)
    folder = run_folder(tmp_path / "run", result)
    (folder / "metrics.jsonl").write_text("")
    page = Page(write_report([folder], tmp_path).read_text())
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 4
    assert "Differences of the pooled metric" in page.text


@pytest.mark.parametrize("lacks", ["result.json", "metrics.jsonl", "config.toml"])
def test_a_run_that_lacks_a_file_is_refused(tmp_path, lacks):
    folder = run_folder(tmp_path / "run")
    (folder / lacks).unlink()
    with pytest.raises(ValueError, match=rf"there is no {re.escape(lacks)} in"):
        write_report([folder], tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_run_that_was_cut_off_is_refused(tmp_path):
    folder = run_folder(tmp_path / "run")
    whole = (folder / "result.json").read_text()
    (folder / "result.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut off"):
        write_report([folder], tmp_path)
    with pytest.raises(ValueError, match="no run folder"):
        write_report([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(ValueError, match="no run was named"):
        write_report([], tmp_path)


def test_the_csv_holds_every_number_exactly(folders, tmp_path):
    csv_path, *_ = write_tables(folders, tmp_path)
    with csv_path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 * 5 + 4 * 7  # arms by metrics; AUROC and AUPRC where there are two classes
    result = read_run(folders[1]).result
    line = next(x for x in lines if (x["run"], x["arm"], x["metric"]) == ("two", "classical", "auroc"))
    got = result.arms[1].metrics["auroc"]
    assert (float(line["value"]), float(line["low"]), float(line["high"])) == (got.value, got.low, got.high)
    assert line["synthetic"] == "False"
    assert float(line["bytes_up_per_round"]) == 10_150
    assert next(x for x in lines if x["arm"] == MAJORITY)["bytes_up_per_round"] == ""


def test_the_latex_table_is_balanced_and_stamped(folders, tmp_path):
    _, tex_path, _ = write_tables(folders, tmp_path)
    tex = tex_path.read_text()
    body = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + 8
    assert {line.count("&") for line in body} == {1 + 7}
    assert "example (SYNTHETIC) & majority class" in tex
    assert tex.count("{") == tex.count("}")
    for rule in ("toprule", "midrule", "bottomrule"):
        assert rule in tex


def test_the_markdown_table_has_a_line_an_arm_and_the_units_of_its_intervals(folders, tmp_path):
    *_, md_path = write_tables(folders, tmp_path)
    text = md_path.read_text()
    got = read_run(folders[0]).result.arms[0].metrics["macro_f1"]
    assert f"{got.value:.3f} [{got.low:.2f}, {got.high:.2f}]" in text
    assert text.count("| hybrid |") == 2
    assert text.count("intervals over subjects") == 2
    assert "(SYNTHETIC)" in text


def test_latex_sees_text_and_no_commands():
    assert escape_tex("50% of a_b & {c} ~ #1 \\x $y^2$") == (
        r"50\% of a\_b \& \{c\} \textasciitilde{} \#1 \textbackslash{}x \$y\textasciicircum{}2\$"
    )
    assert escape_tex("two\nlines") == "two lines"


def test_the_terminal_shows_the_headline():
    console = Console(width=80, record=True, file=io.StringIO())
    result = example(n_classes=2)
    console.print(table(result))
    text = console.export_text()
    assert "SYNTHETIC" in text
    got = result.arms[0].metrics["macro_f1"]
    for shown in (MAJORITY, "hybrid", f"{got.value:.3f}", f"{got.low:.2f}–{got.high:.2f}", "KiB", "AUROC"):
        assert shown in text


def test_rows_of_a_run_are_read_with_it(folders):
    run = read_run(folders[0])
    assert len(run.rows) == 3 * len(rows("hybrid", seeds=(0, 1)))


def test_the_table_of_attacks_fits_a_terminal_and_marks_leaks_alone():
    shared = {
        "suite": "privacy", "attack": "linear_probe", "id": "A6", "threat": "T1", "knowledge": "enrolled rows",
        "defence": "none", "arm": "classical", "fold": "f", "seed": 0, "better": "higher", "baseline": 53.123,
        "baseline_name": "chance",
    }  # fmt: skip
    made = [
        Row(metric="top-1", score=64.455, gain=11.332, gain_low=8.1, gain_high=14.2, **shared),
        Row(metric="eer", score=0.5, gain=-10.582, gain_low=-60.03, gain_high=36.11, **shared),
        Row(metric="labels", score=None, facts={"not_applicable": "100 % by design"}, **shared),
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(attack_table(made))
    text = console.export_text()
    for shown in ("64.455 / 53.123", "+11.332*", "-10.582 ", "-60.03 to +36.11", "not applicable", "score / trivial"):
        assert shown in text
    assert text.count("A6 linear_probe") == 1
    assert "…" not in text
