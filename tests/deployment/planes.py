"""Planes, certificates and raw streams for the tests."""

import queue
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import torch

from hcqsfl.deployment import certificates, handshake
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.certificates import Identity
from hcqsfl.deployment.connection import Connection
from hcqsfl.deployment.frame import Framing, Kind
from hcqsfl.deployment.journal import Journal, read
from hcqsfl.deployment.lane import Lane
from hcqsfl.deployment.limits import STEPS, Limits
from hcqsfl.deployment.metrics import Metrics
from hcqsfl.deployment.plane import Plane
from hcqsfl.split import Message, TrunkServer, encode

FACTS = {"model.n_smashed": 4, "protocol version": 1, "label set": ["rest", "stress"]}
GREETING = handshake.to_bytes(FACTS)
LIMITS = Limits(
    step_bytes=2**16,
    turn_bytes=2**18,
    hello_seconds=2.0,
    step_seconds=5.0,
    connect_seconds=1.0,
    keepalive_seconds=5.0,
    beat_seconds=0.5,
)
SECONDS = 20.0
"""Longest wait of a test."""


class Running:
    """A plane that listens, and what it wrote."""

    def __init__(self, folder: Path, clients=("a", "b"), secure: bool = True, limits: Limits = LIMITS) -> None:
        self.folder, self.secure, self.limits = folder, secure, limits
        self.certs = folder / "certs"
        if secure and not self.certs.exists():
            certificates.make(self.certs, list(clients))
        self.log = folder / "server.jsonl"
        self.plane = Plane(clients, FACTS, limits, Journal(self.log), Metrics())
        identity = certificates.load(self.certs, "server") if secure else None
        self.address = self.plane.start(Address("127.0.0.1", 0), identity)

    def identity(self, name: str, folder: Path | None = None) -> Identity | None:
        return certificates.load(folder or self.certs, name) if self.secure else None

    def connection(self, client: str = "a", greeting: bytes = GREETING, certificate: str | None = None) -> Connection:
        identity = self.identity(certificate or client)
        return Connection(self.address, identity, client, greeting, self.limits, Journal(self.folder / "client.jsonl"))

    def refusals(self) -> list[dict]:
        return [event for event in read(self.log) if event["event"] in ("refused", "broken")]


@contextmanager
def running(folder: Path, **options) -> Iterator[Running]:
    found = Running(folder, **options)
    try:
        yield found
    finally:
        found.plane.stop(0.5)


def trunk_server() -> TrunkServer:
    trunk = torch.nn.Linear(4, 3)
    return TrunkServer(trunk, torch.optim.SGD(trunk.parameters(), lr=0.1))


def forward(client: str = "a", step: int = 1, n: int = 2) -> bytes:
    return encode(Message("forward", client, 1, step, {"smashed": torch.ones(n, 4)}))


def open_gate(plane: Plane, client: str = "a", server: TrunkServer | None = None) -> TrunkServer:
    server = server or trunk_server()
    plane.open(client, server, Lane())
    return server


class RawStream:
    """A stream without our own client's manners: sends whatever bytes it is told to."""

    def __init__(self, found: Running, client: str = "a", method: str = STEPS, certificate: str | None = None) -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        identity = found.identity(certificate or client)
        if identity is None:
            self.channel = grpc.insecure_channel(str(found.address), options)
        else:
            credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
            self.channel = grpc.secure_channel(str(found.address), credentials, options)
        self.framing = Framing(client, 2**30)
        self.outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.call = self.channel.stream_stream(method)(iter(self.outbox.get, None), timeout=SECONDS)

    def greet(self) -> None:
        self.send(self.framing.pack(Kind.HELLO, GREETING))
        self.framing.open_session = True
        assert self.framing.unpack(next(self.call)).kind == Kind.WELCOME

    def send(self, data: bytes) -> None:
        self.outbox.put(data)

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return next(self.call)

    def refusal(self) -> tuple[grpc.StatusCode, str]:
        """Wait for the stream's end and return why it ended."""
        try:
            for _ in self.call:
                pass
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        return self.call.code(), self.call.details() or ""

    def close(self) -> None:
        self.outbox.put(None)
        self.call.cancel()
        self.channel.close()


def claim_over_http2(address: Address, length: int, method: str = STEPS) -> bytes:
    """Speak just enough HTTP/2 to begin a gRPC message that claims ``length`` bytes; return what came back.

    Source: RFC 9113, sections 3.4, 4.1 and 6; RFC 7541, section 6.2.2; gRPC over HTTP2, "Length-Prefixed-Message".
    """

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload

    def header(name: str, value: str) -> bytes:
        return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    with socket.create_connection((address.host, address.port), timeout=SECONDS) as connection:
        connection.settimeout(2.0)
        block = b"".join(header(name, value) for name, value in headers.items())
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(4, 0, 0, b"")
            + frame(1, 4, 1, block)
            + frame(0, 0, 1, b"\0" + struct.pack("!I", length) + b"x" * 1000)
        )
        found = b""
        try:
            while data := connection.recv(65536):
                found += data
        except TimeoutError:
            pass
        return found
