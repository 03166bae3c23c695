"""What travels on a stream: a short head that says who sent it, in which session, as the how-manieth, then bytes.

========  =====  =======================================================
offset    bytes  what
========  =====  =======================================================
0         4      ``HCQF``
4         1      version of the frame
5         1      kind
6         1      length of the client's name
7         1      zero
8         16     session, drawn by the server
24        8      sequence: 1 for the first frame of a direction
32        8      length of what follows the name
40        ...    the client's name, UTF-8, then the payload
========  =====  =======================================================

Everything in the head is checked before the payload is looked at, let alone decoded.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum

FRAME_VERSION = 1
MAX_NAME_BYTES = 64
NO_SESSION = bytes(16)

_HEAD = struct.Struct("!4sBBBB16sQQ")
_MAGIC = b"HCQF"
OVERHEAD = _HEAD.size + MAX_NAME_BYTES
"""Bytes that a frame may weigh beside its payload."""


class Kind(IntEnum):
    """What a frame is for.

    hello -> welcome or refused opens every stream. On a stream of steps, step -> answer; on a stream of turns,
    task -> result or failed; beat says that the server is there, bye that the federation is over.
    """

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    STEP = 4
    ANSWER = 5
    TASK = 6
    RESULT = 7
    FAILED = 8
    BEAT = 9
    BYE = 10


class FrameError(ValueError):
    """Bytes that are no frame, or a frame that does not belong here."""


@dataclass(frozen=True)
class Frame:
    """One frame, its head checked.

    Attributes:
        kind: what it is for.
        payload: what it carries.
    """

    kind: Kind
    payload: bytes


@dataclass(eq=False)
class Framing:
    """One end of a stream: numbers the frames that it sends, and holds those that come against what must come.

    Attributes:
        client: whose stream it is.
        max_bytes: largest payload that is read.
        session: of the stream; all zero until the server has welcomed the client.
        open_session: whether the next frame says which session it is, as the server's welcome does.
        sent, received: frames so far.
    """

    client: str
    max_bytes: int
    session: bytes = NO_SESSION
    open_session: bool = False
    sent: int = 0
    received: int = 0
    _name: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._name = self.client.encode()
        if not 1 <= len(self._name) <= MAX_NAME_BYTES:
            raise ValueError(f"the client's name {self.client!r} takes {len(self._name)} bytes; 1 to 64 are possible")

    def pack(self, kind: Kind, payload: bytes = b"") -> bytes:
        """Return the next frame to send.

        Raises:
            FrameError: the payload is larger than the other end reads.
        """
        if len(payload) > self.max_bytes:
            raise FrameError(f"a payload of {len(payload):,} bytes was to be sent; at most {self.max_bytes:,} are read")
        self.sent += 1
        name = self._name
        head = _HEAD.pack(_MAGIC, FRAME_VERSION, kind, len(name), 0, self.session, self.sent, len(payload))
        return b"".join((head, name, payload))

    def unpack(self, data: bytes) -> Frame:
        """Return the next frame, checked against what must come.

        Raises:
            FrameError: it is malformed, oversized, foreign, replayed or out of order; the message says which, and
                what was expected.
        """
        if len(data) < _HEAD.size:
            raise FrameError(f"malformed: {len(data)} bytes came, fewer than the {_HEAD.size} of a head")
        magic, version, kind, name_length, zero, session, sequence, length = _HEAD.unpack_from(data)
        if magic != _MAGIC or zero:
            raise FrameError("malformed: the bytes do not start as a frame")
        if version != FRAME_VERSION:
            raise FrameError(f"of version {version}; this end speaks version {FRAME_VERSION}")
        if length > self.max_bytes:
            raise FrameError(f"oversized: it claims {length:,} bytes; at most {self.max_bytes:,} are read")
        start = _HEAD.size + name_length
        if length != len(data) - start:
            raise FrameError(f"malformed: it claims {length:,} bytes, but {max(len(data) - start, 0):,} follow")
        if session != self.session and not self.open_session:
            raise FrameError(f"foreign: of session {session.hex()[:8]}, not {self.session.hex()[:8]}")
        if data[_HEAD.size : start] != self._name:
            other = data[_HEAD.size : start].decode(errors="replace")
            raise FrameError(f"foreign: it speaks for client {other!r} on the stream of client {self.client!r}")
        if sequence != self.received + 1:
            which = "replayed" if sequence <= self.received else "out of order"
            raise FrameError(f"{which}: it is number {sequence}, but number {self.received + 1} was to come")
        try:
            known = Kind(kind)
        except ValueError:
            raise FrameError(f"of the unknown kind {kind}") from None
        self.received += 1
        self.session, self.open_session = session, False
        return Frame(known, data[start:])


def sender(data: bytes) -> str:
    """Return whom the head of a first frame names, checking no more than that it is one.

    Raises:
        FrameError: it is not.
    """
    if len(data) < _HEAD.size or data[:4] != _MAGIC or len(data) < _HEAD.size + data[6] or not data[6]:
        raise FrameError("malformed: the bytes do not start as a frame")
    try:
        return data[_HEAD.size : _HEAD.size + data[6]].decode()
    except UnicodeDecodeError:
        raise FrameError("malformed: the client's name is not UTF-8") from None
