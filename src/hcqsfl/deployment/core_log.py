"""Handshakes that failed, as gRPC's C core tells of them: on standard error alone, and to no Python callback.

``tapped`` puts a pipe in the place of the process's standard error, reads there what the core says of handshakes, and
passes everything else on; Python's own ``sys.stderr`` keeps to the real one. ``listening`` says who is to be told.

Source: gRPC, doc/environment_variables.md (``GRPC_VERBOSITY``, ``GRPC_TRACE``).
"""

import importlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[str, str], None]
"""Called with the peer's address and why its handshake failed."""

_ASKED = {"GRPC_VERBOSITY": "INFO", "GRPC_TRACE": "handshaker"}
_STDERR = 2
_LINE = re.compile(rb"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.]+:\d+\] ")
_REST = (b"=== Source Location Trace", b"src/core/", b" shutdown=")
_FAILED = re.compile(rb"CallNextHandshakerLocked: error=(?!OK)([^\n]*)")
_PEER = re.compile(rb"endpoint_peer_address=(?:ipv[46]:)?([^,}]+)")
_REASONS = (  # words of BoringSSL, and what they mean to who reads the log
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "it shows no certificate"),
    ("certificate signature failure", "its certificate was not issued by this federation's authority"),
    ("unable to get local issuer", "its certificate was not issued by this federation's authority"),
    ("self signed certificate", "its certificate was not issued by this federation's authority"),
    ("WRONG_VERSION_NUMBER", "it speaks no TLS"),
    ("HTTP_REQUEST", "it speaks no TLS"),
    ("ALERT", "it does not accept this server's certificate, or broke off"),
    ("Socket closed", "it closed the connection in the middle"),
)


_readers: list["Reader"] = []
"""Of this process's standard error, while it is tapped."""


@contextmanager
def tapped() -> Iterator[None]:
    """Read what the core says of handshakes inside the block.

    It reads its environment when grpc is first imported, so this must come before. Where somebody has asked the core
    for something else already, nothing is done.
    """
    if "grpc" in sys.modules or any(name in os.environ for name in _ASKED):
        yield
        return
    os.environ.update(_ASKED)
    sys.stderr.flush()
    kept, python = os.dup(_STDERR), sys.stderr
    reading, writing = os.pipe()
    os.dup2(writing, _STDERR)
    os.close(writing)
    sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    _readers.append(Reader())
    thread = threading.Thread(target=_read, args=(reading, kept, _readers[-1]), name="core log", daemon=True)
    thread.start()
    try:
        importlib.import_module("grpc")
        yield
    finally:
        _readers.pop()
        own, sys.stderr = sys.stderr, python
        own.close()
        os.dup2(kept, _STDERR)  # the pipe has lost its last writer, so the reader ends
        thread.join(timeout=5)
        os.close(kept)


@contextmanager
def listening(tell: Tell) -> Iterator[None]:
    """Call ``tell`` for each handshake that fails inside the block; where nothing is tapped, do nothing."""
    for reader in _readers:
        reader.tell = tell
    try:
        yield
    finally:
        for reader in _readers:
            reader.tell = _nobody


def _read(reading: int, kept: int, reader: "Reader") -> None:
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if not reader.take(line):
                os.write(kept, line)


def _nobody(peer: str, why: str) -> None:
    pass


class Reader:
    """Takes lines of standard error, and knows those of the core.

    Args:
        tell: called for each failed handshake.
    """

    def __init__(self, tell: Tell = _nobody) -> None:
        self.tell = tell
        self._ours = False
        self._failed = ""

    def take(self, line: bytes) -> bool:
        """Return whether a line was one of those that were asked for; if not, it is somebody else's."""
        head = _LINE.match(line)
        if head is not None:
            self._ours = head[1] == b"I" or b"not suitable for production" in line
            self._failed = ""
        elif not (line.startswith(_REST) or not line.strip()):
            self._ours = False
        if not self._ours:
            return False
        if failed := _FAILED.search(line):
            self._failed = failed[1].decode(errors="replace").partition("shutdown=")[0].strip()
        if self._failed and (peer := _PEER.search(line)):
            self.tell(peer[1].decode(errors="replace"), reason(self._failed))
            self._failed = ""
        return True


def reason(words: str) -> str:
    """Return why a handshake failed, in plain words and in the core's."""
    plain = next((plain for known, plain in _REASONS if known in words), "")
    core = words.rpartition("OPENSSL_internal:")[2].removesuffix(": OK")[:200]
    return f"{plain} ({core})" if plain else core
