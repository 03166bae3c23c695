"""The client's end of the streams: opens them, tries again with patience, and waits for nothing for ever."""

import queue
import secrets
import time
from typing import Any

import grpc

from hcqsfl.deployment import knock
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.certificates import Identity
from hcqsfl.deployment.frame import Frame, FrameError, Framing, Kind
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.limits import STEPS, Limits
from hcqsfl.deployment.watchdog import Watchdog

CLOSE_SECONDS = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
_FINAL = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)
_CLOSED = " (if the server runs, its log says why it ends the handshake)"


class RefusedError(ValueError):
    """The server will not have this client, now or later."""


class LostError(ConnectionError):
    """The stream broke, or nothing came in time."""


class Stream:
    """One stream, greeted and welcomed. Made by ``Connection.open``."""

    def __init__(self, call: Any, outbox: "queue.SimpleQueue[bytes | None]", framing: Framing, dog: Watchdog) -> None:
        self._call, self._outbox, self._framing, self._dog = call, outbox, framing, dog
        self._wait = dog.watch(call.cancel)

    def send(self, kind: Kind, payload: bytes) -> None:
        """Send a frame."""
        self._outbox.put(self._framing.pack(kind, payload))

    def receive(self, seconds: float) -> Frame:
        """Return the next frame.

        Raises:
            LostError: the stream broke, or nothing came in time.
            RefusedError: the server ended it for good.
            FrameError: what came does not belong here.
        """
        self._wait.begin(seconds)
        try:
            data = next(self._call)
        except StopIteration:
            raise LostError("the server ended the stream") from None
        except grpc.RpcError as error:
            if self._wait.expired:
                raise LostError(f"the server said nothing for {seconds:g} s") from None
            raise _told(error) from None
        finally:
            self._wait.end()
        return self._framing.unpack(data)

    def close(self) -> None:
        """End the stream."""
        self._outbox.put(None)
        self._dog.release(self._wait)
        until = time.monotonic() + CLOSE_SECONDS
        while self._call.is_active() and time.monotonic() < until:  # the server sees an end, not a break
            time.sleep(0.005)
        self._call.cancel()


class Steps:
    """A transport: carries messages across the cut over one stream.

    Args:
        stream: of steps.
        seconds: until a step must be answered.
    """

    def __init__(self, stream: Stream, seconds: float) -> None:
        self.stream, self.seconds = stream, seconds

    def __call__(self, request: bytes) -> bytes:
        """Carry a request there and its answer back.

        Raises:
            LostError, RefusedError, FrameError: as ``Stream.receive``.
        """
        self.stream.send(Kind.STEP, request)
        frame = self.stream.receive(self.seconds)
        if frame.kind != Kind.ANSWER:
            raise FrameError(f"a {frame.kind.name} frame came in place of an answer")
        return frame.payload


class Connection:
    """Opens streams to a server.

    Args:
        address: where it is.
        identity: the client's certificate; ``None`` to go without TLS.
        client: who speaks.
        greeting: the facts that the server holds against its own.
        limits: sizes and times.
        journal: where events go.
    """

    def __init__(
        self,
        address: Address,
        identity: Identity | None,
        client: str,
        greeting: bytes,
        limits: Limits,
        journal: Journal,
    ) -> None:
        if identity is None:
            address.check_loopback()
        self.address, self.identity, self.client = address, identity, client
        self.greeting, self.limits, self.journal = greeting, limits, journal
        self._dog = Watchdog()
        self._channel: grpc.Channel | None = None

    def open(self, method: str) -> Stream:
        """Open a stream, trying again with growing, uneven pauses.

        Raises:
            ConnectionError: the server could not be reached; what was tried and for how long is told.
            RefusedError: it will not have this client.
        """
        started = time.monotonic()
        pause, tries = FIRST_PAUSE, 0
        while True:
            tries += 1
            try:
                return self._try(method)
            except LostError as error:
                self._drop()
                if self.identity is not None and (why := knock.refusal(self.address, self.identity)):
                    raise RefusedError(
                        f"no secure connection to {self.address} comes about: {why} (`hcqsfl certs make`)"
                    ) from None
                passed = time.monotonic() - started
                if passed + pause > self.limits.connect_seconds:
                    raise ConnectionError(
                        f"the server at {self.address} could not be reached: {tries} tries in {passed:.0f} s; the "
                        f"last: {error}{_CLOSED if 'Socket closed' in str(error) else ''}"
                    ) from None
                self.journal("unreachable", "warning", address=str(self.address), tries=tries, text=str(error))
            # uneven, so that many clients do not come back all at once
            time.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        """End everything."""
        self._drop()
        self._dog.close()

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _try(self, method: str) -> Stream:
        if self._channel is None:
            options = self.limits.channel_options()
            if self.identity is None:
                self._channel = grpc.insecure_channel(str(self.address), options)
            else:
                own = self.identity
                credentials = grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
                self._channel = grpc.secure_channel(str(self.address), credentials, options)
        framing = Framing(self.client, self.limits.of(method))
        outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        outbox.put(framing.pack(Kind.HELLO, self.greeting))
        call = self._channel.stream_stream(method)(iter(outbox.get, None))
        stream = Stream(call, outbox, framing, self._dog)
        try:
            framing.open_session = True
            frame = stream.receive(self.limits.hello_seconds)
            if frame.kind != Kind.WELCOME:
                raise FrameError(f"a {frame.kind.name} frame came in place of a welcome")
        except BaseException:
            stream.close()
            raise
        return stream

    def steps(self) -> Steps:
        """Open a stream of steps."""
        return Steps(self.open(STEPS), self.limits.step_seconds)


def _told(error: grpc.RpcError) -> Exception:
    code, details = error.code(), error.details() or ""
    if code in _FINAL:
        return RefusedError(f"the server refused this client: {details}")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return RefusedError(f"the message is too large: {details}")
    return LostError(f"{code.name.lower().replace('_', ' ')}: {details.splitlines()[0][:200] if details else ''}")
