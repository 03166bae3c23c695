"""Find malicious clients on the server, and count over all rounds what each detector finds."""

import csv
import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hcqsfl import build
from hcqsfl.adversarial import poisoning
from hcqsfl.adversarial.detection import QUANTUM, AnomalyDetector, make
from hcqsfl.adversarial.detection.clients import ClientMonitor, ClientRates, client_rates
from hcqsfl.adversarial.detection.rates import Share
from hcqsfl.adversarial.detection.trust_watch import TrustWatch
from hcqsfl.adversarial.poisoning.infiltrate import draw as draw_attackers
from hcqsfl.adversarial.poisoning.infiltrate import infiltrate
from hcqsfl.config import Config
from hcqsfl.evaluation import classification
from hcqsfl.evaluation.figures import PALETTE, stamp
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.federated.aggregation import make as make_aggregator
from hcqsfl.federated.update import Aggregator
from hcqsfl.models.predict import predict_by_lot
from hcqsfl.models.protocols import Setup, set_up
from hcqsfl.quantum import draw
from hcqsfl.recipes.progress import Progress
from hcqsfl.registry import lookup
from hcqsfl.split import Transport

Wear = Callable[[str, Transport], Transport]
MakeSetup = Callable[[int, Callable[[], Aggregator], Wear, Collection[str]], Setup]
"""Seed, what makes aggregation rules, what transports wear, who is poisoned -> a federation ready to run."""

DETECTORS = ("quantum_ocsvm", "reference_state", "mahalanobis", "isolation_forest")
TITLES = {"quantum_ocsvm": "quantum one-class SVM", "rbf_ocsvm": "RBF one-class SVM", "mahalanobis": "Mahalanobis"}
RATES = ("detection", "false_positives", "detection_by_score", "false_positives_by_score")


@dataclass(frozen=True)
class ClientDetection:
    """What one detector found among the clients.

    Attributes:
        detector: a key of ``hcqsfl.adversarial.detection.DETECTORS``.
        rates: detection and false positives over all rounds of all judged runs, the first rounds included.
        by_seed: the same of each run.
        threshold: of its score.
        features: number of features a client, 4 by updates alone and 7 with smashed data.
        rounds: for each judged run and round, the clients flagged or in quarantine.
        score: of the networks that its trust aggregated, mean over the judged runs; None unless they were scored.
    """

    detector: str
    rates: ClientRates
    by_seed: Mapping[int, ClientRates]
    threshold: float
    features: int
    rounds: Mapping[int, Sequence[Sequence[str]]]
    score: float | None = None

    @property
    def quantum(self) -> bool:
        """Whether it runs a circuit."""
        return self.detector in QUANTUM


@dataclass(frozen=True)
class Setting:
    """What the detectors were tried on.

    Attributes:
        name: of the experiment.
        protocol, trunk: who holds what.
        clients, attackers: their names.
        attack: what the attackers did.
        n_rounds: of every run.
        calibration_seeds, seeds: of runs without attackers, and of judged ones.
        false_alarms: share of held-out honest client-rounds that may be flagged.
        undefended, honest: macro F1 of federated averaging with and without the attackers, mean over the judged seeds.
        synthetic: whether the recordings were made up.
    """

    name: str
    protocol: str
    trunk: str
    clients: tuple[str, ...]
    attackers: tuple[str, ...]
    attack: str
    n_rounds: int
    calibration_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    false_alarms: float
    undefended: float | None
    honest: float | None
    synthetic: bool


