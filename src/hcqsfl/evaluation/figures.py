"""Figures of a result: drawn without a display, the same bytes every time, in colours that all readers tell apart.

Each function returns a ``matplotlib.figure.Figure``; ``to_svg`` and ``to_png`` give it as a data URI for a page that
needs no other file. Where the recordings were made up, every figure says SYNTHETIC across its face.

Source:
    Palette: Okabe and Ito (2008), Color Universal Design, https://jfly.uni-koeln.de/color/.
"""

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from hcqsfl.evaluation.attack_rows import Row as AttackRow
from hcqsfl.evaluation.bootstrap import Interval
from hcqsfl.evaluation.classification import METRICS
from hcqsfl.evaluation.cost import Row, human, once
from hcqsfl.evaluation.pooled import mean_score
from hcqsfl.evaluation.result import MAJORITY, Arm, Result

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D00")
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "X")
GREY = "#767676"
WIDTH = 7.6
MOST_LABELS = 60
CURVES = ("robust balanced accuracy", "evasion rate of flows that were caught")
"""Metrics that are drawn over the radius."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.hashsalt": "hcqsfl",
    "svg.fonttype": "path",
    "figure.dpi": 100,
}


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], *, title: str, synthetic: bool) -> Figure:
    """Draw a confusion matrix twice: counts, and shares of each true class.

    Args:
        counts: ``(k, k)``, row the true class, column the predicted one.
        classes: k names.
        title: what the matrix is of.
        synthetic: write SYNTHETIC across the figure.
    """
    matrix = np.asarray(counts)
    rows = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, rows, out=np.full(matrix.shape, np.nan), where=rows > 0)
    k = len(classes)
    side = max(3.0, min(0.42 * k + 1.3, 9.0))
    with mpl.rc_context(STYLE):
        # side by side while the cells stay legible in the width of a page
        figure, axes = new_figure(1, 2, side) if k <= 5 else new_figure(2, 1, 2 * side)
        for ax, shown, text, what in (
            (axes[0], share, [[_count(n) for n in row] for row in matrix], "counts"),
            (
                axes[1],
                share,
                [["–" if np.isnan(s) else f"{s:.2f}" for s in row] for row in share],
                "share of true class",
            ),
        ):
            ax.imshow(np.nan_to_num(shown), cmap="Blues", vmin=0, vmax=1, aspect="auto" if k > 5 else "equal")
            for i in range(k):
                for j in range(k):
                    dark = np.nan_to_num(shown[i, j]) > 0.55
                    ax.text(j, i, text[i][j], ha="center", va="center", color="white" if dark else "black", fontsize=9)
            slant: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if k > 3 else {}
            ax.set_xticks(range(k), [_short(c) for c in classes], **slant)
            ax.set_yticks(range(k), [_short(c) for c in classes])
            ax.set(xlabel="predicted", ylabel="true", title=f"{title}: {what}")
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
        return stamp(figure, synthetic)


def learning_curves(rows: Sequence[Row], *, synthetic: bool) -> Figure:
    """Draw validation macro-F1 and training loss by round: mean of each arm, band from the lowest run to the highest.

    A run is one seed and fold; rounds without validation are left out of the first panel.
    """
    rows = once(rows)
    with mpl.rc_context(STYLE):
        figure, (left, right) = new_figure(1, 2, 3.3)
        for i, arm in enumerate(_arms(rows)):
            mine = [row for row in rows if row["arm"] == arm]
            validated = [(row["round"], row["validation"]["macro_f1"]) for row in mine if row["validation"]]
            _band(left, validated, arm, i)
            _band(right, [(row["round"], row["train_loss"]) for row in mine], arm, i)
        left.set(title="Validation macro-F1", xlabel="round")
        left.set_ylim(0, 1)
        right.set(title="Training loss", xlabel="round")
        for ax in (left, right):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not left.lines:
            left.text(0.5, 0.5, "no round was validated", ha="center", transform=left.transAxes, color=GREY)
        _legend(figure, right if right.lines else left)
        return stamp(figure, synthetic)


def _band(ax: Axes, points: Sequence[tuple[int, float | None]], arm: str, i: int) -> None:
    by_round: dict[int, list[float]] = {}
    for r, number in points:
        if number is not None and np.isfinite(number):
            by_round.setdefault(r, []).append(number)
    if not by_round:
        return
    x = sorted(by_round)
    colour, marker = _look(i)
    mean = [float(np.mean(by_round[r])) for r in x]
    ax.plot(
        x, mean, color=colour, marker=marker, markersize=4, linewidth=1.6, label=arm, markevery=max(1, len(x) // 12)
    )
    if max(map(len, by_round.values())) > 1:
        low, high = [min(by_round[r]) for r in x], [max(by_round[r]) for r in x]
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def per_subject(result: Result, *, metric: str = "macro_f1") -> Figure:
    """Draw one metric of every subject (or host): each arm beside the majority class, hardest subject at the bottom.

    Beyond 60 subjects there are no names: each arm is one curve, sorted.

    Raises:
        ValueError: rows are the units, so there are no subjects to draw.
    """
    arms = [*result.arms, *result.baselines]
    subjects = sorted(result.arms[0].per_subject)
    if not subjects:
        raise ValueError(f"the result {result.name!r} is by {result.unit}; it has no table by subject to draw")
    values = {arm.name: np.array([_number(arm.per_subject[s][metric]) for s in subjects]) for arm in arms}
    known = np.array([values[arm.name] for arm in result.arms])
    mean = np.where(np.isnan(known), 0, known).sum(0) / np.maximum(1, (~np.isnan(known)).sum(0))
    order = np.argsort(mean, kind="stable")
    many = len(subjects) > MOST_LABELS
    with mpl.rc_context(STYLE):
        figure, (ax,) = new_figure(1, 1, 4.0 if many else max(2.4, 0.26 * len(subjects) + 1.3))
        places = np.arange(len(subjects))
        if not many:
            span = np.array([[v[s] for v in values.values()] for s in order])
            for y, line in zip(places, span, strict=True):
                if not np.isnan(line).all():
                    ax.plot([np.nanmin(line), np.nanmax(line)], [y, y], color="#D0D0D0", linewidth=1.2, zorder=1)
        for i, arm in enumerate(arms):
            colour, marker = _arm_look(result, arm, i)
            v = np.sort(values[arm.name]) if many else values[arm.name][order]
            style: dict[str, Any] = (
                {"linewidth": 1.6} if many else {"linestyle": "none", "marker": marker, "markersize": 6.5}
            )
            # a little apart, so that equal arms do not hide one another
            apart = 0 if many else 0.36 * (0.5 - (i + 0.5) / len(arms))
            ax.plot(v, places + apart, color=colour, label=arm.name, alpha=0.9, **style)
        if many:
            ax.set_ylabel(f"{result.unit}s, sorted for each arm")
        else:
            ax.set_yticks(places, [_short(subjects[s]) for s in order])
            ax.set_ylim(-0.7, len(subjects) - 0.3)
            ax.grid(axis="y", visible=False)
        ax.set(title=f"{METRICS[metric].title} of each {result.unit}", xlabel=METRICS[metric].title)
        ax.set_xlim(-1.02 if metric == "mcc" else -0.02, 1.02)
        _legend(figure, ax)
        return stamp(figure, result.synthetic)


def bytes_per_round(rows: Sequence[Row], *, synthetic: bool) -> Figure:
    """Draw the bytes a round takes up and down, mean of each arm; a whisker spans the smallest and largest round."""
    rows = once(rows)
    arms = _arms(rows)
    largest_round = max([1.0, *(float(max(row["bytes_up"], row["bytes_down"])) for row in rows)])
    unit = human(largest_round).split()[1]
    scale = 1024.0 ** ("B", "KiB", "MiB", "GiB", "TiB").index(unit)
    with mpl.rc_context(STYLE):
        figure, (ax,) = new_figure(1, 1, max(1.9, 0.62 * len(arms) + 1.3))
        for j, (key, label, colour) in enumerate(
            (("bytes_up", "up (from the clients)", PALETTE[0]), ("bytes_down", "down (to the clients)", PALETTE[4]))
        ):
            each = [np.array([row[key] for row in rows if row["arm"] == arm], float) for arm in arms]
            each = [e / scale for e in each]
            mean = np.array([e.mean() for e in each])
            y = np.arange(len(arms)) + (0.19 if j else -0.19)
            spread = [mean - [e.min() for e in each], [e.max() for e in each] - mean]
            ax.barh(y, mean, height=0.36, color=colour, label=label)
            ax.errorbar(mean, y, xerr=np.maximum(spread, 0), fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
            for place, size, largest in zip(y, mean, [e.max() for e in each], strict=True):
                ax.annotate(
                    human(size * scale),
                    (largest, place),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9,
                )
        ax.set_yticks(range(len(arms)), arms)
        ax.set_ylim(len(arms) - 0.45, -0.55)
        ax.grid(axis="y", visible=False)
        ax.set_xlim(0, 1.17 * largest_round / scale)
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.set(title="Bytes of a round, as serialised", xlabel=unit)
        _legend(figure, ax)
        return stamp(figure, synthetic)


def forest(result: Result, *, metrics: Sequence[str] | None = None) -> Figure:
    """Draw the intervals of all arms, one panel a metric, the majority class on top and as a dashed line.

    Args:
        result: what to draw.
        metrics: names; by default macro-F1, balanced accuracy and, for two classes, AUROC.
    """
    names = metrics or [m for m in ("macro_f1", "balanced_accuracy", "auroc") if m in result.arms[0].metrics]
    arms = [*result.baselines, *result.arms]
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(1, len(names), 0.42 * len(arms) + 1.4, sharey=True)
        for ax, metric in zip(axes, names, strict=True):
            for i, arm in enumerate(arms):
                got = arm.metrics[metric]
                if got.value is None:
                    continue
                colour, marker = _arm_look(result, arm, i - len(result.baselines))
                ax.errorbar(
                    got.value, i, xerr=_arms_of(got), fmt=marker, color=colour, markersize=6.5, elinewidth=2, capsize=3
                )
            for arm in result.baselines:
                level = arm.metrics[metric].value
                if level is not None:
                    ax.axvline(level, color=GREY, linestyle="--", linewidth=1, zorder=0)
            ax.set(title=METRICS[metric].title)
            ax.set_ylim(len(arms) - 0.5, -0.5)
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(arms)), [_short(arm.name, 28) for arm in arms])
        return stamp(figure, result.synthetic)


def clients(counts: Mapping[str, Sequence[int]], classes: Sequence[str], *, synthetic: bool) -> Figure:
    """Draw how many training windows of each class a client holds.

    Args:
        counts: for each client, the count of each class.
        classes: their names.
        synthetic: write SYNTHETIC across the figure.
    """
    names = list(counts)
    table = np.array([counts[name] for name in names], float).reshape(len(names), len(classes))
    many = len(names) > MOST_LABELS
    with mpl.rc_context(STYLE):
        figure, (ax,) = new_figure(1, 1, 5.0 if many else max(2.0, 0.26 * len(names) + 1.3))
        before = np.zeros(len(names))
        for c, label in enumerate(classes):
            look: dict[str, Any] = {"color": PALETTE[c % len(PALETTE)], "height": 1.0 if many else 0.78}
            look["hatch"] = ("", "////", "....", "xxxx")[c // len(PALETTE) % 4]
            look |= {"linewidth": 0} if many else {"edgecolor": "white", "linewidth": 0.6}
            ax.barh(range(len(names)), table[:, c], left=before, label=label, **look)
            before += table[:, c]
        ax.set_ylim(len(names) - 0.5, -0.5)
        if many:
            ax.set_ylabel(f"{len(names)} clients")
        else:
            ax.set_yticks(range(len(names)), [_short(name) for name in names])
        ax.grid(axis="y", visible=False)
        ax.set(title="Training windows of each client, by class", xlabel="windows")
        _legend(figure, ax)
        return stamp(figure, synthetic)


def robustness_curve(rows: Sequence[AttackRow], *, synthetic: bool) -> Figure | None:
    """Draw the strongest attack of each arm at each radius, mean over trainings; one panel for each kind of access.

    Args:
        rows: of the evasion suite, of any number of arms, folds and seeds.
        synthetic: write SYNTHETIC across the figure.

    Returns:
        The figure, or ``None`` where there is nothing to draw.
    """
    drawn = [row for row in rows if row.metric in CURVES and row.score is not None and "epsilon" in row.facts]
    if not drawn:
        return None
    metric = drawn[0].metric
    panels = list(dict.fromkeys(_panel(row) for row in drawn))
    arms = list(dict.fromkeys(row.arm for row in drawn))
    ticks = sorted({float(row.facts["epsilon"]) for row in drawn})
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(1, len(panels), 3.4, sharey=True)
        for ax, panel in zip(axes, panels, strict=True):
            for i, arm in enumerate(arms):
                own = [row for row in drawn if row.arm == arm and _panel(row) == panel]
                colour, marker = _look(i)
                radii, worst, trivial, spread = _strongest(own)
                # side by side, so that intervals of arms do not hide one another
                aside = [radius * 1.04 ** (i - (len(arms) - 1) / 2) for radius in radii]
                ax.errorbar(aside, worst, yerr=spread, marker=marker, color=colour, capsize=2, linewidth=1.4, label=arm)
                ax.plot(radii, trivial, linestyle=":", color=colour, label="" if i else "best trivial change")
            ax.set(title=panel, xlabel="radius, in deviations", xscale="log", ylim=(-0.03, 1.03))
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
        axes[0].set_ylabel(textwrap.fill(metric[:1].upper() + metric[1:], 26))
        _legend(figure, axes[0])
        return stamp(figure, synthetic)


def membership_roc(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, synthetic: bool) -> Figure:
    """Draw ROC curves on logarithmic axes, where an attack that is sure of a few members shows.

    Args:
        curves: name of an attack to its false- and true-positive rates.
        synthetic: write SYNTHETIC across the figure.

    Source: Carlini et al. (2022), Membership inference attacks from first principles, figure 1.
    """
    smallest = min((f for fpr, _ in curves.values() for f in fpr if f > 0), default=1e-3)
    with mpl.rc_context(STYLE):
        figure, (ax,) = new_figure(1, 1, 4.4)
        ax.plot([smallest, 1], [smallest, 1], color=GREY, linestyle="--", linewidth=1, label="chance")
        for i, (name, (fpr, tpr)) in enumerate(curves.items()):
            points = [(f, t) for f, t in zip(fpr, tpr, strict=True) if f > 0 and t > 0]
            if not points:
                continue
            colour, marker = _look(i)
            x, y = zip(*points, strict=True)
            ax.step(x, y, where="post", color=colour, marker=marker, markersize=3.5, label=_short(name, 28))
        ax.set(xscale="log", yscale="log", xlabel="false-positive rate", ylabel="true-positive rate")
        ax.set(xlim=(smallest, 1), ylim=(smallest, 1.05), title="Membership inference")
        _legend(figure, ax)
        return stamp(figure, synthetic)


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG data URI; equal figures give equal text."""
    return "data:image/svg+xml;base64," + base64.b64encode(_saved(figure, "svg")).decode()


