import contextlib
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcqsfl.split import Message, ProtocolError, decode, encode
from hcqsfl.split.message import KINDS

names = st.text(max_size=20)
counts = st.integers(0, 10**9)
shapes = st.lists(st.integers(0, 5), min_size=1, max_size=3)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8])


def sample() -> bytes:
    return encode(Message("forward", "client-1", 3, 7, {"smashed": torch.ones(4, 2)}))


@given(st.sampled_from(KINDS), names, counts, counts, shapes, dtypes, names)
def test_a_message_comes_back_as_it_went(kind, client, number, step, shape, dtype, text) -> None:
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
    back = decode(encode(Message(kind, client, number, step, {"smashed": tensor}, text)))
    assert (back.kind, back.client, back.round, back.step, back.text) == (kind, client, number, step, text)
    assert back.tensor("smashed").dtype == dtype
    assert torch.equal(back.tensor("smashed"), tensor)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


@given(st.data())
def test_a_mutated_message_is_read_or_refused_and_nothing_else(data) -> None:
    raw = bytearray(sample())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode(bytes(raw))


@given(st.integers(0, 1000))
def test_a_truncated_message_is_refused(length: int) -> None:
    raw = sample()
    if length < len(raw):
        with pytest.raises(ProtocolError):
            decode(raw[:length])


def test_the_same_message_is_the_same_bytes_in_another_process() -> None:
    script = "import torch; from hcqsfl.split import *; import sys; "
    script += "m = Message('forward', 'client-1', 3, 7, {'smashed': torch.ones(4, 2), 'labels': torch.zeros(4)}); "
    script += "sys.stdout.write(encode(m).hex())"
    first, second = (
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in range(2)
    )
    assert first == second


def test_a_header_that_claims_gigabytes_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ProtocolError, match="claims 4,611,686,018,427,387,904 bytes"):
        decode(struct.pack("<Q", 2**62) + b"{}")


def test_a_message_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="at most 100 are read"):
        decode(sample(), max_bytes=100)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b'\\"v\\": 1', b'\\"v\\": 9', "protocol version 9 came; this end speaks 1"),
        (b"forward", b"forwurd", "unknown kind 'forwurd'"),
        (b'\\"round\\": 3', b'\\"round\\":-3', "the round of a message is '-3'"),
        (b'\\"step\\": 7', b'\\"stop\\": 7', "not those of this protocol"),
    ],
)
def test_a_wrong_word_in_the_header_is_named(before: bytes, after: bytes, message: str) -> None:
    assert before in sample()
    with pytest.raises(ProtocolError, match=message):
        decode(sample().replace(before, after))


def test_a_tensor_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ProtocolError, match="lacks 'gradient'; it holds: smashed"):
        decode(sample()).tensor("gradient")
