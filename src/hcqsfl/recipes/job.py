"""One training: an arm on a fold with a seed, from its last checkpoint to its predictions."""

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data.folds import Fold
from hcqsfl.evaluation import classification
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.federated import checkpoint
from hcqsfl.models import references
from hcqsfl.models.learner import Network
from hcqsfl.models.protocols import Setup, predict_by_lot
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder, append_row, keep_rows
from hcqsfl.split import Tap, Transport


@dataclass(frozen=True)
class Job:
    """One training: an arm, a seed, a fold."""

    arm: build.Arm
    seed: int
    fold: Fold


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
    if job.arm.reference:
        _refer(job, prepared, folder)
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
                "bytes_up": report.state_bytes_up + sum(meter.bytes_up for meter in setup.meters.values()),
                "bytes_down": report.state_bytes_down + sum(meter.bytes_down for meter in setup.meters.values()),
                "messages": sum(meter.messages for meter in setup.meters.values()),
                "seconds": time.perf_counter() - started,
                "clock": report.clock,
                "staleness": list(report.staleness),
                "events": [asdict(event) for event in report.events],
            }
            for meter in setup.meters.values():
                meter.read()
            append_row(folder / "metrics.jsonl", row)
            kept.offer(row, config.evaluation.select_by)
            kept.save()
            progress.step(name, row)
    _save(job, prepared, predict_by_lot(kept.networks(), prepared.x["test"], job.seed).numpy(), folder)
    return folder


def _refer(job: Job, prepared: build.Prepared, folder: Path) -> None:
    train, test = prepared.x["train"].numpy(), prepared.x["test"].numpy()
    n_classes = len(prepared.test.classes)
    y = prepared.y["train"].numpy()
    _save(job, prepared, references.scores(job.arm.reference, train, y, test, n_classes, job.seed), folder)


def _save(job: Job, prepared: build.Prepared, scores: np.ndarray, folder: Path) -> None:
    unit = "subject" if job.fold.by == "subject" else "row"
    test = prepared.test
    Predictions(test.y, scores, test.subject, test.classes, unit).save(folder / "predictions.npz")


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
