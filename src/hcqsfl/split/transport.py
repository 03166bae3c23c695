"""A transport is a function from bytes to bytes; wearing another coat, it meters, records, delays or loses."""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

Transport = Callable[[bytes], bytes]

_FRAME = struct.Struct("<BQ")  # 0 up or 1 down, length
UP, DOWN = 0, 1


class Metered:
    """A transport that counts what it carries, as serialised.

    Attributes:
        bytes_up, bytes_down: bytes sent to the server and received from it.
        messages: number of requests.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.bytes_up = self.bytes_down = self.messages = 0

    def __call__(self, request: bytes) -> bytes:
        """Carry a request there and its answer back."""
        self.bytes_up += len(request)
        self.messages += 1
        answer = self.transport(request)
        self.bytes_down += len(answer)
        return answer

    def read(self) -> Counter[str]:
        """Return the counters, and set them to zero."""
        counts = Counter(bytes_up=self.bytes_up, bytes_down=self.bytes_down, messages=self.messages)
        self.bytes_up = self.bytes_down = self.messages = 0
        return counts


class Tap:
    """A transport that writes every message it carries to a file: what an eavesdropper at the cut sees."""

    def __init__(self, transport: Transport, file: BinaryIO) -> None:
        self.transport = transport
        self.file = file

    def __call__(self, request: bytes) -> bytes:
        """Carry a request there and its answer back, and keep a copy of both."""
        self._keep(UP, request)
        answer = self.transport(request)
        self._keep(DOWN, answer)
        return answer

    def _keep(self, direction: int, data: bytes) -> None:
        self.file.write(_FRAME.pack(direction, len(data)))
        self.file.write(data)


def read_tap(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield ``(UP or DOWN, bytes)`` for each message that a ``Tap`` wrote, in order.

    Raises:
        ValueError: the file ends inside a message (the run was killed there); all before it has been yielded.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while head := file.read(_FRAME.size):
            if len(head) < _FRAME.size:
                raise ValueError(f"{path} ends inside the head of a message")
            direction, length = _FRAME.unpack(head)
            if length > size - file.tell():
                raise ValueError(f"{path} ends inside a message of {length:,} bytes")
            yield direction, file.read(length)
