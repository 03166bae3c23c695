"""The headline of a result, for a terminal of 80 columns."""

from rich.markup import escape
from rich.table import Table

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
