"""Handshakes that fail: the server's log says whose and why, and a client knows a restart from a refusal."""

import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from deployment.federations import CONFIG
from deployment.planes import GREETING, LIMITS, SECONDS, forward, open_gate, running
from deployment.relays import Relay
from hcqsfl.deployment import certificates, knock
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.certificates import Identity
from hcqsfl.deployment.connection import Connection, RefusedError
from hcqsfl.deployment.core_log import Reader
from hcqsfl.deployment.journal import Journal, read
from hcqsfl.deployment.limits import Limits
from hcqsfl.split import decode
from made_people import write_table

PATIENT = Limits(**(vars(LIMITS) | {"connect_seconds": SECONDS}))


def expired(certs: Path, folder: Path) -> Identity:
    """Client ``a`` of the same authority, five days too late."""
    folder.mkdir()
    for name in ("ca.crt", "ca.key"):
        (folder / name).write_bytes((certs / name).read_bytes())
    certificates.make(folder, ["a"], days=5, start=datetime.now(UTC) - timedelta(days=10))
    pieces = ((folder / name).read_bytes() for name in ("a.key", "a.crt", "ca.crt"))
    return Identity("a", *pieces)


def foreign(certs: Path, folder: Path) -> Identity:
    """Client ``a`` of another authority, which trusts the server all the same."""
    certificates.make(folder, ["a"])
    other = certificates.load(folder, "a")
    return Identity("a", other.key, other.certificate, (certs / "ca.crt").read_bytes())


class Slamming(Relay):
    """A port whose first visitors find the door shut in the middle of their greeting, as while a server restarts."""

    def __init__(self, target: Address, times: int) -> None:
        self.left, self.seen = times, 0
        super().__init__(target)

    def opens(self, visitor: socket.socket) -> bool:
        self.seen += 1
        if not self.left:
            return True
        self.left -= 1
        visitor.recv(10)
        return False


def test_a_client_that_finds_the_door_slammed_in_its_handshake_tries_again(tmp_path: Path) -> None:
    with running(tmp_path) as found:
        open_gate(found.plane)
        door = Slamming(found.address, 5)
        connection = Connection(
            door.address, found.identity("a"), "a", GREETING, PATIENT, Journal(tmp_path / "client.jsonl")
        )
        assert decode(connection.steps()(forward())).kind == "features"
        assert door.left == 0
        assert any(event["event"] == "unreachable" for event in read(tmp_path / "client.jsonl"))
        connection.close()
        door.listener.close()


def test_a_certificate_that_can_never_come_right_is_given_up_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as found:
        certificates.make(tmp_path / "other", ["a"])
        certificates.make(tmp_path / "elsewhere", ["a"], hosts=["trunk.hospital.example"])
        distrusting, late = certificates.load(tmp_path / "other", "a"), expired(found.certs, tmp_path / "late")
        for identity, told in (
            (distrusting, "the server's certificate is not accepted"),
            (late, r"the certificate of 'a' holds from .* to .* UTC, and now is"),
        ):
            started = time.monotonic()
            connection = Connection(found.address, identity, "a", GREETING, PATIENT, Journal(tmp_path / "log"))
            with pytest.raises(RefusedError, match=told):
                connection.steps()
            connection.close()
            assert time.monotonic() - started < SECONDS / 2
        assert knock.refusal(found.address, found.identity("a")) == ""


def test_a_server_under_another_name_or_without_tls_is_told(tmp_path: Path) -> None:
    certificates.make(tmp_path / "certs", ["a", "b"], hosts=["trunk.hospital.example"])
    with running(tmp_path) as found:
        assert "certificate is not valid for '127.0.0.1'" in knock.refusal(found.address, found.identity("a"))
    with running(tmp_path / "bare", secure=False) as bare:
        assert knock.refusal(bare.address, found.identity("a")) == "the server speaks no TLS"
    assert knock.refusal(bare.address, found.identity("a")) == ""  # nobody is there, which may change


def test_the_servers_log_tells_of_each_handshake_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "data" / "table")
    (tmp_path / "c.toml").write_text(CONFIG.replace("insecure = true", 'certificates = "certs"'))
    monkeypatch.setenv("HCQSFL_DATA", str(tmp_path / "data"))
    for name in ("GRPC_VERBOSITY", "GRPC_TRACE"):
        monkeypatch.delenv(name, raising=False)
    certs, log = tmp_path / "certs", tmp_path / "log.jsonl"
    certificates.make(certs, ["a"])
    own = certificates.load(certs, "a")
    command = [sys.executable, "-m", "hcqsfl", "serve", "c.toml", "--log", str(log), "--out", "out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        wait(lambda: process.poll() is not None or any(e["event"] == "listening" for e in read(log)), 60)
        address = next(e["address"] for e in read(log) if e["event"] == "listening")
        late, other = expired(certs, tmp_path / "late"), foreign(certs, tmp_path / "other")
        for credentials, told in (
            (late, "its certificate has expired"),
            (other, "its certificate was not issued by this federation's authority"),
            (Identity("a", None, None, own.authority), "it shows no certificate"),  # type: ignore[arg-type]
            (None, "it speaks no TLS"),
        ):
            assert told in refused(address, credentials, log)
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopped; the same command with --resume" in said  # Python's words still come through, the core's do not
    assert "handshake" not in said.lower()
    assert "not suitable for production" not in said


def refused(address: str, own: Identity | None, log: Path) -> str:
    """Try to connect; return what the server's log then says of it."""
    time.sleep(0.15)  # the log tells of ten a second at most
    before = len(read(log))
    if own is None:
        channel = grpc.insecure_channel(address)
    else:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(own.authority, own.key, own.certificate))
    with pytest.raises(grpc.RpcError):
        next(channel.stream_stream("/hcqsfl.Plane/Steps")(iter([b"x"]), timeout=5))
    channel.close()
    wait(lambda: any(e.get("reason") == "handshake" for e in read(log)[before:]), 10)
    event = next(e for e in read(log)[before:] if e.get("reason") == "handshake")
    assert event["peer"].startswith("127.0.0.1:")
    return event["text"]


def wait(done, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def test_what_others_write_to_standard_error_is_passed_on() -> None:
    told: list[tuple[str, str]] = []
    reader = Reader(lambda peer, why: told.append((peer, why)))
    lines = [
        (b"I1124 18:47:40.991371   32383 handshaker.cc:155] CallNextHandshakerLocked: error=UNKNOWN: Ssl handshake "
         b"failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
         b"CERTIFICATE_VERIFY_FAILED: certificate has expired: OK\n", True),
        (b"=== Source Location Trace: ===\n", True),
        (b"src/core/util/status_helper.cc:68\n", True),
        (b" shutdown=false index=2, args={endpoint=0x7f, args={grpc.internal.endpoint_local_address=ipv4:127.0.0.1:1, "
         b"grpc.internal.endpoint_peer_address=ipv6:[::1]:58028, grpc.so_reuseport=0}, exit_early=0}\n", True),
        (b"I1124 18:47:40.990420   32383 handshaker.cc:155] CallNextHandshakerLocked: error=OK shutdown=false index=1, "
         b"args={args={grpc.internal.endpoint_peer_address=ipv4:127.0.0.1:58028, x=1}}\n", True),
        (b"E1124 18:47:41.000000   32383 server.cc:1] out of something\n", False),
        (b"Segmentation fault\n", False),
        (b"\n", False),
    ]  # fmt: skip
    assert [reader.take(line) for line, _ in lines] == [ours for _, ours in lines]
    assert told == [("[::1]:58028", "its certificate has expired (CERTIFICATE_VERIFY_FAILED: certificate has expired)")]
