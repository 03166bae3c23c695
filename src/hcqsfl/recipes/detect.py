"""Train detectors on normal rows alone, quantum ones beside classical ones, and count the intrusions they find."""

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hcqsfl import build
from hcqsfl.adversarial.detection import DETECTORS, QUANTUM, make
from hcqsfl.adversarial.detection.rates import threshold
from hcqsfl.adversarial.detection.reduction import Reduction
from hcqsfl.config import Config
from hcqsfl.data.folds import Fold
from hcqsfl.data.scaling import Scaler
from hcqsfl.data.windows import Windows
from hcqsfl.evaluation.bootstrap import Interval, intervals, percentiles
from hcqsfl.evaluation.figures import PALETTE, stamp
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.evaluation.result import verdict
from hcqsfl.evaluation.significance import holm, paired
from hcqsfl.quantum import draw
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.progress import Progress
from hcqsfl.registry import lookup


@dataclass(frozen=True)
class Arm:
    """One detector of the table.

    Attributes:
        title: its name there.
        detector: a key of ``DETECTORS``.
        options: what it is made with.
        reduced: whether it sees the reduced features that the circuits see, or all columns.
    """

    title: str
    detector: str
    options: Mapping[str, Any] = field(default_factory=dict)
    reduced: bool = True

    @property
    def quantum(self) -> bool:
        """Whether it runs a circuit."""
        return self.detector in QUANTUM


ARMS = (
    Arm("quantum one-class SVM, fidelity", "quantum_ocsvm", {"kind": "fidelity"}),
    Arm("quantum one-class SVM, projected", "quantum_ocsvm", {"kind": "projected"}),
    Arm("quantum autoencoder", "quantum_autoencoder"),
    Arm("reference state, fidelity", "reference_state", {"distance": "fidelity"}),
    Arm("reference state, trace distance", "reference_state", {"distance": "trace"}),
    Arm("RBF one-class SVM", "rbf_ocsvm"),
    Arm("isolation forest", "isolation_forest"),
    Arm("Mahalanobis", "mahalanobis"),
    Arm("autoencoder", "autoencoder"),
    Arm("RBF one-class SVM, all columns", "rbf_ocsvm", reduced=False),
    Arm("isolation forest, all columns", "isolation_forest", reduced=False),
    Arm("Mahalanobis, all columns", "mahalanobis", reduced=False),
    Arm("autoencoder, all columns", "autoencoder", reduced=False),
)
"""The first is compared with every classical one on the same features; the last four show what the reduction costs."""


@dataclass(frozen=True)
class Row:
    """What one detector found, means over the seeds with 95 % bootstrap intervals over rows.

    Attributes:
        arm: which.
        auroc, auprc: of anomaly scores against attack or not.
        recall: share of attacks above the threshold that held-out normal rows set.
        false_alarms: share of the test's normal rows above it.
        by_type: recall of each class of attack.
        fit_seconds, score_seconds: mean over the seeds, all test rows together.
    """

    arm: Arm
    auroc: Interval
    auprc: Interval
    recall: Interval
    false_alarms: Interval
    by_type: Mapping[str, float]
    fit_seconds: float
    score_seconds: float


@dataclass(frozen=True)
class Detection:
    """The table of detectors.

    Attributes:
        rows: one a detector.
        normal: name of the class that counts as normal.
        n_features: of the reduced rows, one qubit each.
        n_columns: of the scaled rows before.
        n_train, n_calibration: normal rows to learn from and to set thresholds.
        n_test: test rows of each class.
        asked_false_alarms: share of held-out normal rows above the threshold.
        seeds: of detectors and training rows.
        sentences: what the comparisons came to, in words.
        synthetic: whether the recordings were made up.
    """

    rows: tuple[Row, ...]
    normal: str
    n_features: int
    n_columns: int
    n_train: int
    n_calibration: int
    n_test: Mapping[str, int]
    asked_false_alarms: float
    seeds: tuple[int, ...]
    sentences: tuple[str, ...]
    synthetic: bool


