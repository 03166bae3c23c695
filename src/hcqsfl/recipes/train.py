"""Train every arm of an experiment on every fold with every seed, score, compare, and write it all down."""

import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

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
from hcqsfl.models.learner import Network
from hcqsfl.models.protocols import Setup, predict_by_lot
from hcqsfl.recipes.info import versions
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder, append_row, keep_rows
from hcqsfl.split import Tap, Transport


@dataclass(frozen=True)
class Job:
    """One training: an arm, a seed, a fold."""

    arm: build.Arm
    seed: int
    fold: Fold


def train(
    config: Config,
    out: Path,
    *,
    cache: Path,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
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

    progress.start(len(arms) * len(folds) * len(config.evaluation.seeds) * config.federation.rounds)
    runs = {arm.name: _Collected() for arm in arms}
    facts: dict[str, Any] = {"class_counts": {}, "clients": {}}
    for fold in folds:
        prepared = build.prepare(config, windows, fold)
        facts["class_counts"][fold.name] = {part: _counts(windows, y) for part, y in prepared.y.items()}
        dealt = {name: _counts(windows, prepared.y["train"][i]) for name, i in build.clients(config, prepared).items()}
        facts["clients"] |= {name if len(folds) == 1 else f"{fold.name}: {name}": n for name, n in dealt.items()}
        for seed in config.evaluation.seeds:
            for arm in arms:
                done = run_job(config, Job(arm, seed, fold), prepared, folder, progress)
                runs[arm.name].add(seed, fold.name, done, prepared)

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
        data=_describe(config, windows) | facts,
        leaks=[{"kind": x.kind, "what": x.what, "allowed_by": x.allowed_by or None} for x in leaks],
        compare=[(arms[0].name, arm.name) for arm in arms[1:]],
        n_resamples=config.evaluation.n_resamples,
        notes=_notes(config, folds),
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

    def add(self, seed: int, fold: str, job: Path, prepared: build.Prepared) -> None:
        """Read what one training left in its folder."""
        predictions = Predictions.load(job / "predictions.npz")
        self.predictions[seed, fold] = predictions
        self.majority[seed, fold] = classification.majority(prepared.y["train"].numpy(), predictions)
        _, facts = checkpoint.load(job / "checkpoint.safetensors")
        self.chosen_rounds[seed, fold] = facts["chosen"]
        self.n_parameters = facts["n_parameters"]
        self.metrics.append(job / "metrics.jsonl")
        self.rows += read_rows(job / "metrics.jsonl")


def run_job(config: Config, job: Job, prepared: build.Prepared, run: RunFolder, progress: Progress) -> Path:
    """Train one arm on one fold with one seed, going on where an interrupted run stopped; return its folder.

    After each round the validation windows choose whether its networks are kept. The test windows are looked at once,
    at the very end.
    """
    folder = run.job(job.arm.name, job.seed, job.fold.name)
    name = f"{job.arm.name} · {job.fold.name} · seed {job.seed}"
    rounds = config.federation.rounds
    if (folder / "predictions.npz").exists():
        for _ in range(rounds):
            progress.step(name, None)
        return folder
    with ExitStack() as stack:
        tap = stack.enter_context((folder / "tap.bin").open("ab")) if config.recording.tap else None

        def wear(client: str, transport: Transport) -> Transport:
            return transport if tap is None else Tap(transport, tap)

        setup = build.setup(config, job.arm, job.seed, prepared, wear)
        kept = _Kept(folder / "checkpoint.safetensors", setup, _n_parameters(setup.network), tap)
        kept.load()
        keep_rows(folder / "metrics.jsonl", setup.federation.round)
        for _ in range(setup.federation.round):
            progress.step(name, None)
        while setup.federation.round < rounds:
            started = time.perf_counter()
            report = setup.federation.run_round()
            row = {
                "arm": job.arm.name,
                "seed": job.seed,
                "fold": job.fold.name,
                "round": report.number,
                "train_loss": report.loss,
                "validation": _validate(setup, prepared, job.seed),
                "bytes_up": report.state_bytes + sum(meter.bytes_up for meter in setup.meters.values()),
                "bytes_down": report.state_bytes + sum(meter.bytes_down for meter in setup.meters.values()),
                "messages": sum(meter.messages for meter in setup.meters.values()),
                "seconds": time.perf_counter() - started,
                "events": [],
            }
            for meter in setup.meters.values():
                meter.read()
            append_row(folder / "metrics.jsonl", row)
            kept.offer(row, config.evaluation.select_by)
            kept.save()
            progress.step(name, row)
    logits = predict_by_lot(kept.networks(), prepared.x["test"], job.seed)
    unit = "subject" if job.fold.by == "subject" else "row"
    test = prepared.test
    Predictions(test.y, logits.numpy(), test.subject, test.classes, unit).save(folder / "predictions.npz")
    return folder


class _Kept:
    """The checkpoint of one training: where it stands, and the best networks so far."""

    def __init__(self, path: Path, setup: Setup, n_parameters: dict[str, int], tap: BinaryIO | None) -> None:
        self.path, self.setup, self.n_parameters, self.tap = path, setup, n_parameters, tap
        self.best: list[dict[str, Tensor]] = []
        self.score: float | None = None
        self.chosen = 0

    def offer(self, row: dict[str, Any], metric: str) -> None:
        """Keep a round's networks if they are better than those kept; the last ones where nothing validates."""
        score = None if row["validation"] is None else row["validation"][metric]
        if score is None or self.score is None or score > self.score:
            self.score, self.chosen = score, row["round"]
            self.best = [dict(network.state_dict()) for network in self.setup.networks()]

    def save(self) -> None:
        best = {f"best/{i}/{name}": t for i, state in enumerate(self.best) for name, t in state.items()}
        facts = {"score": self.score, "chosen": self.chosen, "n_parameters": self.n_parameters}
        if self.tap is not None:
            self.tap.flush()
            facts["tap_bytes"] = self.tap.tell()
        checkpoint.save(self.path, self.setup.federation.tensors() | best, facts)

    def load(self) -> None:
        if not self.path.exists():
            if self.tap is not None:
                self.tap.truncate(0)
            return
        tensors, facts = checkpoint.load(self.path)
        if self.tap is not None:  # what an interrupted round sent will be sent again
            self.tap.truncate(facts["tap_bytes"])
        self.setup.federation.load_tensors(tensors)
        self.score, self.chosen = facts["score"], facts["chosen"]
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("best/"):
                _, i, key = name.split("/", 2)
                states.setdefault(int(i), {})[key] = tensor
        self.best = [states[i] for i in sorted(states)]

    def networks(self) -> list[Network]:
        networks = self.setup.networks()
        for network, state in zip(networks, self.best, strict=True):
            network.load_state_dict(state)
        return networks


def _validate(setup: Setup, prepared: build.Prepared, seed: int) -> dict[str, float] | None:
    y = prepared.y["validation"]
    if not len(y):
        return None
    logits = predict_by_lot(setup.networks(), prepared.x["validation"], seed)
    subject = np.full(len(y), "validation")
    scores = classification.scores(Predictions(y.numpy(), logits.numpy(), subject, prepared.test.classes))
    loss = torch.nn.functional.cross_entropy(logits, y, weight=prepared.class_weights)
    return {"loss": loss.item()} | {
        metric: value
        for metric in ("macro_f1", "accuracy", "balanced_accuracy")
        if (value := scores[metric]) is not None
    }


def _n_parameters(network: Network) -> dict[str, int]:
    return {
        name: sum(p.numel() for p in module.parameters() if p.requires_grad)
        for name, module in (("front", network.front), ("trunk", network.trunk), ("head", network.head))
    }


def _counts(windows: Windows, y: Tensor) -> list[int]:
    return torch.bincount(y, minlength=len(windows.classes)).tolist()


def _describe(config: Config, windows: Windows) -> dict[str, Any]:
    module = dataset(config.data.name)
    return {
        "title": module.TITLE,
        "licence": module.LICENCE,
        "n_windows": len(windows),
        "n_windows_dropped": windows.dropped,
        "n_subjects": len(np.unique(windows.subject)),
        "channels": list(windows.channels),
        "window_seconds": windows.n_times / windows.sfreq,
    }


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
