"""The headline of a result, for a terminal of 80 columns."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.bootstrap import Interval
from hcqsfl.evaluation.classification import METRICS
from hcqsfl.evaluation.cost import human
from hcqsfl.evaluation.result import Result

COLUMNS = ("macro_f1", "auroc", "accuracy")
MOST = 2


def table(result: Result) -> Table:
    """Lay out the arms beside the majority class, with 95 % intervals and the bytes of a round."""
    stamp = " · SYNTHETIC" if result.synthetic else ""
    laid = Table(
        title=escape(f"{result.name}{stamp}"),
        caption=escape(
            f"95 % bootstrap intervals over {result.unit}s; {len(result.seeds)} seed(s), {len(result.folds)} fold(s)"
            + (
                ""
                if result.unit == "row"
                else f"; scores pool all rows, differences below are means over {result.unit}s"
            )
        ),
    )
    laid.add_column("arm", no_wrap=True)
    shown = [name for name in COLUMNS if name in result.arms[0].metrics][:MOST]
    for name in shown:
        laid.add_column(METRICS[name].title, justify="right", no_wrap=True)
    laid.add_column("bytes a round", justify="right")
    for arm in (*result.baselines, *result.arms):
        both = arm.cost.bytes_up_per_round + arm.cost.bytes_down_per_round if arm.cost else 0
        laid.add_row(
            escape(arm.name), *(escape(_cell(arm.metrics[name])) for name in shown), human(both) if both else "–"
        )
    return laid


def _cell(got: Interval) -> str:
    if got.value is None:
        return "–"
    ends = "" if got.low is None or got.high is None else f" {got.low:.2f}–{got.high:.2f}"
    return f"{got.value:.3f}{ends}"


def codec_table(rows: Sequence[tuple[str, float, float, Mapping[str, Interval]]]) -> Table:
    """Lay out what each codec saves and what it costs.

    Args:
        rows: a codec's name, bytes across the cut in a round, their share of those without a codec, and the scores.
    """
    laid = Table(title="Codecs of the cut", caption="bytes a round, both ways, as serialised; 95 % bootstrap intervals")
    laid.add_column("codec", no_wrap=True)
    laid.add_column("cut bytes", justify="right", no_wrap=True)
    laid.add_column("share", justify="right", no_wrap=True)
    for name in ("macro_f1", "accuracy"):
        laid.add_column(METRICS[name].title, justify="right", no_wrap=True)
    for codec, cut_bytes, share, metrics in rows:
        accuracy = metrics["accuracy"].value
        laid.add_row(
            escape(codec),
            human(cut_bytes),
            f"{share:.2f}",
            escape(_cell(metrics["macro_f1"])),
            "–" if accuracy is None else f"{accuracy:.3f}",
        )
    return laid


def attack_table(rows: Sequence[Row]) -> Table:
    """Lay out, for 80 columns, what attacks achieved beside the trivial guess.

    An attack in one setting is named once, above its metrics; a gain whose interval excludes zero has a star.
    """
    laid = Table(
        title="Attacks",
        caption="gain over the best trivial guess, and its 95 % interval; * a leak: it excludes 0",
        box=SIMPLE_HEAD,
    )
    laid.add_column("attack", width=20, overflow="fold")
    laid.add_column("arm, metric", width=16, overflow="fold")
    laid.add_column("score / trivial", justify="right", no_wrap=True)
    laid.add_column("gain", justify="right", no_wrap=True)
    before = ""
    for row in rows:
        defence = "" if row.defence in ("", "none") else f", against {row.defence}"
        name = f"{row.id} {row.attack}, {row.threat}{defence}: {row.knowledge}"
        if before and name != before:
            laid.add_section()
        reason = row.facts.get("not_applicable")
        score = "not applicable" if reason else f"{_number(row.score)} / {_number(row.baseline)}"
        gain = "–" if row.gain is None else f"{row.gain:+.3f}{'*' if row.leaks else ' '}"
        if row.gain_low is not None and row.gain_high is not None:
            gain += f"\n{row.gain_low:+.2f} to {row.gain_high:+.2f}"
        laid.add_row("" if name == before else escape(name), escape(f"{row.arm}, {row.metric}"), score, gain)
        before = name
    return laid


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
