"""The server's end of all streams: who may speak, in which order, and for how long.

A client opens two streams over one connection, each with a greeting. On the stream of *steps* it sends messages across
the cut and gets their answers; on the stream of *turns* the server hands it a task for a whole turn and gets the
result. gRPC carries bytes, no generated code; everything in a frame's head is checked before its payload is touched.

A stream has a thread of its own and at most one message in hand, so that a client which reads slowly waits for itself
alone, and its messages wait in its own connection.
"""

import contextlib
import queue
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from hcqsfl.deployment import handshake
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.certificates import Identity
from hcqsfl.deployment.frame import Frame, FrameError, Framing, Kind, sender
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.lane import Lane
from hcqsfl.deployment.limits import MAX_HELLO_BYTES, STEPS, TURNS, Limits
from hcqsfl.deployment.metrics import Metrics
from hcqsfl.deployment.watchdog import Watchdog
from hcqsfl.split import Message, ProtocolError, Transport, encode
from hcqsfl.split.message import sender as speaker

TICKET = struct.Struct("!Q")
"""Stands before a task and its result, so that what is left of a turn that was given up is known as such."""


_HANDSHAKE_SECONDS = 0.1


class ClientLostError(ConnectionError):
    """A client went away, fell silent, or failed in its turn."""


class Stopping(KeyboardInterrupt):
    """The process was asked to stop."""


@dataclass(eq=False)
class Gate:
    """Through which a client's steps reach its trunk, while it has its turn.

    Attributes:
        transport: to the trunk.
        lane: of the trunk, which may be other clients' too.
        seen: when the client last said something, on the monotonic clock.
    """

    transport: Transport
    lane: Lane
    seen: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class _Session:
    client: str
    method: str
    framing: Framing
    context: Any
    peer: str
    ticket: int = 0
    outbox: "queue.Queue[tuple[Kind, bytes] | None]" = field(default_factory=lambda: queue.Queue(maxsize=4))
    inbox: "queue.Queue[Frame | None]" = field(default_factory=lambda: queue.Queue(maxsize=4))
    gone: bool = False

    def end(self) -> None:
        self.gone = True
        for box in (self.inbox, self.outbox):
            with contextlib.suppress(queue.Full):
                box.put_nowait(None)


