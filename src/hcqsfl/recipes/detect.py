"""Train detectors on normal rows alone, quantum ones beside classical ones, and count what they find.

Two jobs: intrusions among rows, and malicious clients among a federation's. See ``hcqsfl.adversarial.detection``.
"""

import csv
import io
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hcqsfl.adversarial.detection import QUANTUM, AnomalyDetector, make
from hcqsfl.adversarial.detection.clients import ClientMonitor, ClientRates, client_rates
from hcqsfl.adversarial.detection.rates import threshold
from hcqsfl.adversarial.detection.reduction import Reduction
from hcqsfl.adversarial.detection.watch import Watch
from hcqsfl.data.folds import Fold
from hcqsfl.data.scaling import Scaler
from hcqsfl.data.windows import Windows
from hcqsfl.evaluation.bootstrap import Interval, intervals, percentiles
from hcqsfl.evaluation.figures import PALETTE
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.evaluation.result import verdict
from hcqsfl.evaluation.significance import holm, paired
from hcqsfl.federated.update import Aggregator
from hcqsfl.models.protocols import Setup
from hcqsfl.quantum import draw
from hcqsfl.randomness import numpy_generator
from hcqsfl.registry import lookup
from hcqsfl.split import Transport


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
    progress: Callable[[str], None] = lambda text: None,
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
        out: folder for ``detection.csv``, ``.json`` and ``.svg``; nothing is written if None.
        progress: told what is being trained.

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

    rows, runs = [], []
    for arm in arms:
        progress(arm.title)
        row, predictions = _run(
            arm, shown[arm.reduced], drawn, test, attack, unit, false_alarms, split_seed, n_resamples
        )
        rows.append(row)
        runs.append(predictions)
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
    draw.save(figure(result), out / "detection.svg")


def figure(result: Detection) -> Figure:
    """Return two panels, AUROC and recall at the set share of false alarms, one line a detector."""
    made = Figure(figsize=(9.5, 0.32 * len(result.rows) + 1.4), layout="constrained")
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
    if result.synthetic:
        made.text(
            0.5, 0.5, "SYNTHETIC", fontsize=54, color="#D55E00", alpha=0.15, ha="center", va="center", rotation=20
        )
    return made


def lines(result: Detection) -> list[str]:
    """Return the table as text for a terminal, a header first."""
    wide = max(len(row.arm.title) for row in result.rows)
    head = f"{'detector':<{wide}}  {'AUROC':<19}  {'AUPRC':<19}  {'recall':<19}  false alarms"
    return [head] + [
        f"{row.arm.title:<{wide}}  "
        + "  ".join(f"{_cell(i):<19}" for i in (row.auroc, row.auprc, row.recall, row.false_alarms)).rstrip()
        for row in result.rows
    ]


def _cell(got: Interval) -> str:
    if got.value is None:
        return "-"
    return f"{got.value:.3f}" + ("" if got.low is None else f" [{got.low:.3f}, {got.high:.3f}]")


Wear = Callable[[str, Transport], Transport]
MakeSetup = Callable[[int, Callable[[], Aggregator], Wear, Collection[str]], Setup]
"""Seed, what makes aggregation rules, what transports wear, who is poisoned -> a federation ready to run."""


@dataclass(frozen=True)
class ClientDetection:
    """What one detector found among the clients.

    Attributes:
        detector: a key of ``DETECTORS``.
        rates: detection and false positives over all rounds of all judged runs, the first rounds included.
        by_seed: the same of each run.
        threshold: of its score.
        features: number of features a client, 4 by updates alone and 7 with smashed data.
        rounds: for each judged run and round, the clients flagged.
    """

    detector: str
    rates: ClientRates
    by_seed: Mapping[int, ClientRates]
    threshold: float
    features: int
    rounds: Mapping[int, Sequence[Sequence[str]]]


def detect_clients(
    set_up: MakeSetup,
    attackers: Sequence[str],
    *,
    n_rounds: int,
    detectors: Sequence[str] = ("quantum_ocsvm", "reference_state", "mahalanobis", "isolation_forest"),
    options: Mapping[str, Any] | None = None,
    calibration_seeds: Sequence[int] = (101, 102),
    seeds: Sequence[int] = (0, 1),
    false_alarms: float = 0.02,
    strikes: int = 3,
    window: int = 5,
    progress: Callable[[str], None] = lambda text: None,
) -> list[ClientDetection]:
    """Run federations without attackers to calibrate detectors, then others with attackers to count what is found.

    Each judged run is aggregated by the trust of the detector that judges it, so that what it overlooks does its harm.

    Args:
        set_up: makes the federation of a seed; it poisons the clients it is told to, and nobody else.
        attackers: the clients to poison in the judged runs.
        n_rounds: of every run.
        detectors: keys of ``DETECTORS``.
        options: what all detectors are made with.
        calibration_seeds: of the runs without attackers; none of them is judged.
        seeds: of the judged runs.
        false_alarms, strikes, window: as ``ClientMonitor``.
        progress: told what is being run.

    Raises:
        ValueError: a seed is both calibrated on and judged, nobody attacks, or as ``ClientMonitor``.
    """
    if both := set(calibration_seeds) & set(seeds):
        raise ValueError(f"seed {min(both)} is both calibrated on and judged; take different ones")
    if not attackers:
        raise ValueError("nobody attacks in the judged runs, so there is nothing to detect")
    recorded: list[np.ndarray] = []
    for seed in calibration_seeds:
        progress(f"calibration run, seed {seed}")
        monitor = ClientMonitor(make("mahalanobis"))
        _run_watched(set_up, seed, Watch(monitor, monitor.record), (), n_rounds)
        recorded += monitor.recorded
    found = []
    for name in detectors:
        judged: dict[int, ClientMonitor] = {}
        for seed in seeds:
            progress(f"{name}, seed {seed}")
            detector: AnomalyDetector = make(name, **(options or {}))
            monitor = ClientMonitor(detector, false_alarms=false_alarms, strikes=strikes, window=window)
            monitor.calibrate(recorded)
            _run_watched(set_up, seed, Watch(monitor), attackers, n_rounds)
            judged[seed] = monitor
        found.append(
            ClientDetection(
                name,
                client_rates([v for monitor in judged.values() for v in monitor.verdicts], attackers),
                {seed: client_rates(monitor.verdicts, attackers) for seed, monitor in judged.items()},
                next(iter(judged.values())).threshold,
                recorded[0].shape[1],
                {seed: [sorted(v.flagged | v.quarantined) for v in m.verdicts] for seed, m in judged.items()},
            )
        )
    return found


def _run_watched(set_up: MakeSetup, seed: int, watch: Watch, attackers: Collection[str], n_rounds: int) -> None:
    federation = set_up(seed, watch.rule, watch.wear, attackers).federation
    for _ in range(n_rounds):
        federation.run_round()
