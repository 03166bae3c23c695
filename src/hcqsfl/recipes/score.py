"""Score what trainings left, compare the arms, and write it all down."""

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data import dataset
from hcqsfl.data.folds import Fold
from hcqsfl.data.leakage import Leak
from hcqsfl.data.windows import Windows
from hcqsfl.evaluation import classification, result
from hcqsfl.evaluation.cost import read_rows
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.evaluation.report import write_report
from hcqsfl.evaluation.result import ArmRuns, Result
from hcqsfl.federated import checkpoint
from hcqsfl.recipes.info import versions
from hcqsfl.recipes.run_folder import RunFolder


@dataclass(frozen=True)
class Trained:
    """Where one training left what it knows.

    Attributes:
        arm, seed, fold: of the training.
        folder: its rows and predictions.
        checkpoint: its checkpoint; ``None`` for a reference model.
        group: under which name the checkpoint knows this data set.
    """

    arm: build.Arm
    seed: int
    fold: Fold
    folder: Path
    checkpoint: Path | None
    group: str = ""


def score(
    config: Config,
    arms: Sequence[build.Arm],
    trained: Sequence[Trained],
    windows: Windows,
    leaks: Sequence[Leak],
    run: RunFolder,
    *,
    command: str,
    compare: Sequence[tuple[str, str]],
    notes: Sequence[str] = (),
    page: bool = True,
) -> Result:
    """Score all trainings of a run, and write its rows, result and report.

    Args:
        config: settings.
        arms: in the order of the tables.
        trained: every training of every arm.
        windows: all windows.
        leaks: that a flag allowed.
        run: the run's folder.
        command: what made this run.
        compare: pairs of arms.
        notes: further sentences.
        page: whether to write the report.
    """
    runs = {arm.name: _Collected() for arm in arms}
    for each in trained:
        runs[each.arm.name].add(each, windows)
    rows = [row for arm in arms for row in runs[arm.name].rows]
    lines = "".join(path.read_text(encoding="utf-8") for collected in runs.values() for path in collected.metrics)
    write_whole(run.path / "metrics.jsonl", lines.encode())
    folds = list({each.fold.name: each.fold for each in trained}.values())
    summary = result.summarise(
        config.name,
        [runs[arm.name].as_arm(arm) for arm in arms],
        seed=config.evaluation.seeds[0],
        synthetic=windows.synthetic,
        config=config.model_dump(mode="json", exclude_none=True),
        versions=versions() | {"python": platform.python_version()},
        command=command,
        data=_describe(config, windows, folds),
        leaks=[{"kind": x.kind, "what": x.what, "allowed_by": x.allowed_by or None} for x in leaks],
        compare=compare,
        n_resamples=config.evaluation.n_resamples,
        notes=[*_notes(config, folds), *_events(rows), *notes],
    )
    summary.save(run.path / "result.json")
    if page:
        write_report([run.path], run.path / "report.html")
    return summary


class _Collected:
    """What the trainings of one arm left."""

    def __init__(self) -> None:
        self.n_parameters: dict[str, int] = {}
        self.predictions: dict[tuple[int, str], Predictions] = {}
        self.majority: dict[tuple[int, str], Predictions] = {}
        self.chosen_rounds: dict[tuple[int, str], int] = {}
        self.rows: list[Any] = []
        self.metrics: list[Path] = []

    def add(self, each: Trained, windows: Windows) -> None:
        """Read what one training left."""
        key = (each.seed, each.fold.name)
        predictions = Predictions.load(each.folder / "predictions.npz")
        self.predictions[key] = predictions
        self.majority[key] = classification.majority(windows.y[each.fold.train], predictions)
        if each.checkpoint is None:
            return
        _, facts = checkpoint.load(each.checkpoint)
        self.chosen_rounds[key] = facts["chosen"]
        self.n_parameters = facts["n_parameters"][each.group]
        self.metrics.append(each.folder / "metrics.jsonl")
        self.rows += read_rows(each.folder / "metrics.jsonl")

    def as_arm(self, arm: build.Arm) -> ArmRuns:
        """Return it all as the evaluation takes it."""
        return ArmRuns(
            arm.name,
            arm.trunk,
            arm.protocol,
            self.n_parameters,
            self.predictions,
            self.majority,
            self.rows,
            self.chosen_rounds,
        )


def _counts(windows: Windows, y: np.ndarray) -> list[int]:
    return [int(n) for n in np.bincount(y, minlength=len(windows.classes))]


def _describe(config: Config, windows: Windows, folds: Sequence[Fold]) -> dict[str, Any]:
    module = dataset(config.data.name)
    class_counts: dict[str, dict[str, list[int]]] = {}
    clients: dict[str, list[int]] = {}
    for fold in folds:
        sides = {"train": fold.train, "validation": fold.validation, "test": fold.test}
        class_counts[fold.name] = {side: _counts(windows, windows.y[index]) for side, index in sides.items()}
        for client, index in build.clients(config, windows.take(fold.train)).items():
            name = client if len(folds) == 1 else f"{fold.name}: {client}"
            clients[name] = _counts(windows, windows.y[fold.train][index])
    return {
        "class_counts": class_counts,
        "clients": clients,
        "title": module.TITLE,
        "licence": module.LICENCE,
        "n_windows": len(windows),
        "n_windows_dropped": windows.dropped,
        "n_subjects": len(np.unique(windows.subject)),
        "channels": list(windows.channels),
        "window_seconds": windows.n_times / windows.sfreq,
    }


def _events(rows: Sequence[Any]) -> list[str]:
    """Say how often something went otherwise than planned, arm by arm."""
    events = [(row["arm"], event["kind"], event["what"]) for row in rows for event in row["events"]]
    counts = Counter((arm, kind) for arm, kind, _ in events)
    first = {(arm, kind): what for arm, kind, what in reversed(events)}
    return [
        f"{arm}: {kind.replace('_', ' ')} {n} times; first: {first[arm, kind]}." for (arm, kind), n in counts.items()
    ]


def _notes(config: Config, folds: Sequence[Fold]) -> list[str]:
    notes = []
    if config.split.only:
        notes.append(f"Only {len(folds)} of the folds were run: {', '.join(fold.name for fold in folds)}.")
    if any(not len(fold.validation) for fold in folds):
        rounds = config.federation.rounds
        notes.append(f"No window was set aside for validation: the network of the last round, {rounds}, was tested.")
    if config.evaluation.without_control:
        notes.append("The hybrid trunk was run without its classical control (evaluation.without_control).")
    if config.trunk.kind == "frozen":
        notes.append("The trunk's circuit was never trained.")
    return notes