def detect_clients(
    make_setup: MakeSetup,
    attackers: Sequence[str],
    *,
    n_rounds: int,
    detectors: Sequence[str] = DETECTORS,
    options: Mapping[str, Any] | None = None,
    calibration_seeds: Sequence[int] = (101, 102),
    seeds: Sequence[int] = (0, 1),
    false_alarms: float = 0.02,
    strikes: int = 3,
    window: int = 5,
    score: Callable[[Setup, int], float | None] = lambda setup, seed: None,
    progress: Progress | None = None,
) -> list[ClientDetection]:
    """Run federations without attackers to calibrate detectors, then others with attackers to count what is found.

    Each judged run is aggregated by the trust of the detector that judges it, so that what it overlooks does its harm.

    Args:
        make_setup: makes the federation of a seed; it poisons the clients it is told to, and nobody else.
        attackers: the clients to poison in the judged runs.
        n_rounds: of every run.
        detectors: keys of ``hcqsfl.adversarial.detection.DETECTORS``.
        options: what all detectors are made with.
        calibration_seeds: of the runs without attackers; none of them is judged.
        seeds: of the judged runs.
        false_alarms, strikes, window: as ``ClientMonitor``.
        score: judges the networks of a run when it is over.
        progress: told of each run.

    Raises:
        ValueError: a seed is both calibrated on and judged, nobody attacks, or as ``ClientMonitor``.
    """
    if both := set(calibration_seeds) & set(seeds):
        raise ValueError(f"seed {min(both)} is both calibrated on and judged; take different ones")
    if not attackers:
        raise ValueError("nobody attacks in the judged runs, so there is nothing to detect")
    for name in detectors:
        make(name, **(options or {}))  # an unknown one is told before anything runs
    progress = progress or Progress()
    recorded: list[np.ndarray] = []
    for seed in calibration_seeds:
        progress.say(f"calibration, seed {seed}")
        recorder = ClientMonitor(make("mahalanobis"))
        listener = TrustWatch(recorder, recorder.record)
        _run(make_setup(seed, listener.rule, listener.wear, ()), n_rounds, progress)
        recorded += recorder.recorded
    found = []
    for name in detectors:
        judged: dict[int, ClientMonitor] = {}
        scores: list[float | None] = []
        for seed in seeds:
            progress.say(f"{name}, seed {seed}")
            detector: AnomalyDetector = make(name, **(options or {}))
            monitor = ClientMonitor(detector, false_alarms=false_alarms, strikes=strikes, window=window)
            monitor.calibrate(recorded)
            watch = TrustWatch(monitor)
            setup = make_setup(seed, watch.rule, watch.wear, attackers)
            _run(setup, n_rounds, progress)
            scores.append(score(setup, seed))
            judged[seed] = monitor
        found.append(
            ClientDetection(
                name,
                client_rates([v for monitor in judged.values() for v in monitor.verdicts], attackers),
                {seed: client_rates(monitor.verdicts, attackers) for seed, monitor in judged.items()},
                next(iter(judged.values())).threshold,
                recorded[0].shape[1],
                {seed: [sorted(v.flagged | v.quarantined) for v in m.verdicts] for seed, m in judged.items()},
                _mean(scores),
            )
        )
    return found


def _run(setup: Setup, n_rounds: int, progress: Progress) -> None:
    for _ in range(n_rounds):
        setup.federation.run_round()
        progress.step("", None)


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else None


def detect_clients_of(
    config: Config,
    *,
    cache: Path,
    attackers: Sequence[str] = (),
    share: float = 0.2,
    attack: str = "label_flip",
    detectors: Sequence[str] = DETECTORS,
    calibration_seeds: Sequence[int] = (101, 102),
    false_alarms: float = 0.02,
    strikes: int = 3,
    window: int = 5,
    out: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Setting, list[ClientDetection]]:
    """Try detectors of malicious clients on an experiment's federation; its first fold, its chosen trunk and protocol.

    Args:
        config: settings; its seeds are judged, its aggregation rule plays no part.
        cache: folder of parsed windows.
        attackers: names of clients; drawn by the split seed unless given.
        share: of the clients that attack, where they are drawn; at least one.
        attack: a key of ``hcqsfl.adversarial.poisoning.ATTACKS``.
        detectors, calibration_seeds, false_alarms, strikes, window: as ``detect_clients``.
        out: folder for ``clients.csv``, ``.json``, ``.svg`` and ``.png``; nothing is written if None.
        progress: told of each run.

    Raises:
        ValueError, OSError: the settings, the recordings or the folder do not allow it; see the message.
    """
    progress = progress or Progress()
    torch.set_num_threads(config.training.threads)
    poison = poisoning.make(attack)
    arm = build.arms(config)[0]
    if not build.averages(arm.protocol):
        raise ValueError(
            f"clients are judged where their updates are averaged, and {arm.protocol} averages nothing; "
            "take splitfed_v1, splitfed_v2 or federated"
        )
    windows = build.windows(config, cache, progress.say)
    folds = build.make_folds(config, windows)[:1]
    build.scan(config, windows, folds)
    prepared = build.prepare(config, windows, folds[0])
    names = tuple(build.group(config, arm, config.evaluation.seeds[0], prepared)[1])
    bad = tuple(attackers) or draw_attackers(names, share, config.split.seed)
    for client in bad:
        lookup("client", dict.fromkeys(names), client)
    if 2 * len(bad) >= len(names):
        raise ValueError(f"{len(bad)} of {len(names)} clients attack; detection needs an honest majority")

    def make_setup(seed: int, rule: Callable[[], Aggregator], wear: Wear, poisoned: Collection[str]) -> Setup:
        own = build.plan(config, arm, seed, prepared, wear, rule)
        made = set_up(arm.protocol, *build.group(config, arm, seed, prepared), replace(own, buffer_size=None))
        infiltrate(made, poison, poisoned, n_classes=len(windows.classes), seed=seed, sfreq=windows.sfreq)
        return made

    def score(setup: Setup, seed: int) -> float | None:
        logits = predict_by_lot(setup.networks(), prepared.x["test"], seed)
        test = prepared.test
        return classification.scores(Predictions(test.y, logits.double().numpy(), test.subject, test.classes))[
            "macro_f1"
        ]

    seeds, rounds = config.evaluation.seeds, config.federation.rounds
    progress.start(rounds * (len(calibration_seeds) + (2 + len(detectors)) * len(seeds)))
    plain: dict[bool, list[float | None]] = {True: [], False: []}
    for attacked in plain:
        for seed in seeds:
            progress.say(f"{'undefended' if attacked else 'honest'}, seed {seed}")
            setup = make_setup(seed, _fedavg, lambda client, transport: transport, bad if attacked else ())
            _run(setup, rounds, progress)
            plain[attacked].append(score(setup, seed))
    found = detect_clients(
        make_setup,
        bad,
        n_rounds=rounds,
        detectors=detectors,
        calibration_seeds=calibration_seeds,
        seeds=seeds,
        false_alarms=false_alarms,
        strikes=strikes,
        window=window,
        score=score,
        progress=progress,
    )
    setting = Setting(
        config.name,
        arm.protocol,
        arm.trunk,
        names,
        bad,
        attack,
        rounds,
        tuple(calibration_seeds),
        seeds,
        false_alarms,
        _mean(plain[True]),
        _mean(plain[False]),
        windows.synthetic,
    )
    if out is not None:
        write(setting, found, out)
    return setting, found


