"""Read a pickle that holds numbers, strings, containers and NumPy arrays, without ever running what it says.

Python's own unpickler calls whatever a file names, and even one that allows NumPy's constructors only can be told to
allocate gigabytes by a file of a hundred bytes. This is another interpreter of the format: it knows the few operations
that plain data needs, keeps strings as views into the file, and builds an array only from bytes that are there. What it
returns is at most as large as the file, and everything else is a ``ValueError``.

Source:
    CPython's Lib/pickletools.py (protocols 0 to 5); NumPy's ``ndarray.__reduce_ex__`` and ``dtype.__reduce__``.
"""

import codecs
import mmap
import re
import struct
import warnings
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

MAX_OPERATIONS = 100_000
"""A file of arrays needs a few hundred."""

SHORT = 256
"""Byte strings up to this length become ``str`` (Latin-1, as for ``encoding="latin1"``), longer ones stay bytes."""

_MARK = object()


class _Global:
    """A name that the file mentions, out of those that are allowed; it is never imported."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Unfinished:
    """An array or a type before its state is set, and where the memo has it."""

    def __init__(self, dtype: np.dtype | None) -> None:
        self.dtype = dtype  # None for an array
        self.places: list[int] = []


_RECONSTRUCT = "multiarray._reconstruct"
_FROMBUFFER = "numeric._frombuffer"
_ALLOWED = {
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "__builtin__.bytes": "bytes",  # what Python 3 writes for empty bytes in protocols 0 to 2
    **{f"numpy.{core}.{name}": name for core in ("core", "_core") for name in (_RECONSTRUCT, _FROMBUFFER)},
}


class _Refused(ValueError):
    """What the file asks for is not done here."""


def read(path: Path) -> Any:
    """Return what a pickle holds: dict, list, tuple, str, int, float, bool, None, bytes-like and NumPy arrays.

    Arrays are views into the file where they can be; they are not writable.

    Args:
        path: a pickle of any protocol, of Python 2 or 3.

    Raises:
        ValueError: the file is cut short, is no pickle, names anything but NumPy's array constructors, uses an
            operation that plain data does not need, or states sizes that its bytes do not bear out.
    """
    with path.open("rb") as file:
        try:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:  # an empty file cannot be mapped
            raise ValueError(f"{path}: the file is empty") from error
    try:
        return _Machine(data).run()
    except _Refused as error:
        raise ValueError(f"{path}: refused, {error}") from error
    except (IndexError, KeyError, TypeError, OverflowError, UnicodeError, struct.error, ValueError) as error:
        raise ValueError(f"{path}: not a pickle, or damaged ({type(error).__name__}: {error})") from error


class _Machine:
    """A stack and a memo, and one method an operation."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def run(self) -> Any:
        for _ in range(MAX_OPERATIONS):
            code = self.take(1)[0]
            if code == ord("."):
                if len(self.stack) != 1:
                    raise _Refused("its operations do not fit together")
                return self.pop()
            if code not in _OPERATIONS:
                raise _Refused(f"operation {bytes([code])!r} at byte {self.at - 1} is none that plain data needs")
            _OPERATIONS[code](self)
        raise _Refused(f"it has more than {MAX_OPERATIONS} operations")

    # --- bytes

    def take(self, n: int) -> memoryview:
        if n > len(self.data) - self.at:
            raise _Refused(
                f"the file ends after {len(self.data)} bytes, but {n} more are announced at byte {self.at}: "
                "it is cut short or lies"
            )
        self.at += n
        return self.data[self.at - n : self.at]

    def unsigned(self, n: int) -> int:
        return int.from_bytes(self.take(n), "little")

    def line(self, longest: int | None = 100) -> bytes:
        end = self.data.obj.find(b"\n", self.at)  # type: ignore[attr-defined]
        if end < 0:
            raise _Refused(f"the file ends after {len(self.data)} bytes inside a line: it is cut short")
        if longest is not None and end - self.at > longest:
            raise _Refused(f"a line of {end - self.at} bytes stands at byte {self.at} where a short one belongs")
        text = bytes(self.data[self.at : end])
        self.at = end + 1
        return text

    # --- stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise _Refused("its operations do not fit together")
        return value

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise _Refused("its operations do not fit together")

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise _Refused("its operations do not fit together")
        return self.stack[-1]

    # --- operations

    def string(self, raw: memoryview | bytes) -> None:
        self.push(bytes(raw).decode("latin1") if len(raw) <= SHORT else raw)

    def quoted(self) -> None:
        text = self.line(None)
        if len(text) < 2 or text[0] not in b"'\"" or text[-1] != text[0]:
            raise _Refused("a string without its quotes")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python only warns of an escape that means nothing
            try:
                self.string(codecs.escape_decode(text[1:-1])[0])
            except Warning as error:
                raise _Refused("a string with an escape that means nothing") from error

    def text(self, raw: memoryview, encoding: str = "utf-8") -> None:
        self.push(str(raw, encoding, "surrogatepass" if encoding == "utf-8" else "strict"))

    def integer(self) -> None:
        text = self.line().rstrip(b"L")
        if not re.fullmatch(rb"[+-]?\d{1,20}", text):
            raise _Refused(f"{text!r} is no integer")
        self.push({b"00": False, b"01": True}.get(text, int(text)))

    def long(self, n: int) -> None:
        if n > 16:
            raise _Refused(f"an integer of {n} bytes")
        self.push(int.from_bytes(self.take(n), "little", signed=True))

    def items(self, target: dict[str, Any], items: list[Any]) -> None:
        if len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
            raise _Refused("a dict with keys other than strings")
        target.update(zip(items[::2], items[1::2], strict=True))

    def set_items(self) -> None:
        items = self.since_mark()
        self.items(self.top(dict), items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.items(self.top(dict), [key, value])

    def new_dict(self) -> None:
        items = self.since_mark()
        self.push({})
        self.items(self.stack[-1], items)

    def appends(self) -> None:
        items = self.since_mark()
        self.top(list).extend(items)

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def tuple_of(self, n: int) -> None:
        items = [self.pop() for _ in range(n)]
        self.push(tuple(reversed(items)))

    def named(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in _ALLOWED:
            raise _Refused(f"it names {full!r}, which is not among what an array needs")
        self.push(_Global(_ALLOWED[full]))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise _Refused("a name that is no string")
        self.named(module, name)

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]
        if isinstance(self.stack[-1], _Unfinished):
            self.stack[-1].places.append(place)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise _Refused("it calls something that is no constructor")
        if function.name == "encode":
            self.push(self.encoded(*arguments))
        else:
            self.push(_called(function.name, arguments))

    def encoded(self, text: Any, encoding: Any) -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise _Refused("bytes in an encoding other than latin1")
        if len(text) <= SHORT:
            return text
        self.copied += len(text)
        if self.copied > len(self.data):
            raise _Refused("it asks for more bytes than it has")
        return text.encode("latin1")

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if not isinstance(target, _Unfinished):
            raise _Refused("it sets the state of something that is no array")
        built: Any = _array_of(state) if target.dtype is None else _dtype_of(target.dtype, state)
        for place in target.places:
            self.memo[place] = built
        self.push(built)


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    """Return what one of the allowed constructors would."""
    if name == _RECONSTRUCT:
        kind, shape, _ = arguments
        if not isinstance(kind, _Global) or kind.name != "ndarray" or shape != (0,):
            raise _Refused("an array that is not reconstructed as NumPy does")
        return _Unfinished(None)
    if name == "dtype":
        code = arguments[0]
        if not isinstance(code, str) or not re.fullmatch(r"[fiu][1248]|b1", code):
            raise _Refused(f"an array of type {_shown(code)}; only real numbers are read")
        return _Unfinished(np.dtype(code))
    if name == _FROMBUFFER:
        raw, dtype, shape, order = arguments
        return _built(raw, dtype, shape, order == "F")
    if name == "bytes" and not arguments:
        return ""
    raise _Refused(f"it calls {name}")


def _shown(value: Any) -> str:
    """Return a short text; the whole of a nested value could be as long as the age of the universe."""
    return repr(value[:20]) if isinstance(value, str) else f"of kind {type(value).__name__}"


def _dtype_of(dtype: np.dtype, state: Any) -> np.dtype:
    order = state[1] if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str) else None
    if order in ("|", "="):
        return dtype
    if order in ("<", ">"):
        return dtype.newbyteorder("<" if order == "<" else ">")
    raise _Refused(f"a byte order {_shown(order)}")


