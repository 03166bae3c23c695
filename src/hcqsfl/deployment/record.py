"""Words and tensors as bytes: what the fed server and a client hand each other, never pickled.

A record is a safetensors file in memory, with one JSON object in its header.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

MAX_HEADER_BYTES = 2**22
_ENTRY = "hcqsfl"


class RecordError(ValueError):
    """Bytes that are no record."""


def pack(words: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """Return words (anything JSON can hold) and tensors as bytes."""
    held = {name: tensor.detach().contiguous() for name, tensor in (tensors or {}).items()}
    data: bytes = safetensors.torch.save(held, {_ENTRY: json.dumps(dict(words))})
    return data


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a record, trusting nothing in it.

    Raises:
        RecordError: the bytes are no record.
    """
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else -1
    if not 0 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise RecordError(f"the {len(data):,} bytes are no record")
    try:
        words = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_ENTRY])
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise RecordError(f"the {len(data):,} bytes are no record: {error}") from None
    if not isinstance(words, dict):
        raise RecordError(f"the {len(data):,} bytes are no record: its words are no object")
    return words, tensors


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``prefix``, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
