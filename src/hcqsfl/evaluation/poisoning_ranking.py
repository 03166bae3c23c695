"""Rank defences against poisoning by the attack that does most against each, over training seeds.

A seed draws the network, the batches and who attacks, so that an interval over seeds speaks of other trainings and
other attackers. It is Student's: with three seeds it is wide, and says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.figures import MARKERS, PALETTE, STYLE, new_figure, stamp

ACCURACY, SUCCESS = "balanced_accuracy", "attack success rate"
MEAN = "fedavg"


@dataclass(frozen=True)
class Spread:
    """A mean over seeds.

    Attributes:
        value: the mean.
        low, high: ends of its 95 % interval; ``None`` with one seed.
        n: seeds.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the mean of at least one value, with Student's interval."""
        mean, n = float(np.mean(values)), len(values)
        if n < 2:
            return cls(mean, None, None, n)
        half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
        return cls(mean, mean - half, mean + half, n)


@dataclass(frozen=True)
class Place:
    """How one defence stood.

    Attributes:
        arm, defence, metric: whose place.
        share: of the clients that attacked.
        attack: which did most, by its mean over seeds.
        n_attacks: how many were tried.
        gain: of that attack, beyond the federation without the attackers.
        score: what that attack left (balanced accuracy), or reached (attack success).
        saved: how much less it is than what the worst attack gained on an undefended mean, paired by seed; ``None``
            where that was not run.
        honest: balanced accuracy with this defence where nobody attacks; ``None`` where that was not run.
    """

    arm: str
    defence: str
    metric: str
    share: float
    attack: str
    n_attacks: int
    gain: Spread
    score: Spread
    saved: Spread | None
    honest: Spread | None


def ranking(rows: Sequence[Row], metric: str = ACCURACY) -> list[Place]:
    """Return every defence of every arm and share, those first whose worst attack gains least.

    Only defences that met as many attacks as any other of their arm and share have a place: one that only met the
    weaker ones is no winner.

    Args:
        rows: of a poisoning grid.
        metric: ``balanced_accuracy`` or ``attack success rate``.
    """
    attacked = [r for r in rows if r.metric == metric and r.gain is not None and r.facts["n_attackers"]]
    places: list[Place] = []
    for arm, share in dict.fromkeys((r.arm, r.facts["share"]) for r in attacked):
        own = [r for r in attacked if (r.arm, r.facts["share"]) == (arm, share)]
        by = {name: _by_attack([r for r in own if r.defence == name]) for name in dict.fromkeys(r.defence for r in own)}
        most = max(map(len, by.values()))
        undefended = _worst(by[MEAN])[1] if MEAN in by and len(by[MEAN]) == most else None
        found = []
        for defence, attacks in by.items():
            if len(attacks) < most:
                continue
            attack, gains = _worst(attacks)
            saved = None
            if undefended is not None and defence != MEAN and (common := sorted(set(undefended) & set(gains))):
                saved = Spread.of([undefended[s] - gains[s] for s in common])
            scores = [r.score for r in own if (r.defence, r.attack) == (defence, attack) and r.score is not None]
            found.append(
                Place(
                    arm,
                    defence,
                    metric,
                    share,
                    attack,
                    len(attacks),
                    Spread.of(list(gains.values())),
                    Spread.of(scores),
                    saved,
                    _honest(rows, arm, defence),
                )
            )
        places += sorted(found, key=lambda p: p.gain.value)
    return places


