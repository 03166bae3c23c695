"""Reports of finished runs: one HTML page that needs nothing else, and tables for papers.

A run folder holds ``config.toml`` (as resolved), ``result.json`` (see ``hcqsfl.evaluation.result``) and
``metrics.jsonl`` (see ``hcqsfl.evaluation.cost``).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hcqsfl.evaluation import figures
from hcqsfl.evaluation.bootstrap import Interval
from hcqsfl.evaluation.classification import METRICS
from hcqsfl.evaluation.cost import Row, human, read_rows
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.result import Arm, ArmComparison, Result, p_text, signed

HEADLINE = "macro_f1"


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    Attributes:
        path: of the folder.
        result: what was found.
        rows: metric rows.
        config: text of ``config.toml``.
    """

    path: Path
    result: Result
    rows: list[Row]
    config: str


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: there is no such folder, a file is missing, or one is cut off.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"there is no run folder {path}")
    result = Result.load(path / "result.json")
    for name in ("config.toml", "metrics.jsonl"):
        if not (path / name).is_file():
            raise ValueError(
                f"there is no {name} in {path}; a run folder holds config.toml, metrics.jsonl, result.json"
            )
    return Run(path, result, read_rows(path / "metrics.jsonl"), (path / "config.toml").read_text(encoding="utf-8"))


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write one self-contained HTML page about one or more runs.

    The page loads nothing: styles and figures are in it, and scripts there are none. The same runs give the same page.

    Args:
        runs: run folders; several stand side by side in a first table, then one after the other.
        out: the file (``*.html``), or the folder that takes ``report.html``.

    Returns:
        The path of the page.

    Raises:
        ValueError: there is no run, or one cannot be read; nothing is written then.
    """
    read = _read(runs)
    loader = PackageLoader("hcqsfl.evaluation", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=_number, human=human, signed=signed, p=_p, count=lambda n: f"{n:,}".replace(",", "\u202f"), plain=_plain
    )
    page = environment.get_template("report.html.j2").render(
        title=read[0].result.name if len(read) == 1 else f"{len(read)} runs",
        css=Markup(loader.get_source(environment, "report.css")[0]),  # noqa: S704 - our own file
        pages=[_page(run) for run in read],
        metrics=METRICS,
        headline=METRICS[HEADLINE],
        shared=[name for name in METRICS if any(name in arm.metrics for run in read for arm in run.result.arms)],
    )
    target = Path(out) if Path(out).suffix == ".html" else Path(out) / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, page.encode())
    return target


def write_tables(runs: Sequence[Path], out_dir: Path) -> tuple[Path, Path, Path]:
    """Write ``results.csv`` (one line for each run, arm and metric), and one line an arm as LaTeX and as Markdown.

    Returns:
        The paths of ``results.csv``, ``results.tex`` (booktabs) and ``results.md``.

    Raises:
        ValueError: there is no run, or one cannot be read.
    """
    read = _read(runs)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    csv_path, tex_path, md_path = (out_dir / f"results.{kind}" for kind in ("csv", "tex", "md"))
    write_whole(csv_path, _csv(read).encode())
    write_whole(tex_path, _tex(read).encode())
    write_whole(md_path, _markdown(read).encode())
    return csv_path, tex_path, md_path


def _read(runs: Sequence[Path]) -> list[Run]:
    if not runs:
        raise ValueError("a report was asked for, but no run was named")
    return [read_run(path) for path in runs]


def _page(run: Run) -> dict[str, Any]:
    """Return what the template says about one run."""
    result = run.result
    names = [arm.name for arm in result.arms]
    rows = [row for row in run.rows if row["arm"] in names]
    data = result.data
    return {
        "run": run,
        "result": result,
        "arms": [*result.baselines, *result.arms],
        "metrics": [name for name in METRICS if name in result.arms[0].metrics],
        "groups": _groups(result.comparisons),
        "facts": {key: value for key, value in data.items() if key not in ("class_counts", "clients")},
        "class_counts": data.get("class_counts") or {},
        "figures": _figures(result, rows, data),
    }


def _figures(result: Result, rows: Sequence[Row], data: Mapping[str, Any]) -> dict[str, Any]:
    synthetic = result.synthetic
    drawn: dict[str, Any] = {
        "forest": figures.to_svg(figures.forest(result)),
        "confusion": {
            arm.name: figures.to_svg(
                figures.confusion(arm.confusion, result.classes, title=arm.name, synthetic=synthetic)
            )
            for arm in result.arms
        },
        "subjects": figures.to_svg(figures.per_subject(result)) if result.arms[0].per_subject else None,
        "curves": figures.to_svg(figures.learning_curves(rows, synthetic=synthetic)) if rows else None,
        "bytes": figures.to_svg(figures.bytes_per_round(rows, synthetic=synthetic)) if rows else None,
        "clients": None,
    }
    if data.get("clients"):
        drawn["clients"] = figures.to_svg(figures.clients(data["clients"], result.classes, synthetic=synthetic))
    return drawn


def _groups(comparisons: Sequence[ArmComparison]) -> list[list[ArmComparison]]:
    """Gather the comparisons of each pair of arms."""
    pairs: dict[tuple[str, str], list[ArmComparison]] = {}
    for comparison in comparisons:
        pairs.setdefault((comparison.arm, comparison.against), []).append(comparison)
    return list(pairs.values())


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _p(value: float | None) -> str:
    return "–" if value is None else p_text(value)


def _plain(value: Any) -> str:
    """Write a fact about the data for people: lists with commas, mappings with colons."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


