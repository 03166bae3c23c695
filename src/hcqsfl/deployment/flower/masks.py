"""The masks of SecAgg+, drawn from the whole of a key.

Flower 1.41 folds a key into one word of 32 bits (28, for the keys that two clients share: theirs are text) and seeds a
Mersenne twister with it: words so few that a server can try them all. Everything else of the protocol is Flower's own;
both of its ends find this generator in place of that one.

Source: RFC 8439, ChaCha20; its input is the SHA-256 of the key.
"""

import hashlib
import types
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

Kind = TypeVar("Kind", bound=Callable[..., Any])


def draw(seed: bytes, num_range: int, dimensions_list: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Return an array of each shape, uniform over ``[0, num_range)``, int64.

    Args:
        seed: a key, of any length; used for one draw only.
        num_range: a power of two, at most ``2**32``.
        dimensions_list: shapes.

    Raises:
        ValueError: ``num_range`` is no such power.
    """
    if num_range & (num_range - 1) or not 1 < num_range <= 2**32:
        raise ValueError(f"masks modulo {num_range} were asked for; take a power of two up to 2**32")
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in dimensions_list]
    stream = Cipher(algorithms.ChaCha20(hashlib.sha256(seed).digest(), bytes(16)), mode=None).encryptor()
    words = np.frombuffer(stream.update(bytes(4 * sum(sizes))), "<u4").astype(np.int64) & (num_range - 1)
    parts = np.split(words, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, dimensions_list, strict=True)]


def finding(function: Kind, **names: Any) -> Kind:
    """Return a copy of a function that finds these in place of what its module has under their names."""
    found = types.FunctionType(
        function.__code__,
        function.__globals__ | names,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return cast(Kind, found)
