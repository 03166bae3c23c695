"""What a defence costs and what it leaves to be found out: points, their Pareto front, the figure.

The leak of a setting is the most that any attack found out under any threat model, adaptive ones included, on a scale
from 0 (the best trivial guess) to 1 (everything). An attack whose gain may be chance (its interval holds zero, or the
units are too few for one) counts for nothing: of many attacks on nothing, the best would always seem to find something.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from hcqsfl.evaluation.attack_rows import DEPENDENCE, Row
from hcqsfl.evaluation.cost import human
from hcqsfl.evaluation.figures import GREY, MARKERS, PALETTE, STYLE, new_figure, stamp
from hcqsfl.evaluation.pooled import without_parts

TASK = "task"
"""The ``attack`` of rows that tell how good the model is."""

EVERYTHING = "everything"

GOALS = {
    "A1": "windows",
    "A2": "windows",
    "A3": "windows",
    "A4": "windows",
    "A5": "windows",
    "A6": "identity",
    "A7": "property",
    "A8": "windows",
    "A9": "labels",
    "A10": "membership",
}
"""Attack to what it is after."""

WHERE = {
    "T1": "at the cut",
    "T2": "at the cut",
    "T3": "at the cut",
    "T4": "from updates",
    "T5": "by both servers",
    "T6": "at the processor",
    "T7": "by a client",
    "T8": "by clients",
    "T9": "by users",
    "T10": "from outputs",
}
"""Threat model to where it reads: a defence of the one place does nothing at another."""

LINES: dict[str, Any] = {"hybrid": "-", "classical": "--", "frozen": ":"}
FILLS: dict[str, Any] = {"hybrid": "full", "classical": "none", "frozen": "left"}
COLOURS = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.85, 256)))  # yellow is lost on white


@dataclass(frozen=True)
class Point:
    """One defence at one strength, with one trunk.

    Attributes:
        defence, strength, arm: which.
        leak, low, high: most found out, from 0 to 1, with the interval of the attack that found it.
        by: the attack that found it, in words; empty where none did.
        utility, utility_low, utility_high: of the model, with its interval.
        trivial: the same of the majority class.
        n_bytes: a round.
        n_attacks: attacks that were tried.
        facts: what else the task's row says, such as statements of privacy.
    """

    defence: str
    strength: str
    arm: str
    leak: float
    low: float | None
    high: float | None
    by: str
    utility: float
    utility_low: float | None
    utility_high: float | None
    trivial: float
    n_bytes: float
    n_attacks: int
    facts: Mapping[str, Any] = field(default_factory=dict)


def normalised(row: Row) -> tuple[float, float | None, float | None]:
    """Return an attack's gain, with its interval, as a share of what the trivial guess left to be found."""
    if row.gain is None or row.baseline is None:
        return 0.0, None, None
    room = (1.0 - row.baseline) if row.better == "higher" else row.baseline
    if room <= 0:
        return 0.0, None, None

    def share(gain: float) -> float:
        return float(np.clip(gain / room, 0.0, 1.0))

    ends = [None if gain is None else share(gain) for gain in (row.gain_low, row.gain_high)]
    return share(row.gain), ends[0], ends[1]


UNFIT = ("ssim", "psnr", "mse")
"""Metrics that count for no leak: a signal with its sign flipped has an SSIM near 1, the others have no scale."""


def panel(row: Row) -> str:
    """Return what a row's attack is after, and where it reads: ``identity at the cut``."""
    return f"{GOALS.get(row.id, '')} {WHERE.get(row.threat, '')}"


def counts(row: Row) -> bool:
    """Return whether a row is of an adversary and by a measure that tells a leak."""
    return (
        row.attack not in (TASK, DEPENDENCE)
        and row.threat in WHERE
        and row.score is not None
        and row.metric not in UNFIT
    )


def panels(rows: Sequence[Row]) -> list[str]:
    """Return all panels of ``rows``, by goal and then by where attackers read."""
    there = {panel(row) for row in rows if counts(row) and row.id in GOALS}
    every = dict.fromkeys(f"{goal} {where}" for goal in GOALS.values() for where in WHERE.values())
    return [each for each in every if each in there]


