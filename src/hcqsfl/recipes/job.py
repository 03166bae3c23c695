"""One training, from its last checkpoint to its predictions."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
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
from hcqsfl.federated.rounds import Round
from hcqsfl.federated.sealed import NOT_HERE
from hcqsfl.models import references
from hcqsfl.models.learner import Network
from hcqsfl.models.predict import predict_by_lot
from hcqsfl.models.protocols import Setup
from hcqsfl.privacy.record import TAP, save_round
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder, append_row, keep_rows
from hcqsfl.split import Tap, Transport

Wear = Callable[[str, Transport], Transport]
MakeSetup = Callable[[Config, "Job", build.Prepared, Wear], Setup]
"""Makes the federation of one training, given what the clients' transports are to wear."""


def simulated(config: Config, job: "Job", prepared: build.Prepared, wear: Wear) -> Setup:
    """Return a federation whose clients and servers are all in this process.

    Raises:
        ValueError: the settings contradict one another, or ask for what needs several processes.
    """
    if config.federation.secure_aggregation == "secaggplus":
        raise ValueError(NOT_HERE)
    return build.setup(config, job.arm, job.seed, prepared, wear)


@dataclass(frozen=True)
class Job:
    """One training: an arm, a seed, a fold."""

    arm: build.Arm
    seed: int
    fold: Fold


@dataclass(frozen=True, eq=False)
class Member:
    """A data set's share of a training.

    Attributes:
        arm, fold: names for its rows.
        prepared: its windows.
        folder: where its rows and predictions go.
        clients: the names of its clients in the federation; ``None`` where all are its own.
        scored: whether its test windows are to be predicted.
    """

    arm: str
    fold: str
    prepared: build.Prepared
    folder: Path
    clients: frozenset[str] | None = None
    scored: bool = True

    def owns(self, client: str) -> bool:
        """Return whether a client, or one of its parties (``client/party``), is this data set's."""
        return self.clients is None or client.partition("/")[0] in self.clients


def run_job(
    config: Config,
    job: Job,
    prepared: build.Prepared,
    run: RunFolder,
    progress: Progress,
    make_setup: MakeSetup = simulated,
) -> Path:
    """Train one arm on one fold with one seed, going on where an interrupted run stopped; return its folder."""
    folder = run.job(job.arm.name, job.seed, job.fold.name)
    member = Member(job.arm.name, job.fold.name, prepared, folder)
    name = f"{job.arm.name} · {job.fold.name} · seed {job.seed}"
    if job.arm.reference:
        if not (folder / "predictions.npz").exists():
            refer(member, job.arm.reference, job.seed)
        for _ in range(config.federation.rounds):
            progress.step(name, None)
        return folder
    run_training(
        config,
        job.seed,
        {"": member},
        lambda wear: make_setup(config, job, prepared, wear),
        name,
        progress,
    )
    return folder


def run_training(
    config: Config,
    seed: int,
    members: Mapping[str, Member],
    set_up: Callable[[Wear], Setup],
    name: str,
    progress: Progress,
) -> None:
    """Run one federation to its end, going on where an interrupted run stopped.

    After each round the validation windows of all members choose whether its networks are kept. The test windows are
    looked at once, at the very end.

    Args:
        config: rounds, and what else holds for all members.
        seed: root seed.
        members: group of clients to its data set.
        set_up: makes the federation, given what the clients' transports are to wear.
        name: for the progress bar.
        progress: what to tell of it.
    """
    rounds = config.federation.rounds
    scored = [member for member in members.values() if member.scored]
    home = next(iter(members.values())).folder
    if all((member.folder / "predictions.npz").exists() for member in scored):
        for _ in range(rounds):
            progress.step(name, None)
        return
    with ExitStack() as stack:
        tap = stack.enter_context((home / TAP).open("ab")) if config.recording.tap else None

        def wear(client: str, transport: Transport) -> Transport:
            return transport if tap is None else Tap(transport, tap)

        setup = set_up(wear)
        kept = _Kept(home / "checkpoint.safetensors", setup, tap)
        kept.load()
        if tap is not None and not setup.federation.round:
            save_round(home, setup.federation, {})
        for member in members.values():
            keep_rows(member.folder / "metrics.jsonl", setup.federation.round)
        for _ in range(setup.federation.round):
            progress.step(name, None)
        while setup.federation.round < rounds:
            started = time.perf_counter()
            report = setup.federation.run_round()
            report = replace(report, events=(*report.events, *setup.judged(report.number)))
            validations = {group: _validate(setup, group, member.prepared, seed) for group, member in members.items()}
            seconds = time.perf_counter() - started
            rows = {
                group: _row(member, seed, report, setup, validations[group], seconds)
                for group, member in members.items()
            }
            for meter in setup.meters.values():
                meter.read()
            if tap is not None:
                save_round(home, setup.federation, report.updates)
            for group, member in members.items():
                append_row(member.folder / "metrics.jsonl", rows[group])
            kept.offer(report.number, [v[config.evaluation.select_by] for v in validations.values() if v is not None])
            if report.number % config.recording.checkpoint_rounds == 0 or report.number == rounds:
                kept.save()
            progress.step(name, next(iter(rows.values())))
    for group, member in members.items():
        if member.scored:
            logits = predict_by_lot(kept.networks(group), member.prepared.x["test"], seed)
            save_predictions(member, logits.numpy())


