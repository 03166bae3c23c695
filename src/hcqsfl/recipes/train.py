"""Train every arm of an experiment on every fold with every seed, score, compare, and write it all down."""

import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data import dataset
from hcqsfl.data.folds import Fold
from hcqsfl.data.windows import Windows
from hcqsfl.evaluation import classification, result
from hcqsfl.evaluation.cost import read_rows
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.evaluation.report import write_report
from hcqsfl.evaluation.result import ArmRuns, Result
from hcqsfl.federated import checkpoint
from hcqsfl.recipes.info import versions
from hcqsfl.recipes.job import Job
from hcqsfl.recipes.processes import run_jobs
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder


def train(
    config: Config,
    out: Path,
    *,
    cache: Path,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    n_processes: int = 1,
    progress: Progress | None = None,
) -> Result:
    """Run an experiment.

    Args:
        config: its settings.
        out: folder of the run.
        cache: folder of parsed windows.
        resume: go on with a run that was interrupted; what comes out is the same, bit for bit.
        overwrite: replace the run in ``out``.
        command: what made this run, for the report.
        n_processes: trainings that run at a time; what comes out does not depend on it.
        progress: what to tell of it.

    Raises:
        ValueError, OSError: the settings, the recordings or the folder do not allow it; see the message.
        LeakError: the scan found a leak that no flag allows.
    """
    progress = progress or Progress()
    torch.set_num_threads(config.training.threads)
    arms = build.arms(config)
    build.circuit(config)
    windows = build.windows(config, cache, progress.say)
    folds = build.make_folds(config, windows)
    progress.say("scanning for leaks")
    leaks = build.scan(config, windows, folds)
    folder = RunFolder.open(out, config, resume=resume, overwrite=overwrite)

    todo = [Job(arm, seed, fold) for fold in folds for seed in config.evaluation.seeds for arm in arms]
    progress.start(len(todo) * config.federation.rounds)
    run_jobs(config, todo, windows, folder, cache, progress, n_processes)

    runs = {arm.name: _Collected() for arm in arms}
    for job in todo:
        runs[job.arm.name].add(job, folder, windows)
    rows = [row for arm in arms for row in runs[arm.name].rows]
    lines = "".join(path.read_text(encoding="utf-8") for collected in runs.values() for path in collected.metrics)
    write_whole(folder.path / "metrics.jsonl", lines.encode())
    progress.say(f"scoring {len(rows)} rounds")
    summary = result.summarise(
        config.name,
        [
            ArmRuns(
                arm.name,
                arm.trunk,
                arm.protocol,
                runs[arm.name].n_parameters,
                runs[arm.name].predictions,
                runs[arm.name].majority,
                runs[arm.name].rows,
                runs[arm.name].chosen_rounds,
            )
            for arm in arms
        ],
        seed=config.evaluation.seeds[0],
        synthetic=windows.synthetic,
        config=config.model_dump(mode="json", exclude_none=True),
        versions=versions() | {"python": platform.python_version()},
        command=command,
        data=_describe(config, windows, folds),
        leaks=[{"kind": x.kind, "what": x.what, "allowed_by": x.allowed_by or None} for x in leaks],
        compare=[(arms[0].name, arm.name) for arm in arms[1:]],
        n_resamples=config.evaluation.n_resamples,
        notes=[*_notes(config, folds), *_events(rows)],
    )
    summary.save(folder.path / "result.json")
    progress.say("drawing the report")
    write_report([folder.path], folder.path / "report.html")
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

    def add(self, job: Job, run: RunFolder, windows: Windows) -> None:
        """Read what one training left in its folder."""
        key, folder = (job.seed, job.fold.name), run.job(job.arm.name, job.seed, job.fold.name)
        predictions = Predictions.load(folder / "predictions.npz")
        self.predictions[key] = predictions
        self.majority[key] = classification.majority(windows.y[job.fold.train], predictions)
        if job.arm.reference:
            return
        _, facts = checkpoint.load(folder / "checkpoint.safetensors")
        self.chosen_rounds[key] = facts["chosen"]
        self.n_parameters = facts["n_parameters"]
        self.metrics.append(folder / "metrics.jsonl")
        self.rows += read_rows(folder / "metrics.jsonl")


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