_CSV = (
    "run", "experiment", "synthetic", "arm", "trunk", "protocol", "parameters", "metric", "value", "low", "high",
    "n_units", "unit", "seeds", "folds", "bytes_up_per_round", "bytes_down_per_round", "method",
)  # fmt: skip


def _csv(runs: Sequence[Run]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for run in runs:
        result = run.result
        for arm in (*result.baselines, *result.arms):
            for metric, got in arm.metrics.items():
                values: dict[str, object] = {
                    "run": run.path.name,
                    "experiment": result.name,
                    "synthetic": result.synthetic,
                    "arm": arm.name,
                    "trunk": arm.trunk,
                    "protocol": arm.protocol,
                    "parameters": sum(arm.n_parameters.values()),
                    "metric": metric,
                    "value": got.value,
                    "low": got.low,
                    "high": got.high,
                    "n_units": got.n_units,
                    "unit": result.unit,
                    "seeds": len(result.seeds),
                    "folds": len(result.folds),
                    "bytes_up_per_round": arm.cost.bytes_up_per_round if arm.cost else None,
                    "bytes_down_per_round": arm.cost.bytes_down_per_round if arm.cost else None,
                    "method": got.method,
                }
                writer.writerow([values[column] for column in _CSV])
    return text.getvalue()


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": r"$-$", "–": "--", "…": r"\dots{}", "µ": r"\textmu{}",
}  # fmt: skip


def escape_tex(text: str) -> str:
    """Write text such that LaTeX sets it as it stands, on one line."""
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def _markdown(runs: Sequence[Run]) -> str:
    names = _metrics_of(runs)
    lines = []
    for run in runs:
        shown = [name for name in names if name in run.result.arms[0].metrics]
        stamp = " (SYNTHETIC)" if run.result.synthetic else ""
        lines += [f"**{run.result.name}{stamp}**", ""]
        lines += ["| arm | " + " | ".join(METRICS[name].title for name in shown) + " | bytes a round |"]
        lines += ["|---|" + "--:|" * (len(shown) + 1)]
        for arm in (*run.result.baselines, *run.result.arms):
            both = arm.cost.bytes_up_per_round + arm.cost.bytes_down_per_round if arm.cost else 0
            cells = [arm.name, *(_markdown_cell(arm, name) for name in shown), human(both) if both else "–"]
            lines.append("| " + " | ".join(cells) + " |")
        seeds, folds = len(run.result.seeds), len(run.result.folds)
        unit = run.result.unit
        lines += ["", f"95 % bootstrap intervals over {unit}s; {seeds} seed(s), {folds} fold(s).", ""]
    return "\n".join(lines)


def _markdown_cell(arm: Arm, metric: str) -> str:
    got: Interval | None = arm.metrics.get(metric)
    if got is None or got.value is None:
        return "–"
    return f"{got.value:.3f}" + ("" if got.low is None or got.high is None else f" [{got.low:.2f}, {got.high:.2f}]")


def _metrics_of(runs: Sequence[Run]) -> list[str]:
    return [name for name in METRICS if any(name in arm.metrics for run in runs for arm in run.result.arms)]


def _tex(runs: Sequence[Run]) -> str:
    names = _metrics_of(runs)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{tabular}{ll" + "c" * len(names) + "}",
        "\\toprule",
        " & ".join(["Experiment", "Arm", *(escape_tex(METRICS[name].title) for name in names)]) + " \\\\",
    ]
    for run in runs:
        lines.append("\\midrule")
        synthetic = " (SYNTHETIC)" if run.result.synthetic else ""
        for i, arm in enumerate((*run.result.baselines, *run.result.arms)):
            first = escape_tex(run.result.name + synthetic) if i == 0 else ""
            lines.append(" & ".join([first, escape_tex(arm.name), *(_tex_cell(arm, name) for name in names)]) + " \\\\")
    units = sorted({f"{run.result.unit}s" for run in runs})
    lines += [
        "\\bottomrule",
        "\\end{tabular}",
        f"% value [95 % percentile bootstrap interval over {' or '.join(units)}], mean over seeds, folds pooled",
        *(f"% {METRICS[name].title}: {METRICS[name].convention}" for name in names),
    ]
    return "\n".join(lines) + "\n"


def _tex_cell(arm: Arm, metric: str) -> str:
    got: Interval | None = arm.metrics.get(metric)
    if got is None or got.value is None:
        return "--"
    ends = "" if got.low is None or got.high is None else f" [{got.low:.3f}, {got.high:.3f}]"
    # in mathematics for the minus sign, and braced, since a line that begins with [ is an argument of \\
    return "{$" + f"{got.value:.3f}{ends}".replace(" ", "\\;") + "$}"
