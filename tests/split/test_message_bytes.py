"""A message is the safetensors file that the library itself would write."""

import json
import struct

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcqsfl.split import Message, ProtocolError, decode, encode

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]
SHAPES = st.lists(st.integers(0, 4), max_size=3)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda name: name != "__metadata__")
TEXTS = st.text(max_size=10)


def by_library(message: Message) -> bytes:
    words = {
        "v": 1,
        "kind": message.kind,
        "client": message.client,
        "round": message.round,
        "step": message.step,
        "codec": message.codec,
        "text": message.text,
    }
    tensors = {name: tensor.contiguous() for name, tensor in message.tensors.items()}
    data: bytes = safetensors.torch.save(tensors, {"hcqsfl": json.dumps(words)})
    return data


@given(st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=4), TEXTS, TEXTS)
def test_a_message_is_the_librarys_bytes(kinds, client, text) -> None:
    tensors = {name: (torch.rand(shape) * 100).to(dtype) for name, (shape, dtype) in kinds.items()}
    message = Message("train", client, 3, 7, tensors, text)
    assert encode(message) == by_library(message)


def test_a_transposed_and_a_differentiable_tensor_are_written_in_order() -> None:
    tensors = {"smashed": torch.arange(6.0).reshape(2, 3).t(), "features": torch.ones(2, requires_grad=True) * 3}
    message = Message("forward", "a", tensors={name: t.detach() for name, t in tensors.items()})
    assert encode(Message("forward", "a", tensors=tensors)) == by_library(message)


def test_a_type_that_no_message_carries_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"a message carries no torch\.complex64, which smashed is"):
        encode(Message("forward", "a", tensors={"smashed": torch.ones(2, dtype=torch.complex64)}))


@given(st.data())
def test_what_is_read_is_what_the_library_reads(data) -> None:
    raw = bytearray(encode(Message("train", "a", 3, 7, {"smashed": torch.ones(2, 3), "labels": torch.arange(2)})))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(
            st.sampled_from(b'0123456789"{}[],: \\ntF') | st.integers(0, 255)
        )
    try:
        message = decode(bytes(raw))
    except ProtocolError:
        return
    tensors = safetensors.torch.load(bytes(raw))  # what this end accepts, the library accepts
    assert message.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert message.tensors[name].dtype == tensor.dtype
        assert message.tensors[name].shape == tensor.shape
        assert message.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()


COUNTED = r'"round": 5, "step": 6, '


@given(
    st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1), st.sampled_from(["", "a", COUNTED, COUNTED + '"x"']), TEXTS
)
def test_a_header_read_before_is_read_again_whatever_its_counts(number, step, client, text) -> None:
    for _ in range(2):
        back = decode(encode(Message("error", client, number, step, text=text)))
        assert (back.client, back.round, back.step, back.text) == (client, number, step, text)


def test_counts_that_stand_twice_in_a_header_are_the_last_as_json_has_it() -> None:
    raw = encode(Message("error", "a", 3, 7, text="x"))
    for first in (8, 9):
        twice = raw[8:].rstrip().replace(rb"\"round\": 3", rb"\"round\": %d, \"step\": 1, \"round\": 3" % first)
        message = decode(struct.pack("<Q", len(twice)) + twice)
        assert (message.round, message.step) == (3, 7)