def to_png(figure: Figure) -> str:
    """Return the figure as a PNG data URI; equal figures give equal text."""
    return "data:image/png;base64," + base64.b64encode(_saved(figure, "png")).decode()


def _saved(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    # without a date and a version, so that the same result gives the same page
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=72 if kind == "svg" else 160)
    return buffer.getvalue()


def new_figure(n_rows: int, n_columns: int, height: float, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure of the usual width and of a height in inches, and its panels in order of rows."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=sharey)
    return figure, list(axes.flat)


def stamp(figure: Figure, synthetic: bool) -> Figure:
    """Return the figure, with SYNTHETIC across its face where the recordings were made up."""
    if synthetic:
        figure.text(
            0.5, 0.5, "SYNTHETIC", rotation=20, ha="center", va="center", fontsize=44, color="#B00020", alpha=0.13,
            weight="bold", zorder=100,
        )  # fmt: skip
    return figure


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))


def _arms(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows))


def _look(i: int) -> tuple[str, str]:
    return PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]


def _arm_look(result: Result, arm: Arm, i: int) -> tuple[str, str]:
    return (GREY, "X") if arm.name == MAJORITY else _look(i % len(result.arms))


def _arms_of(got: Interval) -> list[list[float]] | None:
    if got.value is None or got.low is None or got.high is None:
        return None
    # a percentile interval need not hold its estimate
    return [[max(0.0, got.value - got.low)], [max(0.0, got.high - got.value)]]


