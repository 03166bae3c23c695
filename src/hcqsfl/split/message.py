"""What crosses the cut: one typed message, as bytes.

A message is a safetensors file in memory: eight bytes of header length, a JSON header that holds the shapes, the types
and a few words of metadata, then the raw numbers. Nothing in it can run code, and reading it allocates no more than it
weighs.

Source: https://huggingface.co/docs/safetensors (format).
"""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hcqsfl.split.codecs import decoder

PROTOCOL_VERSION = 1
MAX_BYTES = 64 * 2**20
"""Largest message that is read, unless the reader says otherwise: 64 MiB."""
MAX_HEADER_BYTES = 2**16
MAX_KNOWN_BYTES = 2**10
"""Largest header that is remembered."""

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
_TYPES = {name: dtype for dtype, name in _DTYPES.items()}
_ARRAYS: dict[torch.dtype, np.dtype[Any]] = (
    {torch.float32: np.dtype("f4"), torch.float64: np.dtype("f8"), torch.int64: np.dtype("i8")}
    if sys.byteorder == "little"
    else {}
)
"""What NumPy reads as it stands."""
_RANKS = {dtype: -rank for rank, dtype in enumerate(_DTYPES)}
_WORDS: dict[str, type] = {"v": int, "kind": str, "client": str, "round": int, "step": int, "codec": str, "text": str}
_LENGTH_BYTES = 8
_COUNTED = rb"%b\"round\": %d, \"step\": %d, %b"
_COUNTS = re.compile(rb'\\"round\\": (0|[1-9][0-9]{0,14}), \\"step\\": (0|[1-9][0-9]{0,14}), ')
PLAIN = "none"
CODED = ("smashed", "features", "gradient")
"""What a codec may make smaller; labels and losses travel as they are."""


class ProtocolError(ValueError):
    """Bytes that are no message, or a message that does not belong here."""


@dataclass(slots=True, eq=False)
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
    tensors = message.tensors
    if len(tensors) > 1:
        tensors = _laid_down(tensors)
    described = tuple([(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()])
    before, after = _header(message.kind, message.client, message.codec, message.text, described)
    text = _COUNTED % (before, message.round, message.step, after)
    length = (len(text) + 7) // 8 * 8
    raw = [_raw(tensor) for tensor in tensors.values()]
    return b"".join([length.to_bytes(_LENGTH_BYTES, "little"), text.ljust(length), *raw])


def _laid_down(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if all(tensor.dtype in _RANKS for tensor in tensors.values()):
        return dict(sorted(tensors.items(), key=lambda item: (_RANKS[item[1].dtype], item[0].encode())))
    return tensors


# from one step to the next nothing but two counts changes in a header: all else is written and read once


@lru_cache(maxsize=1024)
def _header(
    kind: str, client: str, codec: str, text: str, tensors: tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]
) -> tuple[bytes, bytes]:
    """Return what stands in a header before the counts of round and step, and after them."""
    # one entry, since the library writes several in no certain order, and the same message is to be the same bytes
    before = json.dumps(json.dumps({"v": PROTOCOL_VERSION, "kind": kind, "client": client}))[:-2]
    after = [json.dumps(json.dumps({"codec": codec, "text": text}))[2:] + "}"]
    end = 0
    for name, dtype, shape in tensors:
        if dtype not in _DTYPES:
            raise ValueError(f"a message carries no {dtype}, which {name} is; convert it first")
        start, end = end, end + math.prod(shape) * dtype.itemsize
        sizes = ",".join(map(str, shape))
        entry = f'{{"dtype":"{_DTYPES[dtype]}","shape":[{sizes}],"data_offsets":[{start},{end}]}}'
        after.append(f"{json.dumps(name, ensure_ascii=False)}:{entry}")
    return f'{{"__metadata__":{{"{_ENTRY}":{before}, '.encode(), (",".join(after) + "}").encode()


def _raw(tensor: Tensor) -> bytes:
    if tensor.dtype in _ARRAYS and tensor.is_cpu and not tensor.requires_grad:
        array: np.ndarray = tensor.numpy()  # to force it costs a few operations more
    else:
        plain = tensor.detach().view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        array = plain.numpy(force=True)
        if sys.byteorder == "big":
            array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


@dataclass(frozen=True)
class _Header:
    """What a header says.

    Attributes:
        words: kind, client, codec and text.
        counts: round and step.
        places: name, type, shape, first byte and end of each tensor.
        n_bytes: that follow the header.
    """

    words: tuple[str, str, str, str]
    counts: tuple[int, int]
    places: tuple[tuple[str, torch.dtype, tuple[int, ...], int, int], ...]
    n_bytes: int


def decode(data: bytes, max_bytes: int = MAX_BYTES) -> Message:
    """Read a message, trusting nothing in it.

    Raises:
        ProtocolError: the bytes are too many, truncated, of another protocol version, or no message.
    """
    if len(data) > max_bytes:
        raise ProtocolError(f"a message of {len(data):,} bytes came; at most {max_bytes:,} are read")
    first = _end_of_header(data)
    header, number, step = _read(data[_LENGTH_BYTES:first])
    kind, client, codec, text = header.words
    view = memoryview(data)[first:]
    if header.n_bytes != len(view):
        raise ProtocolError(f"the tensors of a {kind} message take {header.n_bytes:,} bytes; {len(view):,} came")
    tensors = {name: _tensor(view[start:end], dtype, shape) for name, dtype, shape, start, end in header.places}
    return Message(kind, client, number, step, tensors, text, codec)


def sender(data: bytes) -> str:
    """Return whom a message says it is from, reading its header alone.

    Raises:
        ProtocolError: the bytes are no message.
    """
    return _read(data[_LENGTH_BYTES : _end_of_header(data)])[0].words[1]


def _end_of_header(data: bytes) -> int:
    if len(data) < _LENGTH_BYTES:
        raise ProtocolError(f"{len(data)} bytes came, too few for a message")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - _LENGTH_BYTES):
        raise ProtocolError(f"a message's header claims {length:,} bytes; {len(data) - _LENGTH_BYTES:,} follow")
    end: int = _LENGTH_BYTES + length
    return end


