"""Codecs: what makes a tensor smaller for its way across the cut."""

import inspect
from typing import Any

import torch

from hcqsfl.registry import lookup, suggest
from hcqsfl.split.codecs.casting import BFloat16, Float16, Plain
from hcqsfl.split.codecs.codec import MAX_VALUES, Codec
from hcqsfl.split.codecs.error_feedback import ErrorFeedback
from hcqsfl.split.codecs.quantised import Int4, Int8
from hcqsfl.split.codecs.sparse import RandTopK, TopK

__all__ = ["CODECS", "MAX_VALUES", "Codec", "ErrorFeedback", "decoder", "make"]

CODECS: dict[str, type[Codec]] = {
    "bfloat16": BFloat16,
    "float16": Float16,
    "int4": Int4,
    "int8": Int8,
    "none": Plain,
    "randtopk": RandTopK,
    "topk": TopK,
}


def make(name: str, generator: torch.Generator | None = None, error_feedback: bool = False, **options: Any) -> Codec:
    """Return the codec called ``name``, set up to encode for one client.

    Args:
        name: a name in ``CODECS``.
        generator: for a codec that draws at random; others leave it alone.
        error_feedback: make good on what is lost of one tensor with the next; for gradients.
        options: of the codec.

    Raises:
        ValueError: there is no such codec, it does not take an option, or one is out of range.
    """
    kind = lookup("codec", CODECS, name)
    takes = list(inspect.signature(kind).parameters)
    known = [option for option in takes if option != "generator"]
    for option in options:
        if option not in known:
            raise ValueError(
                f"{name} has no option {option!r}{suggest(option, known)} Its options: {', '.join(known) or 'none'}"
            )
    codec = kind(**options, **({"generator": generator} if "generator" in takes else {}))
    return ErrorFeedback(codec) if error_feedback else codec


def decoder(name: str) -> Codec:
    """Return a codec that decodes what any codec called ``name`` encoded, whatever its options were.

    Raises:
        ValueError: there is no such codec.
    """
    return lookup("codec", CODECS, name)()
