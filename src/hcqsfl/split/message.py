"""What crosses the cut: one typed message, as bytes.

A message is a safetensors file in memory: eight bytes of header length, a JSON header that holds the shapes, the types
and a few words of metadata, then the raw numbers. Nothing in it can run code, and reading it allocates no more than it
weighs.

Source: https://huggingface.co/docs/safetensors (format).
"""

import json
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hcqsfl.split.codecs import decoder

PROTOCOL_VERSION = 1
MAX_BYTES = 64 * 2**20
"""Largest message that is read, unless the reader says otherwise: 64 MiB."""
MAX_HEADER_BYTES = 2**16

KINDS = ("forward", "features", "backward", "gradient", "evaluate", "train", "part", "accepted", "fetch", "error")
"""forward -> features, backward -> gradient, evaluate -> features, train (with labels) -> gradient; vertically also
part -> accepted and fetch -> gradient; any -> error."""

_ENTRY = "hcqsfl"
_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""What a message can carry, by the names of the format, in the reverse of the order in which it lays tensors down."""
_RANKS = {dtype: -rank for rank, dtype in enumerate(_DTYPES)}
_WORDS: dict[str, type] = {"v": int, "kind": str, "client": str, "round": int, "step": int, "codec": str, "text": str}
PLAIN = "none"
CODED = ("smashed", "features", "gradient")
"""What a codec may make smaller; labels and losses travel as they are."""


class ProtocolError(ValueError):
    """Bytes that are no message, or a message that does not belong here."""


@dataclass(frozen=True, eq=False)
class Message:
    """One message across the cut.

    Attributes:
        kind: one of ``KINDS``.
        client: who sends it, or for whom the answer is.
        round, step: where in the training it belongs; a step is counted by the client.
        tensors: what it carries: ``smashed``, ``features``, ``gradient``, ``labels``, ``loss``; the first three as
            the codec made them.
        codec: name of the codec.
        text: what went wrong, in an ``error``; which party, in a ``part`` or ``fetch``.
    """

    kind: str
    client: str
    round: int = 0
    step: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    text: str = ""
    codec: str = PLAIN

    def tensor(self, name: str) -> Tensor:
        """Return the tensor called ``name``, decoded.

        Raises:
            ProtocolError: the message does not carry it, or not as its codec would.
        """
        if name not in self.tensors:
            held = ", ".join(sorted(self.tensors)) or "none"
            raise ProtocolError(f"the {self.kind} message of client {self.client} lacks {name!r}; it holds: {held}")
        if self.codec == PLAIN or name not in CODED:
            return self.tensors[name]
        try:
            return decoder(self.codec).decode(name, self.tensors)
        except ValueError as error:
            raise ProtocolError(f"the {self.kind} message of client {self.client} cannot be decoded: {error}") from None


def encode(message: Message) -> bytes:
    """Return the message as bytes.

    They are those of ``safetensors.torch.save``, written here because its checks of each tensor cost several times what
    a message of this size costs.

    Raises:
        ValueError: a tensor is of a type that no message carries.
    """
    words = {
        "v": PROTOCOL_VERSION,
        "kind": message.kind,
        "client": message.client,
        "round": message.round,
        "step": message.step,
        "codec": message.codec,
        "text": message.text,
    }
    # one entry, since the library writes several in no certain order, and the same message is to be the same bytes
    header = [f'{{"__metadata__":{{"{_ENTRY}":{json.dumps(json.dumps(words))}}}']
    chunks = []
    end = 0
    for name, tensor in _laid_down(message.tensors):
        chunk = _raw(tensor)
        start, end = end, end + len(chunk)
        shape = ",".join(map(str, tensor.shape))
        header.append(
            f'{json.dumps(name, ensure_ascii=False)}:{{"dtype":"{_DTYPES[tensor.dtype]}","shape":[{shape}],'
            f'"data_offsets":[{start},{end}]}}'
        )
        chunks.append(chunk)
    text = (",".join(header) + "}").encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *chunks])


def _laid_down(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"a message carries no {tensor.dtype}, which {name} is; convert it first")
    if len(tensors) == 1:
        return list(tensors.items())
    return sorted(tensors.items(), key=lambda item: (_RANKS[item[1].dtype], item[0].encode()))


def _raw(tensor: Tensor) -> bytes:
    plain = tensor.detach()
    array = (plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).cpu().numpy()
    if sys.byteorder == "big":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


def decode(data: bytes, max_bytes: int = MAX_BYTES) -> Message:
    """Read a message, trusting nothing in it.

    Raises:
        ProtocolError: the bytes are too many, truncated, of another protocol version, or no message.
    """
    if len(data) > max_bytes:
        raise ProtocolError(f"a message of {len(data):,} bytes came; at most {max_bytes:,} are read")
    metadata = _metadata(data)
    if metadata["v"] != PROTOCOL_VERSION:
        raise ProtocolError(f"a message of protocol version {metadata['v']} came; this end speaks {PROTOCOL_VERSION}")
    if metadata["kind"] not in KINDS:
        raise ProtocolError(f"a message of unknown kind {metadata['kind']!r} came; known: {', '.join(KINDS)}")
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ProtocolError(f"the tensors of a {metadata['kind']} message cannot be read: {error}") from None
    return Message(
        kind=metadata["kind"],
        client=metadata["client"],
        round=metadata["round"],
        step=metadata["step"],
        tensors=tensors,
        text=metadata["text"],
        codec=metadata["codec"],
    )


def _metadata(data: bytes) -> dict[str, Any]:
    if len(data) < 8:
        raise ProtocolError(f"{len(data)} bytes came, too few for a message")
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ProtocolError(f"a message's header claims {length:,} bytes; {len(data) - 8:,} follow")
    try:
        header: Any = json.loads(data[8 : 8 + length])
        words: Any = json.loads(header["__metadata__"][_ENTRY])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ProtocolError("the header of a message lacks its metadata") from None
    if not isinstance(words, dict) or words.keys() != _WORDS.keys():
        raise ProtocolError("the metadata of a message are not those of this protocol")
    for name, kind in _WORDS.items():
        value = words[name]
        out_of_range = isinstance(value, int) and not 0 <= value < 2**53
        if out_of_range or type(value) is not kind:
            raise ProtocolError(f"the {name} of a message is {str(value)[:20]!r}")
    return words