def _by_attack(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Return each attack's gain by seed, mean over folds."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row.gain is not None:
            found.setdefault(row.attack, {}).setdefault(row.seed, []).append(row.gain)
    return {name: {seed: float(np.mean(g)) for seed, g in by.items()} for name, by in found.items()}


def _worst(attacks: dict[str, dict[int, float]]) -> tuple[str, dict[int, float]]:
    name = max(attacks, key=lambda each: float(np.mean(list(attacks[each].values()))))
    return name, attacks[name]


def _honest(rows: Sequence[Row], arm: str, defence: str) -> Spread | None:
    scores = [
        r.score
        for r in rows
        if (r.arm, r.defence, r.metric) == (arm, defence, ACCURACY)
        and not r.facts["n_attackers"]
        and r.score is not None
    ]
    return Spread.of(scores) if scores else None


def markdown(places: Sequence[Place]) -> str:
    """Write the places as a Markdown table, in points."""
    if not places:
        return ""
    success = places[0].metric == SUCCESS
    what = "success of the trigger" if success else "balanced accuracy left"
    lines = [
        f"| trunk | attackers | defence | without attackers | most harmful attack | {what} "
        "| gained beyond losing them | less than against the mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for p in places:
        left = (f"{100 * p.share:.0f} %", p.defence, _shown(p.honest), f"{p.attack} (of {p.n_attacks})")
        lines.append("| " + " | ".join((p.arm, *left, _shown(p.score), _shown(p.gain), _shown(p.saved))) + " |")
    return "\n".join(lines) + "\n"


def _shown(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    ends = "" if spread.low is None or spread.high is None else f" [{100 * spread.low:.0f}, {100 * spread.high:.0f}]"
    return f"{100 * spread.value:.1f}{ends}"


def cells(rows: Sequence[Row], metric: str = ACCURACY) -> str:
    """Write every cell as a Markdown table: a line for each share, attack and defence, a column for each trunk.

    Mean over seeds, then each seed in order, the mean over folds where there are several.

    Args:
        rows: of a poisoning grid.
        metric: ``balanced_accuracy`` or ``attack success rate``.
    """
    own = [r for r in rows if r.metric == metric and r.score is not None]
    if not own:
        return ""
    arms = list(dict.fromkeys(r.arm for r in own))
    lines = [f"| attackers | attack | defence | {' | '.join(arms)} |", "|---|---|---|" + "---|" * len(arms)]
    for share, attack, defence in sorted(
        dict.fromkeys((r.facts["share"], r.attack, r.defence) for r in own), key=lambda key: (key[0], key[1])
    ):
        found = []
        for arm in arms:
            by: dict[int, list[float]] = {}
            for r in own:
                if (r.facts["share"], r.attack, r.defence, r.arm) == (share, attack, defence, arm):
                    by.setdefault(r.seed, []).append(r.score or 0.0)
            each = [float(np.mean(by[seed])) for seed in sorted(by)]
            shown = f" ({', '.join(f'{score:.3f}' for score in each)})" if len(each) > 1 else ""
            found.append(f"{np.mean(each):.3f}{shown}" if each else "–")
        lines.append(f"| {100 * share:.0f} % | {attack} | {defence} | {' | '.join(found)} |")
    return "\n".join(lines) + "\n"


def curves(rows: Sequence[Row], *, synthetic: bool) -> Figure | None:
    """Draw, for each arm, what the most harmful attack leaves of accuracy, and what the best backdoor reaches.

    Lines join means over seeds; where there are several seeds, small dots show each.

    Args:
        rows: of a poisoning grid.
        synthetic: write SYNTHETIC across the figure.

    Returns:
        The figure; ``None`` where nobody attacked.
    """
    panels = [
        (arm, metric, [p for p in ranking(rows, metric) if p.arm == arm])
        for arm in dict.fromkeys(r.arm for r in rows)
        for metric in (ACCURACY, SUCCESS)
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return None
    names = sorted(dict.fromkeys(p.defence for _, _, places in panels for p in places), key=lambda n: (n != MEAN, n))
    with mpl.rc_context(STYLE):
        n_rows = -(-len(panels) // 2)
        drawn, axes = new_figure(n_rows, 2, 2.9 * n_rows + 1.1)
        for ax, (arm, metric, places) in zip(axes, panels, strict=False):
            _panel(ax, rows, metric, places, names)
            ax.set_title(f"{arm} trunk, {'worst attack' if metric == ACCURACY else 'best backdoor'}")
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        handles, labels = axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=4)
        return stamp(drawn, synthetic)


def _scores(rows: Sequence[Row], place: Place) -> list[float]:
    """Return what the attack that a place was given for left or reached, by seed and fold."""
    own = (place.arm, place.defence, place.metric, place.share, place.attack)
    return [
        r.score for r in rows if r.score is not None and (r.arm, r.defence, r.metric, r.facts["share"], r.attack) == own
    ]


def _panel(ax: Axes, rows: Sequence[Row], metric: str, places: Sequence[Place], names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        own = sorted((p for p in places if p.defence == name), key=lambda p: p.share)
        if not own:
            continue
        x, y = [p.share for p in own], [p.score.value for p in own]
        each = [(100 * p.share, score) for p in own for score in _scores(rows, p)]
        if len(each) > len(own):
            xs, ys = zip(*each, strict=True)
            ax.plot(xs, ys, ".", color=PALETTE[i % len(PALETTE)], markersize=3, alpha=0.6)
        start = own[0].honest.value if metric == ACCURACY and own[0].honest is not None else None
        if metric == SUCCESS:
            chance = [r.baseline for r in rows if (r.arm, r.metric) == (own[0].arm, metric) and r.baseline is not None]
            start = float(np.mean(chance)) if chance else None
        if start is not None:
            x, y = [0.0, *x], [start, *y]
        ax.plot(
            [100 * each for each in x],
            y,
            label="plain mean" if name == MEAN else name.replace("_", " "),
            color=PALETTE[i % len(PALETTE)],
            marker=MARKERS[i % len(MARKERS)],
            linestyle="-" if i < len(PALETTE) else "--",
            markersize=4,
            linewidth=1.2,
        )
    ax.set_xlabel("clients that attack, %")
    ax.set_ylabel("balanced accuracy" if metric == ACCURACY else "attack success")
    ax.set_ylim(-0.02, 1.02)
