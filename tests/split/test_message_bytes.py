"""A message is the safetensors file that the library itself would write."""

import json

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcqsfl.split import Message, encode

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
