"""The grid of poisoning: attacks by share of attackers by aggregation rule, with and without detector and guard."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data.windows import Windows
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.attack_tables import sheet
from hcqsfl.evaluation.figures import stamp
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.poisoning_ranking import ACCURACY, SUCCESS, curves, markdown, ranking
from hcqsfl.evaluation.poisoning_ranking import cells as every_cell
from hcqsfl.federated.aggregation import AGGREGATORS
from hcqsfl.models.plan import PROTOCOLS
from hcqsfl.quantum.draw import save
from hcqsfl.recipes.poisoned import HONEST, N_SMOKE, Scene, Shield, catalogue
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.robustness import Choice
from hcqsfl.recipes.suites.poisoning import pairs
from hcqsfl.registry import lookup

SHARES = {"smoke": (0.2, 0.4), "paper": (0.1, 0.2, 0.3, 0.4)}
RULES = {
    "smoke": ("fedavg", "median", "multi_krum"),
    "paper": tuple(sorted(set(AGGREGATORS) - {"trust_weighted"}, key=lambda rule: (rule != "fedavg", rule))),
}
DEFENCES = {
    "none": (False, ""),
    "detector": (True, ""),
    "guard": (False, "norm"),
    "turn guard": (False, "turn"),
    "detector+guard": (True, "norm"),
}
"""Name to whether a detector screens the clients (a mean is then ``trust_weighted``), and the guard of the trunk."""


def cells(config: Config, windows: Windows, profile: Profile, choice: Choice) -> list[Case]:
    """Return every cell of the grid.

    Raises:
        ValueError: there is no such attack, rule or defence.
    """
    shots = catalogue(windows.classes, windows.n_times)
    by_label = {shot.label: shot for shot in shots}
    chosen = [lookup("attack of the grid", by_label, name) for name in choice.attacks]
    chosen = chosen or shots[: N_SMOKE if profile.name == "smoke" else None]
    rules = choice.rules or RULES[profile.name]
    for rule in rules:
        lookup("aggregation rule", dict.fromkeys(RULES["paper"]), rule)
    protocol = PROTOCOLS[config.federation.protocol]
    possible = [
        name
        for name, (detector, guard) in DEFENCES.items()
        if (protocol.client == "average" or not detector) and (protocol.trunk == "shared" or not guard)
    ]
    if protocol.client != "average":
        rules = ("fedavg",)
    defences = choice.defences or possible
    made = []
    for scene in scenes(config, windows, profile, choice):
        for defence in defences:
            detector, guard = lookup("defence of the grid", DEFENCES, defence)
            for rule in rules:
                for shot, share in pairs(scene, list(chosen), tuple(choice.shares) or SHARES[profile.name]):
                    shield = Shield(rule, detector, guard)
                    key = f"{shot.label}/{share:g}/{rule}/{defence}/{scene.arm.name}/{scene.seed}/"
                    key += scene.prepared.fold.name + (f"/from {scene.start}" if scene.start > 1 else "")
                    made.append(Case(key, partial(scene.run, shot, share, shield)))
    return made


def scenes(config: Config, windows: Windows, profile: Profile, choice: Choice) -> list[Scene]:
    """Return every arm, seed and fold of a grid."""
    known = {arm.name: arm for arm in build.arms(config) if not arm.reference}
    names = choice.arms or ((config.trunk.kind,) if profile.name == "smoke" else profile.arms)
    arms = [lookup("arm", known, name) for name in names if choice.arms or name in known]
    folds = [build.prepare(config, windows, fold) for fold in build.make_folds(config, windows)[: profile.n_folds]]
    return [
        Scene(config, arm, seed, prepared, windows.sfreq, profile.n_resamples, choice.start)
        for seed in config.evaluation.seeds[: profile.n_seeds]
        for prepared in folds
        for arm in arms
    ]


def report(rows: Sequence[Row], folder: Path, synthetic: bool) -> list[Path]:
    """Write all rows, the ranking, every cell, curves, and a heat map of each arm and measure; return the files."""
    files = [folder / "poisoning.csv", folder / "ranking.md", folder / "cells.md"]
    write_whole(files[0], sheet([_flat(row) for row in rows], COLUMNS).encode())
    for file, write in (
        (files[1], lambda metric: markdown(ranking(rows, metric))),
        (files[2], partial(every_cell, rows)),
    ):
        tables = [write(metric) for metric in (ACCURACY, SUCCESS)]
        write_whole(file, "\n".join(each for each in tables if each).encode())
    if (drawn := curves(rows, synthetic=synthetic)) is not None:
        files.append(folder / "poisoning.png")
        save(drawn, files[-1])
    for arm in dict.fromkeys(row.arm for row in rows):
        for metric, title in (
            (ACCURACY, "Balanced accuracy lost beyond losing the attackers"),
            (SUCCESS, "Attack success beyond the same trigger on a clean network"),
        ):
            own = [row for row in rows if row.arm == arm and row.metric == metric]
            if any(row.gain is not None for row in own):
                path = folder / f"{'drop' if metric != SUCCESS else 'success'}-{arm}.png"
                save(heat_map(own, f"{title}, {arm} trunk", synthetic), path)
                files.append(path)
    return files


COLUMNS = (
    "attack", "share", "n_attackers", "rule", "detector", "guard", "arm", "fold", "seed", "metric", "score", "low",
    "high", "baseline", "gain", "gain_low", "gain_high", "accuracy", "detection", "false_positives", "clients_lost",
    "clients_low", "clients_high", "not_applicable",
)  # fmt: skip


def _flat(row: Row) -> Row:
    """Return a row whose facts about clients are facts of their own, each a column of the sheet."""
    clients = {f"clients_{name}": value for name, value in row.facts.get("clients", {}).items()}
    return replace(row, facts={**row.facts, **clients})


def heat_map(rows: Sequence[Row], title: str, synthetic: bool) -> Figure:
    """Draw one panel a share of attackers: attacks down, defences across, the mean gain over seeds and folds inside.

    A dot marks a cell whose interval excludes zero in every seed and fold, a dash one that cannot be; an empty one was
    not run.
    """
    shares = sorted({row.facts["share"] for row in rows if row.attack != HONEST.label})
    attacks = list(dict.fromkeys(row.attack for row in rows))
    shields = list(dict.fromkeys(row.defence for row in rows))
    deepest = max((abs(row.gain) for row in rows if row.gain is not None), default=0.0) or 1.0
    with mpl.rc_context({"font.size": 8, "svg.hashsalt": "hcqsfl"}):
        size = (2.6 + max(len(shares), 1) * (0.3 + 0.42 * len(shields)), 1.9 + 0.24 * len(attacks))
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, max(len(shares), 1), squeeze=False, sharey=True)[0]
        for ax, share in zip(axes, shares or [0.0], strict=True):
            grid = np.full((len(attacks), len(shields)), np.nan)
            for i, attack in enumerate(attacks):
                for j, shield in enumerate(shields):
                    cell = [
                        row
                        for row in rows
                        if (row.attack, row.defence) == (attack, shield)
                        and (row.facts["share"] == share or attack == HONEST.label)
                    ]
                    gains = [row.gain for row in cell if row.gain is not None]
                    if gains:
                        grid[i, j] = np.mean(gains)
                    text = "–" if cell else ""
                    if gains:
                        text = f"{100 * grid[i, j]:.0f}" + "•" * all(row.leaks for row in cell)
                    dark = abs(np.nan_to_num(grid[i, j])) > 0.6 * deepest
                    ax.text(j, i, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
            image = ax.imshow(grid, cmap="RdBu_r", vmin=-deepest, vmax=deepest, aspect="auto")
            ax.set_xticks(range(len(shields)), shields, rotation=55, ha="right", rotation_mode="anchor")
            ax.set_yticks(range(len(attacks)), attacks)
            ax.set_title(f"{share:.0%} of the clients attack", fontsize=9, loc="left")
            ax.spines[:].set_visible(False)
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        bar = figure.colorbar(image, ax=list(axes), shrink=0.7, format=lambda value, _: f"{100 * value:.0f}")
        bar.set_label("points")
    return stamp(figure, synthetic)


def table(rows: Sequence[Row]) -> Table:
    """Lay out attacks by defences: what the attackers gained at the largest share, in points, means over seeds."""
    largest = max((row.facts["share"] for row in rows), default=0.0)
    shown = [row for row in rows if row.facts["share"] == largest or row.attack == HONEST.label]
    shields = list(dict.fromkeys(row.defence for row in shown))
    laid = Table(
        title=f"Poisoning by {largest:.0%} of the clients",
        caption="points of balanced accuracy lost, or of attack success won (ASR), beyond the federation without the "
        "attackers; * the 95 % interval excludes zero; – cannot be",
    )
    laid.add_column("attack")
    for shield in shields:
        laid.add_column(shield, justify="right")
    for attack, metric in dict.fromkeys((row.attack, row.metric) for row in shown):
        cells = []
        for shield in shields:
            own = [r for r in shown if (r.attack, r.metric, r.defence) == (attack, metric, shield)]
            gains = [row.gain for row in own if row.gain is not None]
            cells.append(f"{100 * np.mean(gains):.1f}{'*' * all(r.leaks for r in own)}" if gains else "–")
        laid.add_row(escape(attack) + (", ASR" if metric == SUCCESS else ""), *cells)
    return laid


def summary(rows: Sequence[Row]) -> list[str]:
    """Say in a sentence for each measure what did most, and what withstood it best."""
    lines = []
    for metric in (ACCURACY, SUCCESS):
        own = [row for row in rows if row.metric == metric and row.gain is not None and row.attack != HONEST.label]
        if not own:
            continue
        worst = max(own, key=lambda row: row.gain or 0.0)
        lines.append(
            f"{metric}: {worst.attack} at {worst.facts['share']:.0%} against {worst.defence} gained most, "
            f"{100 * (worst.gain or 0.0):.1f} points."
        )
        for place in {(p.arm, p.share): p for p in reversed(ranking(rows, metric))}.values():
            ends = ""
            if place.gain.low is not None and place.gain.high is not None:
                ends = f" [{100 * place.gain.low:.1f}, {100 * place.gain.high:.1f}] over {place.gain.n} seeds"
            lines.append(
                f"{metric}, {place.arm} trunk, {place.share:.0%} attack: {place.defence} limited its worst attack "
                f"({place.attack}) most, to {100 * place.gain.value:.1f} points{ends}."
            )
    return lines
