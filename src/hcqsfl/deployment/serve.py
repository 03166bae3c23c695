"""The server's process: the recipe of a simulation, with its clients elsewhere."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hcqsfl import build
from hcqsfl.config import Config, Deployment
from hcqsfl.deployment import certificates, core_log, handshake, share, turn
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.limits import Limits
from hcqsfl.deployment.metrics import Metrics
from hcqsfl.deployment.plane import Plane, Stopping
from hcqsfl.deployment.remote_client import MakeSealing, Rounds, deploy
from hcqsfl.evaluation.result import Result
from hcqsfl.federated.sealed import NOT_HERE
from hcqsfl.models.protocols import Setup
from hcqsfl.recipes.job import Job, Wear
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.train import train

SLACK = 2**16
"""Bytes of a message or a record beside its numbers."""


def limits_of(policy: Deployment) -> Limits:
    """Return the times that the settings ask for."""
    return Limits(
        step_seconds=policy.step_seconds,
        connect_seconds=policy.connect_seconds,
        keepalive_seconds=policy.keepalive_seconds,
        beat_seconds=min(5.0, policy.step_seconds / 4),
    )


@torch.no_grad()
def sized(limits: Limits, setup: Setup, batch_size: int) -> Limits:
    """Return limits that are as large as a federation's messages and states need, and little larger."""
    step, states = 0, 0
    for client in setup.federation.clients:
        network = setup.joined[next(iter(setup.joined))]
        widths = [network.front(client.x[:1]).numel(), network.trunk(network.front(client.x[:1])).numel()]
        front = getattr(client.learner, "front", None)
        if front is not None and client.wire is not None:
            widths.append(front(client.x[:1]).numel())
        widths.append(network.head(network.trunk(network.front(client.x[:1]))).numel())
        # with Poisson sampling any number of windows may be drawn
        step = max(step, (max(batch_size, len(client.y)) if client.poisson else batch_size) * max(widths))
        part = turn.client_part(setup.federation, client.name)
        states = max(states, sum(t.numel() * t.element_size() for t in part.modules[client.name].state_dict().values()))
        break  # all clients have the same network
    # eight bytes a number: a codec may spread values and their places; three states: a lasting Adam has two moments
    return replace(
        limits,
        step_bytes=max(limits.step_bytes, 8 * step + SLACK),
        turn_bytes=max(limits.turn_bytes, 3 * states + 16 * step + 2**20),
    )


@contextmanager
def serving(
    config: Config, cache: Path, journal: Journal, progress: Progress | None = None
) -> Iterator[tuple[Plane, Address]]:
    """Listen for an experiment's clients while the block runs, and tell Prometheus.

    Raises:
        ValueError, OSError: the settings, the certificates or the ports do not allow it; see the message.
    """
    progress = progress or Progress()
    policy = config.deployment
    identity = None if policy.insecure else certificates.load(policy.certificates, certificates.SERVER)
    listen = Address.parse(policy.listen)
    torch.set_num_threads(config.training.threads)
    windows = build.windows(config, cache, progress.say)
    names = share.client_names(config, windows)
    arms = [arm for arm in build.arms(config) if not arm.reference]
    prepared = build.prepare(config, windows, build.make_folds(config, windows)[0])
    limits = limits_of(policy)
    for arm in arms:
        limits = sized(
            limits, build.setup(config, arm, config.evaluation.seeds[0], prepared), config.federation.batch_size
        )
    facts = handshake.facts(config, windows.classes, windows.channels, windows.n_times)
    metrics = Metrics()
    plane = Plane(names, facts, limits, journal, metrics)
    over = False
    with core_log.listening(plane.handshake_failed):
        try:
            port = metrics.serve(policy.metrics_port)
            journal("metrics", port=port)
            address = plane.start(listen, identity)
            yield plane, address
            over = True
        finally:
            plane.stop(over=over)
            metrics.close()


