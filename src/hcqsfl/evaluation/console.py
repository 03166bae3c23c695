"""The headline of a result, for a terminal of 80 columns."""

from collections.abc import Mapping, Sequence

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
    """Lay out what attacks achieved beside the trivial guess; a leak is a gain whose interval excludes zero."""
    laid = Table(title="Attacks", caption="gain over the best trivial guess, with its 95 % interval over units")
    for name in ("attack", "threat", "knowledge", "defence", "arm"):
        laid.add_column(name)
    for name in ("metric", "score", "trivial", "gain"):
        laid.add_column(name, justify="right")
    laid.add_column("leaks")
    for row in rows:
        ends = "" if row.gain_low is None or row.gain_high is None else f" {row.gain_low:.2f}–{row.gain_high:.2f}"
        laid.add_row(
            *(escape(text) for text in (f"{row.id} {row.attack}", row.threat, row.knowledge, row.defence, row.arm)),
            escape(row.metric),
            "–" if row.score is None else f"{row.score:.3f}",
            "–" if row.baseline is None else f"{row.baseline:.3f}",
            "–" if row.gain is None else f"{row.gain:+.3f}{ends}",
            "yes" if row.leaks else "no",
        )
    return laid
