"""Rows of attacks as a paper has them: a Markdown table a goal, trunks side by side, and a sheet of everything."""

import csv
import io
from collections.abc import Sequence

from hcqsfl.evaluation.attack_rows import DEPENDENCE, Row
from hcqsfl.evaluation.pooled import without_parts
from hcqsfl.evaluation.privacy_curve import GOALS, TASK

OTHER = {"A11": "poisoning", "A12": "backdoors", "A13": "evasion", "A14": "evasion of flows", "A15": "quantum"}

COLUMNS = (
    "suite", "attack", "id", "threat", "knowledge", "defence", "arm", "fold", "seed", "metric", "better", "score",
    "low", "high", "baseline", "baseline_name", "gain", "gain_low", "gain_high", "n_rows", "n_units", "evaluations",
    "seconds", "not_applicable",
)  # fmt: skip


def by_goal(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return what attackers are after to the rows of such attacks; rows of the task are left out."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.attack != TASK:
            kind = "dependence: a measure, no attack" if row.attack == DEPENDENCE else row.suite
            groups.setdefault((GOALS | OTHER).get(row.id, kind), []).append(row)
    return groups


def markdown(rows: Sequence[Row]) -> str:
    """Return a table for each goal: a line a setting and metric, a column a trunk.

    Where several trainings were attacked, their means alone. A cell is the score and, behind it, the gain over the best
    trivial guess with its 95 % interval; it is bold where that excludes zero. Settings that do not apply are named
    below, with the reason, the first where there are several.
    """
    said = []
    for goal, group in by_goal(without_parts(rows)).items():
        scored = [row for row in group if row.score is not None]
        if scored:
            said += [f"## {goal[0].upper()}{goal[1:]}", "", *_table(scored), ""]
        reasons: dict[str, dict[str, None]] = {}
        for row in group:
            if row.facts.get("not_applicable"):
                of = f"{row.attack}, {row.threat}, {row.metric}"
                reasons.setdefault(of, {})[row.facts["not_applicable"]] = None
        for of, (first, *others) in reasons.items():
            more = f" (and {len(others)} such in other settings or trainings)" if others else ""
            said.append(f"- Not applicable: {of}: {first}{more}.")
        said += [""] if reasons else []
    return "\n".join(said)


def _table(rows: Sequence[Row]) -> list[str]:
    arms = list(dict.fromkeys(row.arm for row in rows))
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        setting = (row.id, row.attack, row.threat, row.knowledge, row.defence, row.metric, row.fold, str(row.seed))
        lines.setdefault(setting, {})[row.arm] = row
    several = len({setting[6:] for setting in lines}) > 1
    table = [
        f"| Attack | Sees | Knows | Metric | Trivial guess | {' | '.join(arms)} |",
        f"|---|---|---|---|--:|{'--:|' * len(arms)}",
    ]
    for (id_, attack, threat, knows, defence, metric, fold, seed), held in lines.items():
        first = next(iter(held.values()))
        against = "" if defence in ("", "none") else f", against {defence}"
        where = f" ({fold}, seed {seed})" if several else ""
        trivial = " / ".join(dict.fromkeys(number(row.baseline) for row in held.values()))
        down = " ↓" if first.better == "lower" else ""
        cells = " | ".join(_cell(held[arm]) if arm in held else "–" for arm in arms)
        table.append(f"| {id_} {attack}{against}{where} | {threat} | {knows} | {metric}{down} | {trivial} | {cells} |")
    return table


def _cell(row: Row) -> str:
    gain = "" if row.gain is None else f" {row.gain:+.3f}"
    if row.gain_low is not None and row.gain_high is not None:
        gain += f" [{row.gain_low:+.2f}, {row.gain_high:+.2f}]"
    score = f"**{number(row.score)}**" if row.leaks else number(row.score)
    return f"{score}{gain}".replace("-", "−")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as a table has it; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def sheet(rows: Sequence[Row], columns: Sequence[str] = COLUMNS) -> str:
    """Return all rows as comma-separated values; a column is an attribute of a row, or else one of its facts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([getattr(row, name) if hasattr(row, name) else row.facts.get(name, "") for name in columns])
    return text.getvalue()