def serve(
    config: Config,
    out: Path,
    *,
    cache: Path,
    journal: Journal,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> Result | None:
    """Run an experiment with clients that are processes elsewhere.

    Args:
        config, out, cache, resume, overwrite, command, progress: as in ``recipes.train.train``.
        journal: where events go.

    Returns:
        What came out; ``None`` where the process was asked to stop. A run that was stopped or killed goes on with
        ``resume`` from its last round, to the same bytes.

    Raises:
        ValueError, OSError: the settings, the recordings, the certificates or the ports do not allow it.
    """
    refuse_sealed(config)
    given = progress or Progress()
    with serving(config, cache, journal, given) as (plane, _), stopping_at_sigterm(plane.interrupt):
        try:
            return orchestrate(
                config,
                out,
                plane,
                plane,
                cache=cache,
                resume=resume,
                overwrite=overwrite,
                command=command,
                progress=given,
            )
        except Stopping:
            journal("asked to stop", text="the same command with --resume goes on from the last round")
            plane.stop()
            return None


def refuse_sealed(config: Config) -> None:
    """Refuse sealed sums, which our own streams do not carry.

    Raises:
        ValueError: the settings ask for them.
    """
    if config.federation.secure_aggregation == "secaggplus":
        raise ValueError(NOT_HERE)


def orchestrate(
    config: Config,
    out: Path,
    plane: Plane,
    rounds: Rounds,
    *,
    progress: Progress,
    make_sealing: MakeSealing | None = None,
    **options: Any,
) -> Result:
    """Run the recipe of a simulation over a plane that is listening.

    Args:
        config: settings.
        out: folder of the run.
        plane: lets clients' steps through.
        rounds: hands clients their tasks.
        progress: what to tell of it.
        make_sealing: makes what carries sealed sums, where something can.
        options: as ``recipes.train.train``.
    """

    def make_setup(config: Config, job: Job, prepared: build.Prepared, wear: Wear) -> Setup:
        setup = build.setup(config, job.arm, job.seed, prepared, wear)
        where = (job.arm.name, job.seed, job.fold.name)
        return deploy(
            setup, where, config.deployment, plane, rounds, one_lane=config.recording.tap, make_sealing=make_sealing
        )

    # where it runs may change from one start to the next, and is no part of the experiment
    usual = Deployment()
    places = {name: getattr(usual, name) for name in ("listen", "server", "certificates", "metrics_port")}
    kept = config.model_copy(update={"deployment": config.deployment.model_copy(update=places)})
    return train(kept, out, make_setup=make_setup, progress=observed(progress, plane), **options)


def observed(progress: Progress, plane: Plane) -> Progress:
    """Return a progress that also writes each round to the journal and the metrics."""

    def start(total: int) -> None:
        plane.journal("started", rounds=total)
        progress.start(total)

    def step(name: str, row: dict[str, Any] | None) -> None:
        if row is not None:
            plane.metrics.rounds.inc()
            plane.metrics.round.set(row["round"])
            if row["train_loss"] is not None:
                plane.metrics.loss.set(row["train_loss"])
            facts = {k: row[k] for k in ("round", "train_loss", "bytes_up", "bytes_down", "messages", "seconds")}
            events = [event["what"] for event in row["events"]]
            plane.journal("round", training=name, clients=len(plane.present()), events=events, **facts)
        else:
            plane.journal("done before", training=name)
        progress.step(name, row)

    return Progress(progress.say, start, step)


@contextmanager
def stopping_at_sigterm(interrupt: Any) -> Iterator[None]:
    """Call ``interrupt`` at SIGTERM and SIGINT inside the block; only the main thread can."""

    def handle(number: int, frame: object) -> None:
        interrupt()

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not in the main thread: somebody else looks after signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_until(done: Any, seconds: float, interval: float = 0.05) -> bool:
    """Wait until ``done()`` is true; return whether it became so in time."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            return False
        time.sleep(interval)
    return True