def _array_of(state: Any) -> np.ndarray:
    if not isinstance(state, tuple) or len(state) != 5:
        raise _Refused("an array whose state is not NumPy's")
    _, shape, dtype, fortran, raw = state
    return _built(raw, dtype, shape, bool(fortran))


def _built(raw: Any, dtype: Any, shape: Any, fortran: bool) -> np.ndarray:
    """Return an array over bytes that are there, or refuse a shape that they do not fill."""
    if isinstance(dtype, _Unfinished) and dtype.dtype is not None:
        dtype = dtype.dtype
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple) or len(shape) > 4:
        raise _Refused("an array whose type or shape is not NumPy's")
    if not all(isinstance(n, int) and 0 <= n < 2**40 for n in shape):
        raise _Refused("an array whose shape is no tuple of lengths")
    content = raw.encode("latin1") if isinstance(raw, str) and len(raw) <= SHORT else raw
    if not isinstance(content, (bytes, memoryview)):
        raise _Refused("an array whose content is not bytes")
    if prod(shape) * dtype.itemsize != len(content):
        raise _Refused(
            f"an array of shape {shape} and type {dtype} has {prod(shape) * dtype.itemsize} bytes, "
            f"but {len(content)} are there"
        )
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")


_OPERATIONS: dict[int, Callable[[_Machine], Any]] = {
    ord(code): action
    for code, action in {
        "\x80": lambda m: m.take(1),  # protocol
        "\x95": lambda m: m.take(8),  # frame
        "(": lambda m: m.push(_MARK),
        "0": lambda m: m.pop(),
        "1": lambda m: m.since_mark(),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "I": _Machine.integer,
        "L": _Machine.integer,
        "J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
        "K": lambda m: m.push(m.unsigned(1)),
        "M": lambda m: m.push(m.unsigned(2)),
        "\x8a": lambda m: m.long(m.unsigned(1)),
        "F": lambda m: m.push(float(m.line())),
        "G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        "S": _Machine.quoted,
        "U": lambda m: m.string(m.take(m.unsigned(1))),
        "T": lambda m: m.string(m.take(m.unsigned(4))),
        "C": lambda m: m.string(m.take(m.unsigned(1))),
        "B": lambda m: m.string(m.take(m.unsigned(4))),
        "\x8e": lambda m: m.string(m.take(m.unsigned(8))),
        "\x96": lambda m: m.string(m.take(m.unsigned(8))),
        "V": lambda m: m.text(memoryview(m.line(None)), "raw-unicode-escape"),
        "X": lambda m: m.text(m.take(m.unsigned(4))),
        "\x8c": lambda m: m.text(m.take(m.unsigned(1))),
        "\x8d": lambda m: m.text(m.take(m.unsigned(8))),
        "]": lambda m: m.push([]),
        "l": lambda m: m.push(m.since_mark()),
        "a": _Machine.append,
        "e": _Machine.appends,
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m.since_mark())),
        "\x85": lambda m: m.tuple_of(1),
        "\x86": lambda m: m.tuple_of(2),
        "\x87": lambda m: m.tuple_of(3),
        "}": lambda m: m.push({}),
        "d": _Machine.new_dict,
        "s": _Machine.set_item,
        "u": _Machine.set_items,
        "p": lambda m: m.put(int(m.line())),
        "q": lambda m: m.put(m.unsigned(1)),
        "r": lambda m: m.put(m.unsigned(4)),
        "\x94": lambda m: m.put(len(m.memo)),
        "g": lambda m: m.push(m.memo[int(m.line())]),
        "h": lambda m: m.push(m.memo[m.unsigned(1)]),
        "j": lambda m: m.push(m.memo[m.unsigned(4)]),
        "c": lambda m: m.named(m.line().decode("ascii"), m.line().decode("ascii")),
        "\x93": _Machine.stack_global,
        "R": _Machine.reduce,
        "b": _Machine.build,
    }.items()
}