def refer(member: Member, name: str, seed: int) -> None:
    """Train a reference model on a member's training windows and write its predictions."""
    prepared = member.prepared
    train, test = prepared.x["train"].numpy(), prepared.x["test"].numpy()
    n_classes = len(prepared.test.classes)
    save_predictions(member, references.scores(name, train, prepared.y["train"].numpy(), test, n_classes, seed))


def save_predictions(member: Member, scores: np.ndarray) -> None:
    """Write a member's predictions of its test windows."""
    test = member.prepared.test
    unit = "subject" if member.prepared.fold.by == "subject" else "row"
    Predictions(test.y, scores, test.subject, test.classes, unit).save(member.folder / "predictions.npz")


def _row(
    member: Member, seed: int, report: Round, setup: Setup, validation: dict[str, float] | None, seconds: float
) -> dict[str, Any]:
    meters = [meter for client, meter in setup.meters.items() if member.owns(client)]
    trained = {client: result for client, result in report.trained.items() if member.owns(client)}
    total = sum(result.num_examples for result in trained.values())
    loss = sum(result.loss * result.num_examples for result in trained.values()) / total if total else None
    return {
        "arm": member.arm,
        "seed": seed,
        "fold": member.fold,
        "round": report.number,
        "train_loss": loss,
        "validation": validation,
        "bytes_up": sum(n for c, n in report.sent.items() if member.owns(c)) + sum(m.bytes_up for m in meters),
        "bytes_down": sum(n for c, n in report.received.items() if member.owns(c)) + sum(m.bytes_down for m in meters),
        "bytes_cut": sum(meter.bytes_up + meter.bytes_down for meter in meters),
        "messages": sum(meter.messages for meter in meters),
        "seconds": seconds,
        "clock": report.clock,
        "staleness": list(report.staleness),
        "events": [asdict(event) for event in report.events if not event.client or member.owns(event.client)],
    }


class _Kept:
    """The checkpoint of one training: where it stands, and the best networks so far."""

    def __init__(self, path: Path, setup: Setup, tap: BinaryIO | None) -> None:
        self.path, self.setup, self.tap = path, setup, tap
        self.best: dict[str, list[dict[str, Tensor]]] = {}
        self.score: float | None = None
        self.chosen = 0

    def offer(self, number: int, scores: list[float]) -> None:
        """Keep a round's networks if they are better than those kept; the last ones where nothing validates."""
        score = sum(scores) / len(scores) if scores else None
        if score is None or self.score is None or score > self.score:
            self.score, self.chosen = score, number
            self.best = {
                group: [dict(network.state_dict()) for network in self.setup.networks(group)]
                for group in self.setup.joined
            }

    def save(self) -> None:
        best = {
            f"best/{group}/{i}/{name}": tensor
            for group, states in self.best.items()
            for i, state in enumerate(states)
            for name, tensor in state.items()
        }
        n_parameters = {group: _n_parameters(network) for group, network in self.setup.joined.items()}
        facts = {"score": self.score, "chosen": self.chosen, "n_parameters": n_parameters}
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
        states: dict[str, dict[int, dict[str, Tensor]]] = {}
        for name, tensor in tensors.items():
            if name.startswith("best/"):
                _, group, i, key = name.split("/", 3)
                states.setdefault(group, {}).setdefault(int(i), {})[key] = tensor
        self.best = {group: [each[i] for i in sorted(each)] for group, each in states.items()}

    def networks(self, group: str) -> list[Network]:
        networks = self.setup.networks(group)
        for network, state in zip(networks, self.best[group], strict=True):
            network.load_state_dict(state)
        return networks


def _validate(setup: Setup, group: str, prepared: build.Prepared, seed: int) -> dict[str, float] | None:
    y = prepared.y["validation"]
    if not len(y):
        return None
    logits = predict_by_lot(setup.networks(group), prepared.x["validation"], seed)
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
