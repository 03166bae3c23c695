"""Clients of a federation that are processes elsewhere: the round engine does not notice the difference.

The server wires an experiment as the simulation does, and then puts a ``RemoteClient`` in the place of each client.
Its turn is a task handed out, steps through the cut that arrive over gRPC at the very transport that the simulated
client would have used (meter, tap and all), and a result taken in.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from hcqsfl.config import Deployment
from hcqsfl.deployment import turn
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.lane import Lane
from hcqsfl.deployment.metrics import Metrics
from hcqsfl.deployment.plane import ClientLostError, Plane
from hcqsfl.federated.asynchronous import AsyncFederation
from hcqsfl.federated.client import Client, LocalTraining
from hcqsfl.federated.rounds import Event, Federation, Turn, take_turn
from hcqsfl.federated.sealed import NOT_HERE, Carry, SealedAggregator, SecAggPlus
from hcqsfl.federated.secure_aggregation import SecureAggregator
from hcqsfl.models.protocols import Setup
from hcqsfl.split import RemoteLoss, RemoteTrunk, RemoteVerticalTrunk, Transport, TrunkServer

MAX_ATTEMPTS = 100
"""How often one turn is begun before a client that is lost each time is given up."""


class Rounds(Protocol):
    """Hands tasks to clients: over our own streams, or over Flower."""

    def wait_for(self, client: str, seconds: float) -> bool:
        """Wait until a client is there; return whether it came."""
        ...

    def ask(self, client: str, task: bytes, until: float, *, silence: float | None = None) -> bytes:
        """Hand a client a task and return its result; see ``Plane.ask``."""
        ...


class Sealing(Carry, Protocol):
    """Carries sealed sums of one training."""

    def events(self, number: int) -> tuple[Event, ...]:
        """Return who dropped out of the sum of a round, and why."""
        ...


Judged = Callable[[int], tuple[Event, ...]]
"""Round -> what was decided about clients in it."""

MakeSealing = Callable[[SecAggPlus, tuple[str, int, str], Deployment], Sealing]
"""What the parties agree on, the training (arm, seed, fold) and the policy -> what carries its sealed sums."""


class Tally:
    """Who is lost in a round, for the policy that asks for a minimum of clients."""

    def __init__(self, policy: Deployment, federation: Federation) -> None:
        self.policy, self.federation = policy, federation
        self._lost: set[str] = set()
        self._round = 0
        self._lock = threading.Lock()

    def dispensable(self, client: str, number: int) -> bool:
        """Return whether a round can do without a client that is lost; if so, it is counted out."""
        f = self.federation
        drawn, _ = f.participation.draw([c.name for c in f.clients], f.seed, number)
        with self._lock:
            if number != self._round:
                self._round, self._lost = number, set()
            if len(drawn) - len(self._lost | {client}) < self.policy.minimum_clients:
                return False
            self._lost.add(client)
            return True


@dataclass(eq=False)
class RemoteClient(Client):
    """A client in another process.

    Attributes:
        federation: that it belongs to.
        plane: lets its steps through to the trunk.
        rounds: hands it its tasks.
        where: the training, with round and attempt still to be filled in.
        policy: what becomes of a round when it is lost.
        lane: of its trunk.
        alone: whether others wait while it has its turn.
        tally: who is lost.
        journal, metrics: where events go, and what is counted.
    """

    federation: Federation = field(kw_only=True)
    plane: Plane = field(kw_only=True)
    rounds: Rounds = field(kw_only=True)
    where: tuple[str, int, str] = field(kw_only=True)
    policy: Deployment = field(kw_only=True)
    lane: Lane = field(kw_only=True)
    alone: bool = field(kw_only=True)
    tally: Tally = field(kw_only=True)
    journal: Journal = field(kw_only=True)
    metrics: Metrics = field(kw_only=True)

    def train(self, optimizer: torch.optim.Optimizer, seed: int, number: int) -> LocalTraining:
        """Have the client train through one turn; begin it anew where the policy says so.

        Raises:
            ConnectionError, TimeoutError: the client was lost, and the policy goes on without it.
            ValueError, RuntimeError: it failed, or what it handed in is not of this turn or this network.
        """
        before = turn.Before(self.federation, self.name, shared=self.alone)
        until = time.monotonic() + self.policy.turn_seconds
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                self._await(until, number)
                if self.policy.policy == "wait" and attempt > 1:
                    until = time.monotonic() + self.policy.turn_seconds
                return self._attempt(turn.Where(*self.where, number, attempt), until)
            except ClientLostError as error:
                before.restore()
                for part in self.federation.parts_of(self.name):
                    part.begin_turn(self.name, number)
                self.metrics.lost.inc()
                self.journal("lost", "warning", client=self.name, round=number, attempt=attempt, text=str(error))
                if self.policy.policy == "minimum" and self.tally.dispensable(self.name, number):
                    raise
                if attempt == MAX_ATTEMPTS:
                    raise
                time.sleep(min(0.05 * attempt, 1.0))
            except BaseException:
                before.restore()
                raise
        raise AssertionError("unreachable")

    def _await(self, until: float, number: int) -> None:
        left = until - time.monotonic()
        patience = left if self.policy.policy == "deadline" else self.policy.rejoin_seconds
        absent = self.policy.policy == "minimum" and not self.rounds.wait_for(self.name, 0.0)
        if absent and self.tally.dispensable(self.name, number):
            raise ConnectionError(f"client {self.name} is not connected, and the round can do without it")
        if not self.rounds.wait_for(self.name, max(patience, 0.0)):
            raise TimeoutError(f"client {self.name} was waited for in vain, {max(patience, 0.0):.0f} s")

    def _attempt(self, where: turn.Where, until: float) -> LocalTraining:
        transport = self._transport()
        silence = None
        if transport is not None:
            servers_of(transport).forget(self.name)
            self.plane.open(self.name, transport, self.lane)
            silence = self.policy.step_seconds
        n_bytes, messages = self.carried()
        try:
            data = self.rounds.ask(self.name, turn.task(where, self.federation, self.name), until, silence=silence)
        finally:
            self.plane.close(self.name)
            if transport is not None:
                servers_of(transport).forget(self.name)
        loss, steps, num_examples = turn.take_result(data, where, self.federation, self.name)
        if num_examples != self.num_examples:
            raise ValueError(f"client {self.name} holds {num_examples} windows, but was dealt {self.num_examples}")
        after_bytes, after_messages = self.carried()
        return LocalTraining(loss, steps, num_examples, after_bytes - n_bytes, after_messages - messages)

    def _transport(self) -> Transport | None:
        return self.wire.transport if isinstance(self.wire, RemoteTrunk | RemoteLoss) else None


def servers_of(transport: Transport) -> TrunkServer:
    """Return the server behind a transport, whatever coats that wears."""
    while not isinstance(transport, TrunkServer):
        transport = transport.transport  # type: ignore[attr-defined]
    return transport


def deploy(
    setup: Setup,
    where: tuple[str, int, str],
    policy: Deployment,
    plane: Plane,
    rounds: Rounds,
    *,
    one_lane: bool,
    make_sealing: MakeSealing | None = None,
) -> Setup:
    """Put processes elsewhere in the place of a federation's clients.

    Args:
        setup: as the simulation wires it.
        where: arm, seed and fold of the training.
        policy: settings of the deployment.
        plane: lets clients' steps through.
        rounds: hands clients their tasks.
        one_lane: whether all transports write to the same file, so that only one may carry at a time.
        make_sealing: makes what carries sealed sums, where something can.

    Raises:
        ValueError: this federation cannot be deployed.
    """
    federation = setup.federation
    if all(client.name not in plane.clients for client in federation.clients):
        return setup  # everything in one place, on the server
    if isinstance(federation, AsyncFederation):
        raise ValueError("federation.buffer_size: asynchronous rounds run on a simulated clock; they are not deployed")
    if any(isinstance(client.wire, RemoteVerticalTrunk) for client in federation.clients):
        raise ValueError("model.parties: the parties of a vertical split are simulated in one process, not deployed")
    _seal(setup, where, policy, make_sealing)
    if any(isinstance(p.aggregator, SecureAggregator) and not turn.sealed(p) for p in federation.parts):
        raise ValueError(
            "federation.secure_aggregation: masks and ciphertexts are made and opened inside one process, which "
            "measures them and hides nothing across machines; deploy without"
        )
    shared = any(part.rule == "shared" for part in federation.parts)
    relayed = any(part.rule == "relay" for part in federation.parts)
    in_turns = relayed or (shared and policy.order == "turns")
    if shared and not in_turns:
        interleave(federation)
    common = Lane()
    tally = Tally(policy, federation)
    federation.clients = [
        RemoteClient(
            client.name,
            nn.Identity(),  # type: ignore[arg-type]
            client.x[:0],
            client.y,
            client.batch_size,
            wire=client.wire,
            meter=client.meter,
            federation=federation,
            plane=plane,
            rounds=rounds,
            where=where,
            policy=policy,
            lane=common if shared or one_lane else Lane(),
            alone=in_turns,
            tally=tally,
            journal=plane.journal,
            metrics=plane.metrics,
        )
        for client in federation.clients
    ]
    federation.together = None if in_turns else at_once
    return setup


def _seal(setup: Setup, where: tuple[str, int, str], policy: Deployment, make: MakeSealing | None) -> None:
    federation = setup.federation
    sealed = [part.aggregator for part in federation.parts if isinstance(part.aggregator, SealedAggregator)]
    if not sealed:
        return
    if make is None:
        raise ValueError(NOT_HERE)
    n_drawn = max(1, round(federation.participation.fraction * len(federation.clients)))
    for aggregator in sealed:
        aggregator.scheme.check(n_drawn)
        sealing = aggregator.carry = make(aggregator.scheme, where, policy)
        setup.judged = _both(setup.judged, sealing.events)


def _both(one: Judged, other: Judged) -> Judged:
    return lambda number: (*one(number), *other(number))


def interleave(federation: Federation) -> None:
    """Let steps of several clients come between one another at a shared trunk.

    Raises:
        ValueError: the trunk asks further servers, or is trained by DP-SGD: their steps cannot be told apart.
    """
    if any(part.name.startswith("hop") for part in federation.parts):
        raise ValueError('deployment.order = "free" is for one server; with several hops take "turns"')
    if any(part.privatise is not None for part in federation.parts):
        raise ValueError('deployment.order = "free" cannot tell the windows of DP-SGD apart; take "turns"')
    for client in federation.clients:
        if isinstance(client.wire, RemoteTrunk | RemoteLoss):
            servers_of(client.wire.transport).interleaved = True


def at_once(federation: Federation, present: Sequence[str], number: int) -> Iterator[Turn]:
    """Take all turns at the same time; yield what came of each, in the order of the names."""
    by_name = {client.name: client for client in federation.clients}

    def take(name: str) -> Turn:
        return name, *take_turn(by_name[name], federation.parts_of(name), federation.seed, number)

    if present:
        with ThreadPoolExecutor(len(present), thread_name_prefix="turn") as pool:
            yield from pool.map(take, present)