def points(rows: Sequence[Row], metric: str, goal: str = EVERYTHING) -> list[Point]:
    """Return a point for each setting and trunk, the rows' ``defence`` being ``name: strength``.

    Args:
        rows: of attacks, and of the task.
        metric: of the task.
        goal: count only attacks that are after this, or in this panel.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in without_parts(rows):
        groups.setdefault((row.defence, row.arm), []).append(row)
    found = []
    for (defence, arm), group in groups.items():
        task = [row for row in group if row.attack == TASK and row.metric == metric and row.score is not None]
        tried = [row for row in group if counts(row) and goal in (EVERYTHING, GOALS.get(row.id), panel(row))]
        if not task or not tried:
            continue
        worst = max((row for row in tried if row.leaks), key=lambda row: normalised(row)[0], default=None)
        leak, low, high = (0.0, None, None) if worst is None else normalised(worst)
        by = "" if worst is None else f"{worst.attack} ({worst.threat}, {worst.knowledge}; {worst.metric})"
        name, _, strength = defence.partition(": ")
        value = task[0]
        found.append(
            Point(
                name,
                strength,
                arm,
                leak,
                low,
                high,
                by,
                float(value.score or 0.0),
                value.low,
                value.high,
                float(value.baseline or 0.0),
                float(value.facts.get("bytes_per_round", 0.0)),
                len({(row.attack, row.threat, row.knowledge) for row in tried}),
                value.facts,
            )
        )
    return found


def pareto(held: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both leak and utility, by leak."""
    front: list[Point] = []
    for point in sorted(held, key=lambda p: (p.leak, -p.utility)):
        if not front or point.utility > front[-1].utility:
            front.append(point)
    return front


def area(held: Sequence[Point]) -> float:
    """Return the area under the Pareto front: the mean, over all leaks that one may allow, of the best utility.

    Where no point leaks as little, the majority class stands in.
    """
    front = pareto(held)
    if not front:
        return 0.0
    total, at, level = 0.0, 0.0, min(p.trivial for p in held)
    for point in front:
        total += (point.leak - at) * level
        at, level = point.leak, max(level, point.utility)
    return total + (1.0 - at) * level


