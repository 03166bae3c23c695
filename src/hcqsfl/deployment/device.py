"""A client's process, from its first try to reach the server to the server's goodbye."""

import signal
import time
from contextlib import suppress
from pathlib import Path

from hcqsfl.config import Config
from hcqsfl.deployment import certificates, handshake, share
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.connection import Connection, LostError, RefusedError, Steps, Stream
from hcqsfl.deployment.frame import FrameError, Kind
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.limits import TURNS, Limits
from hcqsfl.deployment.plane import TICKET, Stopping
from hcqsfl.deployment.serve import limits_of, sized
from hcqsfl.deployment.share import Shares
from hcqsfl.deployment.worker import Worker, client_setup


class Device:
    """One client: holds its share, speaks to the server, trains when it is told to.

    Args:
        config: settings.
        client: its name.
        shares: its windows.
        address: where the server is.
        journal: where events go.

    Raises:
        ValueError, OSError: the settings or the certificates do not allow it.
    """

    def __init__(self, config: Config, client: str, shares: Shares, address: Address, journal: Journal) -> None:
        policy = config.deployment
        identity = None if policy.insecure else certificates.load(policy.certificates, client)
        self.journal = journal
        first = shares.first
        self.worker = Worker(config, client, shares, self._connect)
        self.limits = self._limits(config, shares)
        like = first.like
        greeting = handshake.to_bytes(handshake.facts(config, like.classes, like.channels, like.n_times))
        self.connection = Connection(address, identity, client, greeting, self.limits, journal)
        self._steps: Steps | None = None

    def _limits(self, config: Config, shares: Shares) -> Limits:
        limits = limits_of(config.deployment)
        for arm in self.worker.arms.values():
            if arm.protocol != "centralised":
                setup = client_setup(config, arm, config.evaluation.seeds[0], shares.first)
                limits = sized(limits, setup, config.federation.batch_size)
        return limits

    def run(self) -> None:
        """Do what the server hands out until it says goodbye.

        Raises:
            ConnectionError: the server cannot be reached, or not again.
            RefusedError: it will not have this client.
        """
        try:
            while True:
                turns = self.connection.open(TURNS)
                self.journal("connected", address=str(self.connection.address))
                try:
                    self._obey(turns)
                    self.journal("over")
                    return
                except LostError as error:
                    self.journal("disconnected", "warning", text=str(error))
                    time.sleep(0.1)
                finally:
                    turns.close()
                    self._hang_up()
        finally:
            self.connection.close()

    def steps(self) -> Steps:
        """Return the stream of steps, opened if it is not; for use outside a turn, in Flower's messages."""
        if self._steps is None:
            self._steps = self.connection.steps()
        return self._steps

    def work(self, task: bytes) -> bytes:
        """Do a task that came by another way than ``run``; see ``Worker.run``."""
        try:
            return self.worker.run(task)
        except (ConnectionError, FrameError):
            self._hang_up()
            raise

    def rest(self) -> None:
        """End the stream of steps until the next turn needs one."""
        self._hang_up()

    def _connect(self) -> Steps:
        return self.steps()

    def _obey(self, turns: Stream) -> None:
        patience = max(self.limits.step_seconds, 4 * self.limits.beat_seconds)
        while True:
            frame = turns.receive(patience)
            if frame.kind == Kind.BYE:
                return
            if frame.kind != Kind.TASK:
                continue
            ticket, task = frame.payload[: TICKET.size], frame.payload[TICKET.size :]
            try:
                turns.send(Kind.RESULT, ticket + self.work(task))
            except (RuntimeError, ValueError, OSError, ArithmeticError) as error:
                lost = isinstance(error, ConnectionError | FrameError)
                self.journal("failed", "warning", lost=lost, text=str(error))
                if isinstance(error, RefusedError):
                    raise
                turns.send(Kind.FAILED, ticket + handshake.to_bytes({"lost": lost, "text": str(error)[:500]}))

    def _hang_up(self) -> None:
        if self._steps is not None:
            self._steps.stream.close()
            self._steps = None


def shares_for(config: Config, client: str, cache: Path) -> Shares:
    """Return a client's share: as dealt, where ``data.root`` is such a folder, else out of the recordings there.

    Raises:
        ValueError, OSError: there is none.
    """
    root = config.data.path
    return share.from_folder(root, client) if share.is_dealt(root) else share.from_recordings(config, client, cache)


def run(config: Config, client: str, address: Address, cache: Path, journal: Journal) -> bool:
    """Run a client's process; return whether the federation was seen to its end.

    Raises:
        ValueError, OSError: see ``Device``.
    """

    def stop(number: int, frame: object) -> None:
        raise Stopping("the process was asked to stop")

    with suppress(ValueError):  # not in the main thread: somebody else looks after signals
        signal.signal(signal.SIGTERM, stop)
    try:
        Device(config, client, shares_for(config, client, cache), address, journal).run()
    except Stopping:
        journal("asked to stop")
        return False
    return True
