"""Test trained networks again with their circuits on noisier and noisier machines: a table and a figure.

The networks were trained without noise unless they say otherwise; nothing is trained here.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hcqsfl.evaluation.bootstrap import Interval, interval_over_seeds
from hcqsfl.evaluation.classification import METRICS
from hcqsfl.evaluation.figures import MARKERS, PALETTE, stamp
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.predictions import Predictions, concatenate
from hcqsfl.models.predict import predict_by_lot
from hcqsfl.quantum import draw
from hcqsfl.quantum.noise import Noise, with_noise
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.trained import Trained
from hcqsfl.registry import lookup

KINDS = ("depolarising", "amplitude_damping", "phase_damping", "readout")
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1)
SHOTS = (16, 64, 256, 1024, 4096)


@dataclass(frozen=True)
class Point:
    """One level of one kind of imperfection.

    Attributes:
        kind: one of ``KINDS``, ``"shots"``, or ``"none"`` for the perfect machine.
        level: strength, or number of shots.
        score: the metric with its interval, mean over the seeds.
    """

    kind: str
    level: float
    score: Interval


@dataclass(frozen=True)
class Sweep:
    """What noise does to a metric.

    Attributes:
        metric: its name.
        points: the perfect machine first.
        n_rows: test rows of one seed.
        n_seeds: trainings averaged over.
        n_trajectories: of circuits too large for a density matrix.
        synthetic: whether the recordings were made up.
    """

    metric: str
    points: tuple[Point, ...]
    n_rows: int
    n_seeds: int
    n_trajectories: int
    synthetic: bool

    @property
    def perfect(self) -> Point:
        """The point without noise."""
        return self.points[0]


def noise_sweep(
    trained: Sequence[Trained],
    *,
    kinds: Sequence[str] = KINDS,
    strengths: Sequence[float] = STRENGTHS,
    shots: Sequence[int] = SHOTS,
    metric: str = "macro_f1",
    n_trajectories: int = 100,
    batch_size: int = 64,
    seed: int = 0,
    n_resamples: int = 1000,
    synthetic: bool = False,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Score trained networks under every kind and strength of noise, one kind at a time.

    Args:
        trained: networks with their test rows; those of one seed, its folds, make one score together.
        kinds: of ``KINDS``.
        strengths: probabilities in [0, 1].
        shots: numbers of shots of an otherwise perfect machine.
        metric: name in ``METRICS``.
        n_trajectories: for circuits of more than 6 qubits.
        batch_size: rows at a time.
        seed: of trajectories, shots and resampling.
        n_resamples: of the bootstrap.
        synthetic: whether the recordings were made up; the figure then says so.
        out: folder for ``noise_sweep.csv``, ``.json``, ``.svg`` and ``.png``; nothing is written if None.
        progress: told of each level.

    Raises:
        ValueError: a kind, strength, number of shots or metric is none, or there is no network with a quantum layer.
        OSError: ``out`` cannot be written to.
    """
    if not trained:
        raise ValueError("there is no trained network to test under noise")
    lookup("metric", METRICS, metric)
    levels: list[tuple[str, float, Noise, int | None]] = [("none", 0.0, Noise(), None)]
    for kind in kinds:
        lookup("kind of noise", dict.fromkeys(KINDS), kind)
        levels += [(kind, float(s), Noise(**{kind: s}), None) for s in strengths]
    levels += [("shots", float(n), Noise(), n) for n in shots]

    progress = progress or Progress()
    progress.start(len(levels))
    points = []
    for kind, level, noise, n_shots in levels:
        progress.say(f"{kind} {level:g}")
        options = {"shots": n_shots, "n_trajectories": n_trajectories, "seed": seed}
        by_seed: dict[int, list[Predictions]] = {}
        for each in trained:
            by_seed.setdefault(each.seed, []).append(_predict(each, noise, options, batch_size))
        runs = [concatenate(folds) for folds in by_seed.values()]
        points.append(Point(kind, level, interval_over_seeds(runs, metric, seed=seed, n_resamples=n_resamples)))
        progress.step(f"{kind} {level:g}", None)
    sweep = Sweep(metric, tuple(points), len(runs[0]), len(runs), n_trajectories, synthetic)
    if out is not None:
        write(sweep, out)
    return sweep


def _predict(each: Trained, noise: Noise, options: dict[str, Any], batch_size: int) -> Predictions:
    networks = [with_noise(network, noise, **options) for network in each.networks]
    scores = predict_by_lot(networks, each.x, each.seed, batch_size)
    return Predictions(each.y, scores.double().numpy(), each.subject, each.classes, each.unit)


def write(sweep: Sweep, out: Path) -> None:
    """Write table and figure into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(("kind", "level", sweep.metric, "low", "high", "method"))
    writer.writerows((p.kind, p.level, p.score.value, p.score.low, p.score.high, p.score.method) for p in sweep.points)
    write_whole(out / "noise_sweep.csv", sheet.getvalue().encode())
    write_whole(out / "noise_sweep.json", (json.dumps(asdict(sweep), indent=2) + "\n").encode())
    made = figure(sweep)
    for ending in ("svg", "png"):
        draw.save(made, out / f"noise_sweep.{ending}")


def figure(sweep: Sweep) -> Figure:
    """Return two panels: the metric over the strength of each noise, and over the number of shots."""
    made = Figure(figsize=(9.0, 3.6), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(1, 2, sharey=True)
    noises = [kind for kind in dict.fromkeys(p.kind for p in sweep.points) if kind in KINDS]
    for ax, kinds, label in ((axes[0], noises, "probability"), (axes[1], ["shots"], "shots of each observable")):
        for i, kind in enumerate(kinds):
            points = [p for p in sweep.points if p.kind == kind and p.score.value is not None]
            if not points:
                continue
            levels, values = [p.level for p in points], [p.score.value for p in points]
            ends = [(p.score.low, p.score.high) for p in points]
            name = kind.replace("_", " ")
            ax.plot(levels, values, marker=MARKERS[i], color=PALETTE[i], label=name, linewidth=1.3, markersize=5)
            if all(low is not None and high is not None for low, high in ends):
                ax.fill_between(levels, *zip(*ends, strict=True), color=PALETTE[i], alpha=0.12, linewidth=0)
        if sweep.perfect.score.value is not None:
            ax.axhline(sweep.perfect.score.value, color="#767676", linestyle="--", linewidth=1, label="perfect machine")
        ax.set_xscale("log")
        ax.set_xlabel(label)
        ax.spines[["top", "right"]].set_visible(False)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8, frameon=False)
    axes[0].set_ylabel(METRICS[sweep.metric].title)
    return stamp(made, sweep.synthetic)
