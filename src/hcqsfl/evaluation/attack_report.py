"""The page about attacks: one HTML file that needs nothing else, tables and figures in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from hcqsfl.evaluation import figures
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.attack_tables import by_goal, number
from hcqsfl.evaluation.cost import human
from hcqsfl.evaluation.dependence_table import Beside
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.privacy_curve import Point


def write_attack_report(
    rows: Sequence[Row],
    out: Path,
    *,
    title: str,
    threats: Mapping[str, str],
    synthetic: bool,
    command: str = "",
    drawn: Mapping[str, Figure] | None = None,
    points: Sequence[Point] = (),
    measured: Sequence[Beside] = (),
    metric: str = "balanced_accuracy",
    claims: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML page about attacks; the same rows give the same page.

    Args:
        rows: of attacks; those of the task are left to ``points``.
        out: the file.
        title: what was attacked.
        threats: threat model to who that is.
        synthetic: whether recordings were made up; the page then says so.
        command: what made it.
        drawn: words to figure.
        points: of the curve, where defences were compared.
        measured: dependence beside leaks, where defences were compared.
        metric: of the points' utility.
        claims: statements of differential privacy.
        notes: further sentences.

    Raises:
        OSError: it cannot be written.
    """
    loader = PackageLoader("hcqsfl.evaluation", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, human=human)
    seen = {row.threat for row in rows}
    page = environment.get_template("attacks.html.j2").render(
        title=title,
        css=Markup(loader.get_source(environment, "report.css")[0]),  # noqa: S704 - our own file
        synthetic=synthetic,
        command=command,
        notes=notes,
        figures={words: figures.to_svg(figure) for words, figure in (drawn or {}).items()},
        points=points,
        measured=sorted(measured, key=lambda b: (b.arm, b.correlation)),
        metric=metric,
        groups=by_goal(rows),
        claims=claims,
        threats={id_: who for id_, who in threats.items() if id_ in seen},
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page.encode())
    return out