class Plane:
    """A gRPC server for the clients of one federation.

    Args:
        clients: who may connect.
        facts: what each must be set up for.
        limits: sizes and times.
        journal: where events go.
        metrics: what is counted.
    """

    def __init__(
        self, clients: Iterable[str], facts: handshake.Facts, limits: Limits, journal: Journal, metrics: Metrics
    ) -> None:
        self.clients = frozenset(clients)
        self.facts, self.limits, self.journal, self.metrics = facts, limits, journal, metrics
        self.secure = True
        self._watchdog = Watchdog()
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._gates: dict[str, Gate] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._told, self._untold = -_HANDSHAKE_SECONDS, 0
        self._server: grpc.Server | None = None

    # ---- life

    def start(self, listen: Address, identity: Identity | None) -> Address:
        """Listen; return where.

        Args:
            listen: where to, port 0 for one that is free.
            identity: the server's certificate; ``None`` for a connection that anybody can read and write, which is
                allowed on loopback only.

        Raises:
            OSError: the port is taken.
            ValueError: an insecure server would listen beyond loopback.
        """
        threads = 2 * len(self.clients) + 8
        server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="stream"),
            options=self.limits.channel_options(),
            maximum_concurrent_rpcs=threads,
        )
        server.add_generic_rpc_handlers((_Handlers({STEPS: self._steps, TURNS: self._turns}),))
        try:
            if identity is None:
                listen.check_loopback()
                self.secure = False
                self.journal(
                    "insecure", "warning", listen=str(listen), text="no TLS: anybody on this machine may speak"
                )
                port = server.add_insecure_port(str(listen))
            else:
                credentials = grpc.ssl_server_credentials(
                    [(identity.key, identity.certificate)], identity.authority, require_client_auth=True
                )
                port = server.add_secure_port(str(listen), credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise OSError(
                f"{listen} cannot be listened at: the port is taken, or the address is not this machine's; see "
                "`deployment.listen`"
            )
        server.start()
        self._server = server
        where = Address(listen.host, port)
        self.journal("listening", address=str(where), secure=self.secure, clients=sorted(self.clients))
        return where

    def stop(self, grace: float = 2.0, *, over: bool = False) -> None:
        """End all streams.

        Args:
            grace: seconds that an answer under way may take.
            over: whether to tell the clients that they need not come back.
        """
        self._stopping.set()
        with self._changed:
            sessions = list(self._sessions.values())
            self._changed.notify_all()
        for session in sessions:
            if over and session.method == TURNS:
                with contextlib.suppress(queue.Full):
                    session.outbox.put_nowait((Kind.BYE, b""))
            session.end()
        if self._server is not None:
            if over:  # a goodbye takes its way before the connection is closed
                self._until_empty(grace)
            self._server.stop(grace).wait(timeout=grace + 5)
        self._watchdog.close()
        self.journal("stopped", over=over)

    def _until_empty(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._changed:
            while self._sessions and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def interrupt(self) -> None:
        """Make everybody who waits for a client stop waiting."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def handshake_failed(self, peer: str, why: str) -> None:
        """Tell of a peer that did not come as far as a stream."""
        self.metrics.refused.labels("handshake").inc()
        with self._changed:
            now = time.monotonic()
            self._untold += 1
            if now - self._told < _HANDSHAKE_SECONDS:  # who knocks without end is not to fill the disk
                return
            n, self._told, self._untold = self._untold, now, 0
        more = {"with_earlier": n} if n > 1 else {}
        self.journal("refused", "warning", reason="handshake", peer=peer, text=f"no secure connection: {why}", **more)

    # ---- turns

    def present(self) -> frozenset[str]:
        """Return the clients that can be handed a turn."""
        with self._changed:
            return frozenset(client for (method, client), s in self._sessions.items() if method == TURNS and not s.gone)

    def wait_for(self, client: str, seconds: float) -> bool:
        """Wait until a client is there; return whether it came.

        Raises:
            Stopping: the server is about to stop.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while (found := self._sessions.get((TURNS, client))) is None or found.gone:
                left = until - time.monotonic()
                if self._stopping.is_set():
                    raise Stopping("the server is about to stop")
                if left <= 0:
                    return False
                self._changed.wait(min(left, 1.0))
        return True

    def open(self, client: str, transport: Transport, lane: Lane) -> Gate:
        """Let a client's steps through to its trunk."""
        gate = self._gates[client] = Gate(transport, lane)
        return gate

    def close(self, client: str) -> None:
        """Let them through no longer; a step in hand is finished first."""
        gate = self._gates.pop(client, None)
        if gate is not None:
            gate.lane.settle()

    def ask(self, client: str, task: bytes, until: float, *, silence: float | None = None) -> bytes:
        """Hand a client the task of a turn and return its result.

        Args:
            client: whom.
            task: what to do.
            until: when to give up, on the monotonic clock.
            silence: seconds that may pass between two steps; ``None`` where a turn takes no steps.

        Raises:
            ClientLostError: it is not there, went away, fell silent, or lost its way to the trunk.
            TimeoutError: it took too long.
            RuntimeError: it could not do it.
            Stopping: the server is about to stop.
        """
        session = self._sessions.get((TURNS, client))
        if session is None:
            raise ClientLostError(f"client {client} is not connected")
        if session.gone:
            raise ClientLostError(f"client {client} went away")
        session.ticket += 1
        try:
            session.outbox.put((Kind.TASK, TICKET.pack(session.ticket) + task), timeout=self.limits.step_seconds)
        except queue.Full:
            raise ClientLostError(f"client {client} takes no task") from None
        gate = self._gates.get(client)
        while True:
            try:
                frame = session.inbox.get(timeout=0.25)
            except queue.Empty:
                now = time.monotonic()
                if self._stopping.is_set():
                    raise Stopping("the server is about to stop") from None
                if session.gone:
                    raise ClientLostError(f"client {client} went away in its turn") from None
                if now > until:
                    raise TimeoutError(f"client {client} did not finish its turn in time") from None
                if gate is not None and silence is not None and now - gate.seen > silence:
                    session.context.cancel()
                    raise ClientLostError(f"client {client} has said nothing for {silence:g} s") from None
                continue
            if frame is None:
                raise ClientLostError(f"client {client} went away in its turn")
            if len(frame.payload) < TICKET.size or TICKET.unpack_from(frame.payload)[0] != session.ticket:
                continue  # what is left of a turn that was given up
            if frame.kind == Kind.RESULT:
                return frame.payload[TICKET.size :]
            told = handshake.from_bytes(frame.payload[TICKET.size :])
            text = str(told.get("text"))[:500]
            if told.get("lost"):
                raise ClientLostError(f"client {client} lost its way to the trunk: {text}")
            raise RuntimeError(text)

    # ---- streams

    def _accept(self, method: str, requests: Iterator[bytes], context: Any) -> tuple[_Session, bytes]:
        certified = _common_name(context) if self.secure else None
        peer = context.peer()
        wait = self._watchdog.watch(context.cancel)
        wait.begin(self.limits.hello_seconds)
        try:
            data = next(requests)
        except (StopIteration, grpc.RpcError):
            if not wait.expired:
                self._broken(certified or "", peer, MAX_HELLO_BYTES)
            self._refuse(context, "silent", certified or "", "the stream was opened, but nobody said whose it is")
        finally:
            self._watchdog.release(wait)
        try:
            client = sender(data)
        except FrameError as error:
            self._refuse(context, "malformed", certified or "", str(error))
        if certified is not None and certified != client:
            self._refuse(
                context, "identity", certified, f"the certificate is of client {certified!r}, but {client!r} is claimed"
            )
        if client not in self.clients:
            self._refuse(context, "unknown", client, f"client {client!r} has no part in this federation")
        try:
            framing = Framing(client, MAX_HELLO_BYTES)
            frame = framing.unpack(data)
            if frame.kind != Kind.HELLO:
                raise FrameError(f"out of order: a {frame.kind.name.lower()} frame came before the greeting")
            handshake.agree(client, handshake.from_bytes(frame.payload), self.facts)
        except handshake.Disagreement as error:
            self._refuse(context, "disagreement", client, str(error))
        except ValueError as error:
            self._refuse(context, "malformed", client, str(error))
        framing.session = secrets.token_bytes(16)
        framing.max_bytes = self.limits.of(method)
        session = _Session(client, method, framing, context, peer)
        with self._changed:
            if self._stopping.is_set():
                self._refuse(context, "stopping", client, "the server is about to stop")
            if (method, client) in self._sessions:
                self._refuse(context, "twice", client, f"client {client!r} is connected already")
            self._sessions[method, client] = session
            self._changed.notify_all()
        if not context.add_callback(session.end):
            session.end()
        self._count()
        self.journal("joined", client=client, stream=method.rpartition("/")[2].lower(), peer=peer)
        return session, framing.pack(Kind.WELCOME)

    def _leave(self, session: _Session) -> None:
        session.end()
        with self._changed:
            if self._sessions.get((session.method, session.client)) is session:
                del self._sessions[session.method, session.client]
            self._changed.notify_all()
        self._count()
        self.journal("left", client=session.client, stream=session.method.rpartition("/")[2].lower())

    def _count(self) -> None:
        self.metrics.clients.set(len(self.present()))

    def _refuse(self, context: Any, reason: str, client: str, text: str) -> Any:
        self.metrics.refused.labels(reason).inc()
        self.journal("refused", "warning", reason=reason, client=client, peer=context.peer(), text=text)
        context.abort(_CODES.get(reason, grpc.StatusCode.INVALID_ARGUMENT), text[:1500])

    def _frames(self, session: _Session, requests: Iterator[bytes]) -> Iterator[Frame]:
        """Yield the frames of a stream; end it at the first that does not belong there."""
        while True:
            try:
                data = next(requests)
            except StopIteration:
                return
            except grpc.RpcError:
                if not self._stopping.is_set():
                    self._broken(session.client, session.peer, session.framing.max_bytes)
                return
            try:
                yield session.framing.unpack(data)
            except FrameError as error:
                self._refuse(session.context, str(error).partition(":")[0].split()[0], session.client, str(error))

    def _broken(self, client: str, peer: str, limit: int) -> None:
        text = (
            f"the stream broke off: the connection was lost, or a message far over {limit:,} bytes was announced, "
            "which gRPC refuses before reading it and without saying so here"
        )
        self.journal("broken", "warning", client=client, peer=peer, text=text)

    def _steps(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        session, welcome = self._accept(STEPS, requests, context)
        counters = [self.metrics.bytes.labels(session.client, direction) for direction in ("up", "down")]
        steps = self.metrics.steps.labels(session.client)
        try:
            yield welcome
            for frame in self._frames(session, requests):
                started = time.perf_counter()
                if frame.kind != Kind.STEP:
                    self._refuse(context, "malformed", session.client, f"a {frame.kind.name} frame among steps")
                answer = self._answer(session, frame.payload)
                counters[0].inc(len(frame.payload))
                counters[1].inc(len(answer))
                steps.inc()
                self.metrics.seconds.observe(time.perf_counter() - started)
                yield session.framing.pack(Kind.ANSWER, answer)
        finally:
            self._leave(session)

    def _answer(self, session: _Session, request: bytes) -> bytes:
        try:
            claimed = speaker(request)
        except ProtocolError as error:
            return self._objection(session, "malformed", str(error))
        if claimed != session.client:
            return self._objection(session, "identity", f"client {session.client} sent a message of client {claimed!r}")
        gate = self._gates.get(session.client)
        if gate is None:
            return self._objection(session, "turn", f"it is not the turn of client {session.client}")
        gate.seen = time.monotonic()

        def work() -> bytes:
            if self._gates.get(session.client) is not gate:  # the turn ended while this step waited
                return self._objection(session, "turn", f"the turn of client {session.client} is over")
            with self.metrics.at_work():
                return gate.transport(request)

        try:
            return gate.lane(work)
        except Exception as error:
            return self._objection(session, "failed", f"{type(error).__name__}: {error}")
        finally:
            gate.seen = time.monotonic()

    def _objection(self, session: _Session, reason: str, text: str) -> bytes:
        self.metrics.refused.labels(reason).inc()
        self.journal("refused", "warning", reason=reason, client=session.client, text=text)
        return encode(Message("error", session.client, text=text[:500]))

    def _turns(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        session, welcome = self._accept(TURNS, requests, context)
        reader = threading.Thread(target=self._read_results, args=(session, requests), daemon=True)
        try:
            yield welcome
            reader.start()
            while True:
                try:
                    told = session.outbox.get(timeout=self.limits.beat_seconds)
                except queue.Empty:
                    told = (Kind.BEAT, b"")
                if told is None or (session.gone and told[0] != Kind.BYE):
                    return
                yield session.framing.pack(*told)
        finally:
            self._leave(session)

    def _read_results(self, session: _Session, requests: Iterator[bytes]) -> None:
        try:
            for frame in self._frames(session, requests):
                if frame.kind not in (Kind.RESULT, Kind.FAILED):
                    self._refuse(session.context, "malformed", session.client, f"a {frame.kind.name} frame among turns")
                try:
                    session.inbox.put_nowait(frame)
                except queue.Full:
                    self._refuse(session.context, "flood", session.client, "more results than tasks came")
        except Exception:
            session.context.cancel()
        finally:
            session.end()


_CODES = {
    "identity": grpc.StatusCode.PERMISSION_DENIED,
    "unknown": grpc.StatusCode.PERMISSION_DENIED,
    "disagreement": grpc.StatusCode.FAILED_PRECONDITION,
    "twice": grpc.StatusCode.ALREADY_EXISTS,
    "stopping": grpc.StatusCode.UNAVAILABLE,
    "silent": grpc.StatusCode.DEADLINE_EXCEEDED,
}


class _Handlers(grpc.GenericRpcHandler):
    """Bytes to bytes: without serialisers gRPC needs no generated code."""

    def __init__(self, methods: dict[str, Callable[[Iterator[bytes], Any], Iterator[bytes]]]) -> None:
        self.methods = {name: grpc.stream_stream_rpc_method_handler(method) for name, method in methods.items()}

    def service(self, handler_call_details: Any) -> Any:
        return self.methods.get(handler_call_details.method)


def _common_name(context: Any) -> str:
    names = context.auth_context().get("x509_common_name", [])
    return names[0].decode(errors="replace") if names else ""