def _number(v: float | None) -> float:
    return np.nan if v is None else v


def _count(n: float) -> str:
    return f"{int(n)}" if n < 10_000 else f"{n / 1000:.0f}k"


def _short(text: str, longest: int = 16) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _panel(row: AttackRow) -> str:
    access = row.knowledge.rpartition(", eps")[0].partition(",")[0]
    return "transfer" if access.startswith("transfer") else access


def _strongest(rows: Sequence[AttackRow]) -> tuple[list[float], list[float], list[float], np.ndarray]:
    """Return radii, the score of the strongest attack in each training and the trivial score, means over trainings.

    The last are the distances ``(2, n_radii)`` to the ends of the 95 % interval over subjects, 0 where there is none.
    """
    radii = sorted({float(row.facts["epsilon"]) for row in rows})
    worst, trivial, spread = [], [], np.zeros((2, len(radii)))
    for place, radius in enumerate(radii):
        at = [row for row in rows if row.facts["epsilon"] == radius]
        strongest = max if at[0].better == "higher" else min
        of: dict[tuple[str, int], list[AttackRow]] = {}
        for row in at:
            of.setdefault((row.fold, row.seed), []).append(row)
        value, low, high = mean_score([strongest(each, key=lambda row: row.score or 0.0) for each in of.values()])
        worst.append(value)
        if low is not None and high is not None:
            spread[:, place] = value - low, high - value
        trivial.append(float(np.mean([each[0].baseline or 0.0 for each in of.values()])))
    return radii, worst, trivial, spread