def detect(
    windows: Windows,
    fold: Fold,
    *,
    normal: str = "normal",
    n_features: int = 8,
    scaling: str = "quantile",
    n_train: int | None = None,
    n_test: int | None = None,
    false_alarms: float = 0.01,
    seeds: Sequence[int] = (0, 1, 2),
    split_seed: int = 0,
    arms: Sequence[Arm] = ARMS,
    unit: str = "row",
    n_resamples: int = 1000,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Detection:
    """Train detectors on the normal rows of a fold's training part, and test them on all of its test part.

    The scaler, the reduction and the detectors are fitted on normal training rows alone, the thresholds on normal
    validation rows; test rows are looked at once. All detectors have the same rows.

    Args:
        windows: rows or windows; a window of several samples is laid out flat.
        fold: its training, validation and test part.
        normal: name of the normal class; every other class is an attack.
        n_features: number of reduced features, and of qubits.
        scaling: a method of ``Scaler``.
        n_train: normal training rows that a detector learns from, drawn anew for each seed; all if None.
        n_test: test rows, drawn once; all if None.
        false_alarms: share of held-out normal rows above the threshold.
        seeds: of the detectors and of the draw of training rows.
        split_seed: of the draw of test rows, and of the bootstrap.
        arms: what to train; the first is compared with the classical ones that see what it sees.
        unit: what is resampled: ``"row"`` or ``"subject"``.
        n_resamples: of the bootstrap.
        out: folder for ``detection.csv``, ``.json``, ``.svg`` and ``.png``; nothing is written if None.
        progress: told of each detector.

    Raises:
        ValueError: there is no such class, a part lacks normal rows or attacks, or a number is out of range.
        OSError: ``out`` cannot be written to.
    """
    place = lookup("class", {name: i for i, name in enumerate(windows.classes)}, normal)
    parts = {name: windows.take(getattr(fold, name)) for name in ("train", "validation", "test")}
    normals = {name: part.take(part.y == place) for name, part in parts.items()}
    test = parts["test"]
    if n_test is not None and n_test < len(test):
        test = test.take(np.sort(numpy_generator(split_seed, "detect", "test").permutation(len(test))[:n_test]))
    attack = test.y != place
    for what, n in (
        ("normal training", len(normals["train"])),
        ("normal validation", len(normals["validation"])),
        ("normal test", int((~attack).sum())),
        ("attack test", int(attack.sum())),
    ):
        if n < 2:
            raise ValueError(f"there are {n} {what} rows; detectors need at least 2")

    scaler = Scaler.fit(normals["train"], scaling, split_seed)
    learn, hold, judge = (_flat(scaler(part)) for part in (normals["train"], normals["validation"], test))
    reduction = Reduction.fit(learn, n_features)
    shown = {True: [reduction(x) for x in (learn, hold, judge)], False: [learn, hold, judge]}
    drawn = {seed: numpy_generator(seed, "detect", "train").permutation(len(learn))[:n_train] for seed in seeds}

    progress = progress or Progress()
    progress.start(len(arms))
    rows, runs = [], []
    for arm in arms:
        progress.say(arm.title)
        row, predictions = _run(
            arm, shown[arm.reduced], drawn, test, attack, unit, false_alarms, split_seed, n_resamples
        )
        rows.append(row)
        runs.append(predictions)
        progress.step(arm.title, None)
    result = Detection(
        tuple(rows),
        normal,
        n_features,
        learn.shape[1],
        min(n_train or len(learn), len(learn)),
        len(hold),
        {name: int((test.y == i).sum()) for i, name in enumerate(windows.classes)},
        false_alarms,
        tuple(seeds),
        _compare(arms, runs, split_seed, n_resamples),
        windows.synthetic,
    )
    if out is not None:
        write(result, out)
    return result


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _run(
    arm: Arm,
    data: Sequence[np.ndarray],
    drawn: Mapping[int, np.ndarray],
    test: Windows,
    attack: np.ndarray,
    unit: str,
    false_alarms: float,
    split_seed: int,
    n_resamples: int,
) -> tuple[Row, list[Predictions]]:
    learn, hold, judge = data
    predictions, above, fitting, scoring = [], [], 0.0, 0.0
    for seed, index in drawn.items():
        start = time.perf_counter()
        detector = make(arm.detector, seed=seed, **arm.options).fit(learn[index])
        fitted = time.perf_counter()
        scores = detector.scores(judge)
        fitting, scoring = fitting + fitted - start, scoring + time.perf_counter() - fitted
        above.append(scores > threshold(detector.scores(hold), false_alarms))
        both = np.stack([-scores / 2, scores / 2], 1)
        predictions.append(Predictions(attack.astype(np.int64), both, test.subject, ("normal", "attack"), unit))
    ranked = intervals(predictions, ["auroc", "auprc"], seed=split_seed, n_resamples=n_resamples)
    share = np.mean(above, axis=0)
    n = len(drawn)
    row = Row(
        arm,
        ranked["auroc"],
        ranked["auprc"],
        _share(share[attack], test.subject[attack], unit, split_seed, n_resamples),
        _share(share[~attack], test.subject[~attack], unit, split_seed, n_resamples),
        {
            name: float(share[test.y == i].mean())
            for i, name in enumerate(test.classes)
            if (attack & (test.y == i)).any()
        },
        fitting / n,
        scoring / n,
    )
    return row, predictions


def _share(flagged: np.ndarray, subject: np.ndarray, unit: str, seed: int, n_resamples: int) -> Interval:
    """Return the mean of the rows' shares with a percentile interval over rows, or over whole subjects."""
    groups = np.arange(len(flagged)) if unit == "row" else np.unique(subject, return_inverse=True)[1]
    size = np.bincount(groups).astype(float)
    total = np.bincount(groups, flagged)
    n, mean = len(size), float(flagged.mean())
    if n < 2:
        return Interval(mean, None, None, n, f"no interval: 1 {unit}, at least 2 are needed")
    generator = numpy_generator(seed, "detect", "share")
    resampled = []
    for _ in range(n_resamples):
        weights = np.bincount(generator.integers(n, size=n), minlength=n)
        resampled.append((weights @ total) / (weights @ size))
    low, high, note = percentiles(np.array(resampled), 0.95)
    return Interval(mean, low, high, n, f"percentile bootstrap, {n_resamples} resamples of {n} {unit}s{note}")


def _compare(arms: Sequence[Arm], runs: Sequence[list[Predictions]], seed: int, n_resamples: int) -> tuple[str, ...]:
    """Return one sentence for the first arm against each classical one that sees the same features."""
    first = arms[0]
    against = [i for i, arm in enumerate(arms) if not arm.quantum and arm.reduced == first.reduced and i]
    found = [paired(runs[0], runs[i], "auroc", seed=seed, n_resamples=n_resamples) for i in against]
    adjusted = holm([c.p_value for c in found])
    return tuple(verdict(first.title, arms[i].title, c, p) for i, c, p in zip(against, found, adjusted, strict=True))


def write(result: Detection, out: Path) -> None:
    """Write table and figure into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    measures = ("auroc", "auprc", "recall", "false_alarms")
    ends = [f"{name}{end}" for name in measures for end in ("", "_low", "_high")]
    types = list(result.rows[0].by_type)
    writer.writerow(["detector", "quantum", "features", *ends, "fit_s", "score_s", *(f"recall_{t}" for t in types)])
    for row in result.rows:
        found = [getattr(row, name) for name in measures]
        writer.writerow(
            [row.arm.title, int(row.arm.quantum), "reduced" if row.arm.reduced else "all"]
            + [number for i in found for number in (i.value, i.low, i.high)]
            + [row.fit_seconds, row.score_seconds, *(row.by_type[t] for t in types)]
        )
    write_whole(out / "detection.csv", sheet.getvalue().encode())
    write_whole(out / "detection.json", (json.dumps(asdict(result), indent=2, default=dict) + "\n").encode())
    made = figure(result)
    for ending in ("svg", "png"):
        draw.save(made, out / f"detection.{ending}")


def figure(result: Detection) -> Figure:
    """Return two panels, AUROC and recall at the set share of false alarms, one line a detector."""
    made = Figure(figsize=(9.5, 0.27 * len(result.rows) + 1.7), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(1, 2, sharey=True)
    places = np.arange(len(result.rows))[::-1]
    for ax, name, title in (
        (axes[0], "auroc", "AUROC"),
        (axes[1], "recall", f"Recall at {result.asked_false_alarms:.0%} false alarms asked for"),
    ):
        for place, row in zip(places, result.rows, strict=True):
            got: Interval = getattr(row, name)
            color = PALETTE[1] if row.arm.quantum else PALETTE[0] if row.arm.reduced else "#767676"
            if got.value is not None:
                ax.plot([got.value], [place], "o", color=color, markersize=5)
            if got.low is not None and got.high is not None:
                ax.plot([got.low, got.high], [place, place], color=color, linewidth=1.6)
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_xlim(0, 1.02)
        ax.grid(axis="x", color="#E3E3E3", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(places, [row.arm.title for row in result.rows], fontsize=8)
    kinds = {"quantum": PALETTE[1], "classical, same features": PALETTE[0], "classical, all columns": "#767676"}
    marks = [Line2D([], [], marker="o", markersize=5, color=color, label=kind) for kind, color in kinds.items()]
    made.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return stamp(made, result.synthetic)


def detect_of(
    config: Config, *, cache: Path, detectors: Sequence[str] = (), progress: Progress | None = None, **options: Any
) -> Detection:
    """Make the table of detectors on an experiment's rows: its first fold, its scaling and its seeds.

    Args:
        config: settings; its network and federation play no part.
        cache: folder of parsed windows.
        detectors: keys of ``hcqsfl.adversarial.detection.DETECTORS``; all of them if empty.
        progress: told of each detector.
        options: what ``detect`` takes besides.

    Raises:
        ValueError, OSError: the settings, the recordings or the folder do not allow it; see the message.
        LeakError: the scan found a leak that no flag allows.
    """
    progress = progress or Progress()
    torch.set_num_threads(config.training.threads)
    for name in detectors:
        lookup("detector", DETECTORS, name)
    windows = build.windows(config, cache, progress.say)
    folds = build.make_folds(config, windows)[:1]
    progress.say("scanning for leaks")
    build.scan(config, windows, folds)
    return detect(
        windows,
        folds[0],
        scaling=config.model.scaling,
        seeds=config.evaluation.seeds,
        split_seed=config.split.seed,
        unit="subject" if folds[0].by == "subject" else "row",
        arms=[arm for arm in ARMS if not detectors or arm.detector in detectors],
        progress=progress,
        **options,
    )
