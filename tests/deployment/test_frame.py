"""Frames: what is packed is read, and nothing else is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hcqsfl.deployment import handshake, record
from hcqsfl.deployment.frame import NO_SESSION, FrameError, Framing, Kind, sender

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16)


@given(
    NAMES,
    st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=64)), max_size=5),
    st.binary(min_size=16, max_size=16),
)
def test_what_one_end_packs_the_other_reads(name: str, frames: list[tuple[Kind, bytes]], session: bytes) -> None:
    there, here = (Framing(name, 64, session) for _ in range(2))
    for kind, payload in frames:
        data = there.pack(kind, payload)
        assert sender(data) == name
        frame = here.unpack(data)
        assert (frame.kind, frame.payload) == (kind, payload)


def pair(client: str = "a", other: str = "a", session: bytes = b"s" * 16) -> tuple[Framing, Framing]:
    return Framing(other, 100, session), Framing(client, 100, b"s" * 16)


def test_a_replayed_frame_is_refused_and_the_next_one_is_not() -> None:
    there, here = pair()
    first, second = there.pack(Kind.STEP, b"1"), there.pack(Kind.STEP, b"2")
    here.unpack(first)
    with pytest.raises(FrameError, match="replayed: it is number 1, but number 2 was to come"):
        here.unpack(first)
    assert here.unpack(second).payload == b"2"


def test_frames_out_of_order_are_refused() -> None:
    there, here = pair()
    there.pack(Kind.STEP)
    with pytest.raises(FrameError, match="out of order: it is number 2, but number 1 was to come"):
        here.unpack(there.pack(Kind.STEP))


def test_frames_of_another_client_session_version_or_kind_are_refused() -> None:
    there, here = pair(other="b")
    with pytest.raises(FrameError, match="foreign: it speaks for client 'b' on the stream of client 'a'"):
        here.unpack(there.pack(Kind.STEP))
    there, here = pair(session=b"t" * 16)
    with pytest.raises(FrameError, match="foreign: of session 74747474, not 73737373"):
        here.unpack(there.pack(Kind.STEP))
    there, here = pair()
    data = bytearray(there.pack(Kind.STEP))
    with pytest.raises(FrameError, match="of version 9; this end speaks version 1"):
        here.unpack(bytes(data[:4] + b"\x09" + data[5:]))
    with pytest.raises(FrameError, match="unknown kind 99"):
        here.unpack(bytes(data[:5] + b"\x63" + data[6:]))


def test_a_frame_that_claims_two_gigabytes_is_refused_by_its_head() -> None:
    there, here = pair()
    data = bytearray(there.pack(Kind.STEP, b"x"))
    data[32:40] = (2**31).to_bytes(8, "big")
    with pytest.raises(FrameError, match="oversized: it claims 2,147,483,648 bytes; at most 100 are read"):
        here.unpack(bytes(data))
    with pytest.raises(FrameError, match="at most 100"):
        there.pack(Kind.STEP, b"x" * 101)


def test_a_session_is_adopted_once() -> None:
    server, client = Framing("a", 100, b"n" * 16), Framing("a", 100, NO_SESSION)
    client.open_session = True
    client.unpack(server.pack(Kind.WELCOME))
    assert client.session == b"n" * 16
    server.session = b"m" * 16
    with pytest.raises(FrameError, match="foreign"):
        client.unpack(server.pack(Kind.ANSWER))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_frame_is_refused_or_differs_in_its_payload_alone(data: st.DataObject) -> None:
    there, here = pair()
    frame = there.pack(Kind.STEP, data.draw(st.binary(max_size=40)))
    i = data.draw(st.integers(0, len(frame) - 1))
    mutated = bytearray(frame)
    mutated[i] ^= data.draw(st.integers(1, 255))
    try:
        found = here.unpack(bytes(mutated))
    except FrameError:
        return
    assert i >= 41 or i == 5  # the payload, or one kind for another
    assert found.payload == bytes(mutated[41:])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_no_record_frame_or_greeting_and_cost_no_more_than_an_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        Framing("a", 100).unpack(data)
    with pytest.raises(record.RecordError):
        record.unpack(data)


def test_a_record_carries_words_and_tensors_bit_for_bit() -> None:
    tensors = {"state/w": torch.randn(3, 4), "n": torch.tensor(7), "half": torch.ones(2, dtype=torch.float16)}
    words, found = record.unpack(record.pack({"loss": 0.1, "steps": 3}, tensors))
    assert words == {"loss": 0.1, "steps": 3}
    assert {k: t.numpy().tobytes() for k, t in found.items()} == {k: t.numpy().tobytes() for k, t in tensors.items()}
    with pytest.raises(record.RecordError):
        record.unpack(record.pack({}, tensors)[:-1])


def test_disagreements_name_each_value_of_both() -> None:
    handshake.agree("a", {"x": 1, "y": [1]}, {"x": 1, "y": [1]})
    with pytest.raises(handshake.Disagreement) as told:
        handshake.agree(
            "a", {"model.n_smashed": 4, "label set": ["x"]}, {"model.n_smashed": 8, "label set": ["x", "y"]}
        )
    assert "model.n_smashed is 4 at client a and 8 at the server" in str(told.value)
    assert 'label set is ["x"] at client a and ["x", "y"] at the server' in str(told.value)
    with pytest.raises(handshake.Disagreement, match="protocol version is nothing at client a and 1 at the server"):
        handshake.agree("a", {}, {"protocol version": 1})


@pytest.mark.parametrize("data", [b"", b"[1]", b"\xff", b"[" * 100_000])
def test_a_greeting_that_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="greeting"):
        handshake.from_bytes(data)


def test_mutations_of_a_seeded_corpus_never_crash_a_reader() -> None:
    """The short form of tests/soak/mutate_frames.py."""
    from deployment.mutations import mutate_many

    assert sum(mutate_many(2000, np.random.default_rng(0)).values()) == 2000
