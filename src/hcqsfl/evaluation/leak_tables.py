"""What every attack found against every defence: a table a goal and measure, a line a setting, a column an attack."""

from collections.abc import Sequence

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.attack_tables import number
from hcqsfl.evaluation.pooled import without_parts
from hcqsfl.evaluation.privacy_curve import TASK, counts, panel, panels


def markdown(rows: Sequence[Row], metric: str) -> str:
    """Return the tables in Markdown.

    A cell has a number a trunk, with a star where the interval of its gain over the best trivial guess excludes zero.

    Args:
        rows: of attacks and of the task, ``defence`` being ``name: strength``.
        metric: of the task.
    """
    kept = without_parts(rows)
    arms = list(dict.fromkeys(row.arm for row in kept))
    settings = list(dict.fromkeys(row.defence for row in kept))
    utility = {(row.defence, row.arm): row for row in kept if row.attack == TASK and row.metric == metric}
    said = []
    for name in panels(kept):
        held = [row for row in kept if counts(row) and panel(row) == name]
        for measure in dict.fromkeys(row.metric for row in held):
            mine = [row for row in held if row.metric == measure]
            columns = list(dict.fromkeys(_attack(row) for row in mine))
            trivial = [row.baseline for row in mine if row.baseline is not None]
            guess = number(min(trivial)) if trivial else "–"
            guess += f" to {number(max(trivial))}" if trivial and max(trivial) > min(trivial) else ""
            better = "Less" if mine[0].better == "lower" else "More"
            found = {(row.defence, row.arm, _attack(row)): row for row in mine}
            said += [
                f"## {name[0].upper()}{name[1:]}: {measure}",
                "",
                f"{better} is more found; the best trivial guess has {guess}. Trunks: {', '.join(arms)}.",
                "",
                f"| Defence | Strength | {metric.replace('_', ' ')} | {' | '.join(columns)} |",
                f"|---|---|--:|{'--:|' * len(columns)}",
            ]
            for setting in settings:
                defence, _, strength = setting.partition(": ")
                cells = [_cell([utility.get((setting, arm)) for arm in arms])]
                cells += [_cell([found.get((setting, arm, column)) for arm in arms]) for column in columns]
                said.append(f"| {defence} | {strength} | {' | '.join(cells)} |")
            said.append("")
    return "\n".join(said)


def _attack(row: Row) -> str:
    return f"{row.attack}, {row.threat}, {row.knowledge}"


def _cell(rows: Sequence[Row | None]) -> str:
    if not any(rows):
        return "–"
    return ", ".join("–" if row is None else number(row.score) + "\\*" * row.leaks for row in rows)