def _read(text: bytes) -> tuple[_Header, int, int]:
    """Return a header, and its counts of round and step."""
    counts = _COUNTS.search(text) if len(text) <= MAX_KNOWN_BYTES else None
    known = _known(text[: counts.start()], text[counts.end() :]) if counts else None
    if counts and known:
        return known, int(counts[1]), int(counts[2])
    header = _parse(text)
    return header, *header.counts


@lru_cache(maxsize=1024)
def _known(before: bytes, after: bytes) -> _Header | None:
    """Return what a header says beside its counts, or ``None`` where those are not what they seem to be.

    Raises:
        ProtocolError: as ``_parse``.
    """
    for number, step in ((0, 0), (1, 2)):
        header = _parse(_COUNTED % (before, number, step, after))
        if header.counts != (number, step):
            return None
    return header


def _parse(text: bytes) -> _Header:
    try:
        header: Any = json.loads(text.decode())
        words: Any = json.loads(header.pop("__metadata__")[_ENTRY])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ProtocolError("the header of a message lacks its metadata") from None
    if not isinstance(words, dict) or words.keys() != _WORDS.keys():
        raise ProtocolError("the metadata of a message are not those of this protocol")
    for name, kind in _WORDS.items():
        value = words[name]
        out_of_range = isinstance(value, int) and not 0 <= value < 2**53
        if out_of_range or type(value) is not kind:
            raise ProtocolError(f"the {name} of a message is {str(value)[:20]!r}")
    if words["v"] != PROTOCOL_VERSION:
        raise ProtocolError(f"a message of protocol version {words['v']} came; this end speaks {PROTOCOL_VERSION}")
    if words["kind"] not in KINDS:
        raise ProtocolError(f"a message of unknown kind {words['kind']!r} came; known: {', '.join(KINDS)}")
    try:
        places = sorted((_place(name, entry) for name, entry in header.items()), key=lambda place: place[3:])
    except (ValueError, TypeError, KeyError):
        raise ProtocolError(f"the tensors of a {words['kind']} message cannot be read") from None
    end = 0
    for name, _, _, start, stop in places:
        if start != end:
            raise ProtocolError(
                f"the tensor {name[:20]!r} of a {words['kind']} message starts at {start}, not at {end}"
            )
        end = stop
    said = (words["kind"], words["client"], words["codec"], words["text"])
    return _Header(said, (words["round"], words["step"]), tuple(places), end)


def _place(name: str, entry: Any) -> tuple[str, torch.dtype, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("no entry of a tensor")
    dtype, shape, (start, end) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, start, end)):
        raise ValueError("no shape or place")
    if math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError("shape and place differ")
    return name, dtype, tuple(shape), start, end


def _tensor(raw: memoryview, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    try:
        if not raw:
            return torch.empty(shape, dtype=dtype)
        known = _ARRAYS.get(dtype)
        if known is not None:  # by way of NumPy, which shapes what it reads at a fraction of the cost of a view
            return torch.from_numpy(np.ndarray(shape, known, bytearray(raw)))
        array = np.frombuffer(raw, f"<i{dtype.itemsize}").astype(f"=i{dtype.itemsize}")
        return torch.from_numpy(array).view(dtype).view(shape)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a tensor of a message cannot have the shape it claims: {error}") from None
