"""One root seed feeds every random choice through generators that are named after what they decide.

A generator depends on the root seed and its name alone, never on what was drawn before it, so that a run resumed at
round 7 draws what the uninterrupted run drew there, and adding a consumer of randomness changes none of the others.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Name = str | int


def derive(seed: int, *names: Name) -> int:
    """Return the 63-bit seed of the stream called ``names`` under the root ``seed`` (SHA-256 of both)."""
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *names: Name) -> np.random.Generator:
    """Return the NumPy generator of the stream called ``names``."""
    return np.random.default_rng(derive(seed, *names))


def torch_generator(seed: int, *names: Name) -> "torch.Generator":
    """Return the torch CPU generator of the stream called ``names``."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *names))


@contextmanager
def torch_seeded(seed: int, *names: Name) -> Iterator[None]:
    """Seed torch's global generator inside the block (module initialisers use it), and restore it after."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *names))
        yield
