"""The server's streams: who is let in, what is refused, and that nobody can hold up the others."""

import resource
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import torch

from deployment.planes import (
    FACTS,
    GREETING,
    LIMITS,
    SECONDS,
    RawStream,
    Running,
    claim_over_http2,
    forward,
    open_gate,
    running,
    trunk_server,
)
from hcqsfl.deployment import certificates, handshake
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.connection import Connection, LostError, RefusedError
from hcqsfl.deployment.frame import Kind
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.lane import Lane
from hcqsfl.deployment.limits import TURNS
from hcqsfl.deployment.metrics import Metrics, fetch
from hcqsfl.deployment.plane import ClientLostError, Plane
from hcqsfl.split import Message, RemoteTrunk, decode, encode


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory):
    with running(tmp_path_factory.mktemp("plane")) as it:
        yield it


@pytest.fixture
def raw(found: Running):
    opened: list[RawStream] = []

    def open_(*arguments, **options) -> RawStream:
        opened.append(RawStream(found, *arguments, **options))
        return opened[-1]

    yield open_
    for stream in opened:
        stream.close()
    until = time.monotonic() + SECONDS
    while found.plane._sessions and time.monotonic() < until:
        time.sleep(0.01)


def told(found: Running, reason: str) -> str:
    """What the log says of the last refusal, once it does."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if texts := [e["text"] for e in found.refusals() if e.get("reason") == reason]:
            return texts[-1]
        time.sleep(0.02)
    raise AssertionError(f"nothing was refused as {reason}: {found.refusals()}")


def test_the_cut_over_mutual_tls_is_the_cut_in_process_bit_for_bit(found: Running) -> None:
    torch.manual_seed(0)
    here, there = trunk_server(), trunk_server()
    there.trunk.load_state_dict(here.trunk.state_dict())
    open_gate(found.plane, "a", there)
    connection = found.connection()
    steps = connection.steps()
    for transport, server in ((here, here), (steps, there)):
        wire, front = RemoteTrunk(transport, "a"), torch.nn.Linear(5, 4)
        with torch.no_grad():
            front.weight.fill_(0.3)
            front.bias.zero_()
        x = torch.linspace(-1, 1, 50).reshape(10, 5)
        for _ in range(3):
            (wire(front(x)) ** 2).sum().backward()
        server.reached = (front.weight.grad.clone(), server.trunk.weight.detach().clone())
    connection.close()
    for one, other in zip(here.reached, there.reached, strict=True):
        assert torch.equal(one, other)


def test_another_clients_identity_is_refused(found: Running, raw) -> None:
    stream = raw("a", certificate="b")
    stream.send(stream.framing.pack(Kind.HELLO, GREETING))
    code, text = stream.refusal()
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert text == told(found, "identity") == "the certificate is of client 'b', but 'a' is claimed"
    connection = found.connection("a", certificate="b")
    with pytest.raises(RefusedError, match="the certificate is of client 'b'"):
        connection.steps()
    connection.close()


def test_another_clients_message_is_refused_on_ones_own_stream(found: Running, raw) -> None:
    server = open_gate(found.plane, "a")
    before = server.trunk.weight.detach().clone()
    stream = raw("a")
    stream.greet()
    answer = decode(stream.framing.unpack(stream.ask(stream.framing.pack(Kind.STEP, forward("b")))).payload)
    assert (answer.kind, answer.text) == ("error", "client a sent a message of client 'b'")
    assert torch.equal(before, server.trunk.weight)


def test_a_client_that_nobody_knows_is_refused(found: Running) -> None:
    certificates.make(found.folder / "more", ["stranger"])
    for name in ("ca.crt", "ca.key"):
        (found.folder / "more" / name).unlink()
    (found.certs / "server.crt").rename(found.certs / "server.kept")
    certificates.make(found.certs, ["c"])  # the same authority, but a client that has no part in this federation
    (found.certs / "server.kept").rename(found.certs / "server.crt")
    connection = found.connection("c")
    with pytest.raises(RefusedError, match="client 'c' has no part in this federation"):
        connection.steps()
    connection.close()
    assert "'c'" in told(found, "unknown")


def test_a_certificate_of_another_authority_is_refused(found: Running, tmp_path: Path) -> None:
    certificates.make(tmp_path, ["a"])
    identity = certificates.load(tmp_path, "a")
    mixed = certificates.Identity("a", identity.key, identity.certificate, found.identity("a").authority)
    for own, told in ((identity, "no secure connection"), (mixed, "its log says why it ends the handshake")):
        connection = Connection(found.address, own, "a", GREETING, LIMITS, Journal(tmp_path / "log"))
        with pytest.raises((RefusedError, ConnectionError), match=told):
            connection.steps()
        connection.close()


def test_an_expired_certificate_is_refused_by_its_owner(found: Running, tmp_path: Path) -> None:
    for name in ("ca.crt", "ca.key"):
        (tmp_path / name).write_bytes((found.certs / name).read_bytes())
    past = datetime.now(UTC) - timedelta(days=10)
    certificates.make(tmp_path, ["a"], days=5, start=past)
    with pytest.raises(ValueError, match=r"the certificate of 'a' holds from .* and now is"):
        certificates.load(tmp_path, "a")


def test_a_connection_without_tls_is_refused(found: Running) -> None:
    channel = grpc.insecure_channel(str(found.address))
    call = channel.stream_stream("/hcqsfl.Plane/Steps")(iter([b"x"]), timeout=3)
    with pytest.raises(grpc.RpcError) as error:
        next(call)
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    channel.close()


def test_a_replay_ends_the_stream_and_is_logged(found: Running, raw) -> None:
    open_gate(found.plane, "a")
    stream = raw("a")
    stream.greet()
    frame = stream.framing.pack(Kind.STEP, forward())
    stream.ask(frame)
    stream.send(frame)
    code, text = stream.refusal()
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text == told(found, "replayed") == "replayed: it is number 2, but number 3 was to come"


def test_a_frame_kept_from_an_earlier_session_is_foreign(found: Running, raw) -> None:
    open_gate(found.plane, "a")
    old = raw("a")
    old.greet()
    kept = old.framing.pack(Kind.STEP, forward())
    old.ask(kept)
    old.close()
    time.sleep(0.2)
    stream = raw("a")
    stream.greet()
    stream.send(kept)
    assert "foreign: of session" in stream.refusal()[1]


@pytest.mark.parametrize(
    ("mend", "reason"),
    [
        (lambda data: data + b"x", "malformed"),
        (lambda data: data[:20], "malformed"),
        (lambda data: b"junk" * 30, "malformed"),
        (lambda data: data[:32] + (2**31).to_bytes(8, "big") + data[40:], "oversized"),
    ],
)
def test_a_malformed_frame_ends_the_stream_and_is_logged(found: Running, raw, mend, reason: str) -> None:
    open_gate(found.plane, "a")
    stream = raw("a")
    stream.greet()
    stream.send(mend(stream.framing.pack(Kind.STEP, forward())))
    code, text = stream.refusal()
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text == told(found, reason)


def test_a_message_that_is_no_message_is_answered_and_the_stream_goes_on(found: Running, raw) -> None:
    open_gate(found.plane, "a")
    stream = raw("a")
    stream.greet()
    for junk in (b"", b"junk", b"\xff" * 100, encode(Message("forward", "a", 1, 1, {"smashed": torch.ones(2, 9)}))):
        answer = decode(stream.framing.unpack(stream.ask(stream.framing.pack(Kind.STEP, junk))).payload)
        assert answer.kind == "error"
    answer = stream.framing.unpack(stream.ask(stream.framing.pack(Kind.STEP, forward()))).payload
    assert decode(answer).kind == "features"


def test_a_client_that_is_not_set_up_alike_is_told_both_values(found: Running) -> None:
    other = FACTS | {"model.n_smashed": 8, "label set": ["rest"]}
    connection = found.connection(greeting=handshake.to_bytes(other))
    with pytest.raises(RefusedError) as error:
        connection.steps()
    connection.close()
    assert "model.n_smashed is 8 at client a and 4 at the server" in str(error.value)
    assert 'label set is ["rest"] at client a and ["rest", "stress"] at the server' in str(error.value)
    assert "model.n_smashed" in told(found, "disagreement")


def test_a_step_outside_ones_turn_is_refused(found: Running, raw) -> None:
    server = open_gate(found.plane, "a")
    stream = raw("a")
    stream.greet()
    found.plane.close("a")
    before = server.trunk.weight.detach().clone()
    answer = decode(stream.framing.unpack(stream.ask(stream.framing.pack(Kind.STEP, forward()))).payload)
    assert answer.text == "it is not the turn of client a"
    assert torch.equal(before, server.trunk.weight)


def test_the_same_client_twice_is_refused(found: Running, raw) -> None:
    raw("a").greet()
    second = raw("a")
    second.send(second.framing.pack(Kind.HELLO, GREETING))
    assert second.refusal()[0] == grpc.StatusCode.ALREADY_EXISTS


def test_a_stream_that_says_nothing_is_ended(found: Running, raw) -> None:
    started = time.monotonic()
    assert raw("b").refusal()[0] in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    assert time.monotonic() - started < LIMITS.hello_seconds + 3


def test_two_gigabytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with running(tmp_path, secure=False) as found:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = claim_over_http2(found.address, 2**31 - 1)
        assert b"Received message larger than max (2147483647 vs." in answer
        told(found, "silent")
        assert any("far over" in event["text"] for event in found.refusals())
        stream = RawStream(found)
        open_gate(found.plane, "a")
        stream.greet()
        stream.send(b"x" * (LIMITS.turn_bytes + 2**18))
        code, text = stream.refusal()
        stream.close()
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in text
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_a_client_that_does_not_read_holds_up_nobody(found: Running, raw) -> None:
    for name in ("a", "b"):
        open_gate(found.plane, name)
    slow = raw("a")
    slow.greet()
    for step in range(1, 300):  # asks and never listens
        slow.send(slow.framing.pack(Kind.STEP, forward("a", step, 200)))
    quick = found.connection("b")
    steps = quick.steps()
    started = time.monotonic()
    for step in range(1, 30):
        assert decode(steps(forward("b", step))).kind == "features"
    assert time.monotonic() - started < 10
    quick.close()
    (session,) = [s for s in found.plane._sessions.values() if s.client == "a"]
    assert session.framing.received < 300  # what it asked for waits in its own connection
    assert len(found.plane._gates["a"].transport._open) <= 1


def test_a_task_is_handed_out_and_its_result_taken_in(found: Running, raw) -> None:
    client = raw("a", TURNS)
    client.greet()
    assert found.plane.wait_for("a", SECONDS)
    got: list[bytes] = []
    until = time.monotonic() + SECONDS
    asking = threading.Thread(target=lambda: got.append(found.plane.ask("a", b"train", until)))
    asking.start()
    frame = client.framing.unpack(next(client.call))
    while frame.kind == Kind.BEAT:
        frame = client.framing.unpack(next(client.call))
    assert (frame.kind, frame.payload[8:]) == (Kind.TASK, b"train")
    client.send(client.framing.pack(Kind.RESULT, (99).to_bytes(8, "big") + b"stale"))
    client.send(client.framing.pack(Kind.RESULT, frame.payload[:8] + b"done"))
    asking.join(SECONDS)
    assert got == [b"done"]


def test_a_client_that_vanishes_falls_silent_or_dawdles_ends_the_wait(found: Running, raw) -> None:
    with pytest.raises(ClientLostError, match="client b is not connected"):
        found.plane.ask("b", b"train", time.monotonic() + SECONDS)
    client = raw("a", TURNS)
    client.greet()
    found.plane.wait_for("a", SECONDS)
    with pytest.raises(TimeoutError, match="did not finish its turn in time"):
        found.plane.ask("a", b"train", time.monotonic() + 0.3)
    threading.Timer(0.3, client.close).start()
    with pytest.raises(ClientLostError, match="went away"):
        found.plane.ask("a", b"train", time.monotonic() + SECONDS)
    again = raw("a", TURNS)
    again.greet()
    found.plane.wait_for("a", SECONDS)
    open_gate(found.plane, "a")
    with pytest.raises(ClientLostError, match=r"has said nothing for 0.4 s"):
        found.plane.ask("a", b"train", time.monotonic() + SECONDS, silence=0.4)
    found.plane.close("a")


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        plane = Plane(["a"], FACTS, LIMITS, Journal(tmp_path / "log"), Metrics())
        with pytest.raises(OSError, match=f"127.0.0.1:{port} cannot be listened at: the port is taken"):
            plane.start(Address("127.0.0.1", port), None)
        plane.stop()
        with pytest.raises(OSError, match=f"port {port} for metrics"):
            Metrics().serve(port)


def test_without_tls_only_the_loopback_is_served(tmp_path: Path) -> None:
    plane = Plane(["a"], FACTS, LIMITS, Journal(tmp_path / "log"), Metrics())
    with pytest.raises(ValueError, match=r"without TLS only the loopback may be used, and 0\.0\.0\.0:0 is reachable"):
        plane.start(Address("0.0.0.0", 0), None)
    plane.stop()
    with pytest.raises(ValueError, match="without TLS"):
        Connection(Address("10.0.0.1", 7443), None, "a", GREETING, LIMITS, Journal(tmp_path / "log"))


def test_a_server_that_is_not_there_is_told_with_what_was_tried(tmp_path: Path) -> None:
    with socket.socket() as holder:  # bound, but nobody listens
        holder.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", holder.getsockname()[1])
        connection = Connection(address, None, "a", GREETING, LIMITS, Journal(tmp_path / "log"))
        with pytest.raises(ConnectionError, match=rf"the server at {address} could not be reached: \d+ tries in \d+ s"):
            connection.steps()
        connection.close()


def test_a_server_that_freezes_is_noticed(tmp_path: Path) -> None:
    release = threading.Event()
    limits = LIMITS.__class__(**(vars(LIMITS) | {"step_seconds": 0.5}))
    with running(tmp_path, secure=False, limits=limits) as found:
        found.plane.open("a", lambda request: (release.wait(SECONDS), request)[1], Lane())
        connection = found.connection()
        steps = connection.steps()
        with pytest.raises(LostError, match=r"the server said nothing for 0.5 s"):
            steps(forward())
        release.set()
        connection.close()


def test_metrics_are_told_on_loopback(found: Running, raw) -> None:
    port = found.plane.metrics.serve(0)
    open_gate(found.plane, "b")
    stream = raw("b")
    stream.greet()
    stream.ask(stream.framing.pack(Kind.STEP, forward("b")))
    facts = fetch(port)
    assert facts["clients"]["b"]["messages"] >= 1
    assert facts["clients"]["b"]["bytes_up"] >= len(forward("b"))
    assert facts["server"]["busy_seconds"] > 0
    found.plane.metrics.close()
    with pytest.raises(OSError, match="no server answers"):
        fetch(port, 1.0)


@pytest.mark.parametrize("text", ["host", "host:", ":1", "h:x", "h:70000"])
def test_an_address_is_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        Address.parse(text)


def test_addresses_are_read() -> None:
    assert str(Address.parse("[::1]:7443")) == "[::1]:7443"
    assert Address.parse("h:1") == Address("h", 1)


def test_keys_are_for_their_owner_alone_and_are_not_shown(found: Running) -> None:
    assert (found.certs / "a.key").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(found.identity("a"))
    for path in found.folder.glob("*.jsonl"):
        assert "PRIVATE" not in path.read_text()


def test_certificates_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    certificates.make(one, ["a", "b"])
    certificates.make(other, ["a"])
    with pytest.raises(FileExistsError, match="is there already"):
        certificates.make(one, ["a"])
    with pytest.raises(FileNotFoundError, match=r"c.key is not there; `hcqsfl certs make` writes it"):
        certificates.load(one, "c")
    for name in ("../x", "ca", "server", "", "a b"):
        with pytest.raises(ValueError, match="cannot be called"):
            certificates.make(tmp_path / "bad", [name])
    (one / "b.key").replace(one / "a.key")
    with pytest.raises(ValueError, match="does not belong to"):
        certificates.load(one, "a")
    (other / "a.crt").replace(one / "b.crt")
    (other / "a.key").replace(one / "b.key")
    with pytest.raises(ValueError, match="is the certificate of 'a', not of 'b'"):
        certificates.load(one, "b")
    (one / "b.crt").replace(one / "a.crt")
    (one / "b.key").replace(one / "a.key")
    with pytest.raises(ValueError, match="was not issued by"):
        certificates.load(one, "a")