def _fedavg() -> Aggregator:
    return make_aggregator("fedavg")


def write(setting: Setting, found: Sequence[ClientDetection], out: Path) -> None:
    """Write table and figure into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    ends = [f"{name}{end}" for name in RATES for end in ("", "_low", "_high", "_count", "_total")]
    writer.writerow(["detector", "quantum", "features", *ends, "quarantined_attackers", "quarantined_honest", "score"])
    for each in found:
        shares: list[Share] = [getattr(each.rates, name) for name in RATES]
        writer.writerow(
            [each.detector, int(each.quantum), each.features]
            + [number for s in shares for number in (s.value, s.low, s.high, s.count, s.total)]
            + [each.rates.quarantined_attackers, each.rates.quarantined_honest, each.score]
        )
    write_whole(out / "clients.csv", sheet.getvalue().encode())
    told = {"setting": asdict(setting), "found": [asdict(each) for each in found]}
    write_whole(out / "clients.json", (json.dumps(told, indent=2, default=dict) + "\n").encode())
    made = figure(setting, found)
    for ending in ("svg", "png"):
        draw.save(made, out / f"clients.{ending}")


def figure(setting: Setting, found: Sequence[ClientDetection]) -> Figure:
    """Return two panels, detection and false positives over all rounds with Wilson's intervals, one line a detector."""
    made = Figure(figsize=(9.0, 0.4 * len(found) + 1.6), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(1, 2, sharey=True)
    places = np.arange(len(found))[::-1]
    for ax, name, title in (
        (axes[0], "detection", "Attackers' client-rounds found"),
        (axes[1], "false_positives", "Honest client-rounds accused"),
    ):
        for place, each in zip(places, found, strict=True):
            got: Share = getattr(each.rates, name)
            color = PALETTE[1] if each.quantum else PALETTE[0]
            ax.plot([got.value or 0.0], [place], "o", color=color, markersize=5)
            ax.plot([got.low, got.high], [place, place], color=color, linewidth=1.6)
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.6, len(found) - 0.4)
        ax.grid(axis="x", color="#E3E3E3", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].axvline(setting.false_alarms, color="#767676", linestyle="--", linewidth=1)
    axes[0].set_yticks(places, [TITLES.get(each.detector, each.detector.replace("_", " ")) for each in found])
    marks = [
        Line2D([], [], marker="o", markersize=5, color=PALETTE[1], label="quantum"),
        Line2D([], [], marker="o", markersize=5, color=PALETTE[0], label="classical"),
        Line2D([], [], color="#767676", linestyle="--", linewidth=1, label="false alarms asked for"),
    ]
    made.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return stamp(made, setting.synthetic)