def figure(rows: Sequence[Row], metric: str, title: str, *, synthetic: bool) -> Figure:
    """Draw utility over leak: all attacks together, then each panel; colour tells bytes a round, the line the front.

    Args:
        rows: of attacks and of the task.
        metric: of the task, as it stands in the rows.
        title: the data set.
        synthetic: write SYNTHETIC across the figure.
    """
    everything = points(rows, metric)
    goals = [EVERYTHING, *panels(rows)]
    names = list(dict.fromkeys(p.defence for p in everything))
    arms = list(dict.fromkeys(p.arm for p in everything))
    sizes = [p.n_bytes for p in everything if p.n_bytes > 0] or [1.0]
    alike = max(sizes) < 1.05 * min(sizes)
    norm: Normalize = Normalize(0.0, max(sizes)) if alike else LogNorm(min(sizes), max(sizes) * 1.0001)
    n_rows = -(-len(goals) // 2)
    with mpl.rc_context(STYLE):
        drawn, axes = new_figure(n_rows, 2, 3.1 * n_rows + 0.9)
        for ax, goal in zip(axes, goals, strict=False):
            _panel(ax, points(rows, metric, goal), names, arms, norm)
            ax.set_title("most that any attack found" if goal == EVERYTHING else goal)
        for ax in axes[len(goals) :]:
            ax.set_visible(False)
        for ax in axes[::2]:
            ax.set_ylabel(metric.replace("_", " "))
        for ax in axes[max(0, len(goals) - 2) : len(goals)]:
            ax.set_xlabel("leak (0 trivial guess, 1 everything)")
        # where every cell sends the same, its colour says nothing and one number says it all
        told = f", {human(max(sizes))} a round each" if alike and any(p.n_bytes > 0 for p in everything) else ""
        drawn.suptitle(fill(f"{title}{told}", 64), fontsize=11, fontweight="bold")
        if not alike:
            bar = drawn.colorbar(mpl.cm.ScalarMappable(norm, COLOURS), ax=axes, shrink=0.85, pad=0.02)
            bar.set_label("bytes a round")
            bar.formatter = mpl.ticker.FuncFormatter(lambda v, _: human(v))
            bar.set_ticks(list(np.geomspace(min(sizes), max(sizes), 4)))
            bar.minorticks_off()
            bar.update_ticks()
        handles = [
            mpl.lines.Line2D([], [], marker=MARKERS[i % len(MARKERS)], linestyle="", color=GREY, label=name)
            for i, name in enumerate(names)
        ]
        handles += [
            mpl.lines.Line2D(
                [],
                [],
                linestyle=LINES.get(arm, "-."),
                marker="o",
                fillstyle=FILLS.get(arm, "top"),
                color="black",
                label=f"{arm} trunk, its front",
            )
            for arm in arms
        ]
        drawn.legend(handles=handles, loc="outside lower center", ncols=4)
        return stamp(drawn, synthetic)


def _panel(ax: Axes, held: Sequence[Point], names: Sequence[str], arms: Sequence[str], norm: Normalize) -> None:
    for p in held:
        colour = COLOURS(norm(max(p.n_bytes, 1.0)))
        ends = None
        if p.utility_low is not None and p.utility_high is not None:
            ends = [[max(0.0, p.utility - p.utility_low)], [max(0.0, p.utility_high - p.utility)]]
        ax.errorbar(
            p.leak,
            p.utility,
            yerr=ends,
            fmt=MARKERS[names.index(p.defence) % len(MARKERS)],
            color=colour,
            fillstyle=FILLS.get(p.arm, "top"),
            markersize=6,
            elinewidth=0.6,
            alpha=0.9,
        )
    for arm in arms:
        front = pareto([p for p in held if p.arm == arm])
        if front:
            ax.step(
                [*(p.leak for p in front), 1.0],
                [*(p.utility for p in front), front[-1].utility],
                where="post",
                linestyle=LINES.get(arm, "-."),
                color="black",
                linewidth=1.1,
                zorder=0,
            )
    if held:
        ax.axhline(min(p.trivial for p in held), color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    ax.set_xlim(-0.03, 1.03)


def table(held: Sequence[Point], metric: str) -> Table:
    """Lay out the points for the terminal; what lies on the front of its trunk is marked."""
    front = {(p.defence, p.strength, p.arm) for arm in {p.arm for p in held} for p in _of(held, arm)}
    laid = Table(
        title="Privacy against utility", caption="leak: most that any attack found, from 0 (trivial guess) to 1"
    )
    for name in ("defence", "strength", "trunk"):
        laid.add_column(name)
    for name in ("leak", metric.replace("_", " "), "bytes a round"):
        laid.add_column(name, justify="right")
    laid.add_column("found by")
    laid.add_column("front")
    for p in held:
        ends = "" if p.utility_low is None or p.utility_high is None else f" {p.utility_low:.2f}–{p.utility_high:.2f}"
        laid.add_row(
            *(escape(text) for text in (p.defence, p.strength, p.arm)),
            f"{p.leak:.2f}",
            f"{p.utility:.3f}{ends}",
            human(p.n_bytes),
            escape(p.by or f"none of {p.n_attacks}"),
            "yes" if (p.defence, p.strength, p.arm) in front else "",
        )
    return laid


def _of(held: Sequence[Point], arm: str) -> list[Point]:
    return pareto([p for p in held if p.arm == arm])


def markdown(held: Sequence[Point], metric: str) -> str:
    """Return the points as a table in Markdown, and the areas under the fronts."""
    lines = [
        f"| Defence | Strength | Trunk | Leak | Found by | {metric.replace('_', ' ')} | Bytes a round |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in held:
        low, high = p.utility_low, p.utility_high
        value = f"{p.utility:.3f}" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")
        by = p.by or f"none of {p.n_attacks}"
        lines.append(f"| {p.defence} | {p.strength} | {p.arm} | {p.leak:.2f} | {by} | {value} | {human(p.n_bytes)} |")
    areas = ", ".join(
        f"{arm} {area([p for p in held if p.arm == arm]):.3f}" for arm in dict.fromkeys(p.arm for p in held)
    )
    return "\n".join([*lines, "", f"Area under the Pareto front: {areas}.", ""])


def summary(rows: Sequence[Row], *, synthetic: bool) -> Figure | None:
    """Draw the best row of each attack, threat model and trunk: its gain as a share of what was left to be found.

    Returns:
        The figure, or nothing where no attack ran.
    """
    best: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row.attack == TASK or row.score is None or row.gain is None or row.metric in UNFIT or row.id not in GOALS:
            continue
        found = best.setdefault((f"{GOALS[row.id]} · {row.attack}", row.threat), {})
        if row.arm not in found or normalised(row)[0] > normalised(found[row.arm])[0]:
            found[row.arm] = row
    if not best:
        return None
    names = sorted(best)
    arms = list(dict.fromkeys(row.arm for row in rows if row.score is not None))
    with mpl.rc_context(STYLE):
        drawn, (ax,) = new_figure(1, 1, 0.3 * len(names) + 1.6)
        for i, arm in enumerate(arms):
            for y, name in enumerate(names):
                if arm not in best[name]:
                    continue
                value, low, high = normalised(best[name][arm])
                ends = None if low is None or high is None else [[max(0.0, value - low)], [max(0.0, high - value)]]
                place = y + 0.22 * (i - (len(arms) - 1) / 2)
                ax.errorbar(
                    value, place, xerr=ends, fmt=MARKERS[i % len(MARKERS)], color=PALETTE[i % len(PALETTE)],
                    markersize=5, elinewidth=1.4, capsize=2, label=arm if y == 0 else None,
                )  # fmt: skip
        ax.set_yticks(range(len(names)), [f"{name} ({threat})" for name, threat in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlim(-0.03, 1.03)
        ax.set(title="Best row of each attack", xlabel="leak (0 trivial guess, 1 everything)")
        handles = [
            mpl.lines.Line2D([], [], marker=MARKERS[i % len(MARKERS)], linestyle="", color=PALETTE[i % 8], label=arm)
            for i, arm in enumerate(arms)
        ]
        drawn.legend(handles=handles, loc="outside lower center", ncols=4)
        return stamp(drawn, synthetic)
