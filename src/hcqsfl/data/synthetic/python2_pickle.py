"""Write what Python 2's ``cPickle`` would have written for nested dicts of arrays: protocol 2, byte strings.

The official WESAD files are of that kind, and Python 3's pickler cannot produce it: it stores bytes and array contents
in another way, which would leave a reader's handling of the official files untested.
"""

import struct
from collections.abc import Mapping
from typing import BinaryIO, TypeAlias

import numpy as np

Tree: TypeAlias = "str | np.ndarray | Mapping[str, Tree]"

_CODES = {np.dtype("<f8"): b"f8", np.dtype("<f4"): b"f4", np.dtype("<i4"): b"i4"}


def dump(tree: Tree, file: BinaryIO) -> None:
    """Write ``tree`` to ``file``; ``pickle.load(file, encoding="latin1")`` reads it back.

    Args:
        tree: an ASCII string, an array of little-endian float64, float32 or int32, or a dict of those by name.
        file: open for writing in binary.

    Raises:
        ValueError: an array is of another type, or larger than the format's 2 GiB.

    Source:
        CPython's Lib/pickletools.py, protocol 2; NumPy's ``ndarray.__reduce__`` and ``__setstate__``.
    """
    file.write(b"\x80\x02")
    _put(tree, file)
    file.write(b".")


def _put(tree: Tree, file: BinaryIO) -> None:
    if isinstance(tree, str):
        text = tree.encode("ascii")
        file.write(b"U" + bytes([len(text)]) + text)  # SHORT_BINSTRING
    elif isinstance(tree, np.ndarray):
        _put_array(np.ascontiguousarray(tree), file)
    else:
        file.write(b"}(")  # EMPTY_DICT MARK
        for key, value in tree.items():
            _put(key, file)
            _put(value, file)
        file.write(b"u")  # SETITEMS


def _integer(value: int) -> bytes:
    return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)


def _put_array(array: np.ndarray, file: BinaryIO) -> None:
    if array.dtype not in _CODES:
        raise ValueError(f"a Python 2 pickle here holds float64, float32 or int32 arrays, not {array.dtype}")
    if array.nbytes >= 2**31:
        raise ValueError(f"a Python 2 byte string holds less than 2 GiB, and this array has {array.nbytes} bytes")
    shape = b"(" + b"".join(_integer(n) for n in array.shape) + b"t"
    # _reconstruct(ndarray, (0,), "b"), then BUILD with (version, shape, dtype, is_fortran, contents)
    file.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape)
    file.write(b"cnumpy\ndtype\nU\x02" + _CODES[array.dtype] + b"K\x00K\x01\x87R(K\x03U\x01<NNN")
    file.write(_integer(-1) * 2 + b"K\x00tb\x89T" + struct.pack("<I", array.nbytes))
    file.write(array.data)
    file.write(b"tb")
