"""What client and server must agree on before a step is taken, and in which words they disagree."""

import json
from collections.abc import Mapping
from typing import Any

from hcqsfl.config import Config
from hcqsfl.deployment.frame import FRAME_VERSION
from hcqsfl.split.message import PROTOCOL_VERSION

OWN = ("name", "description", "deployment", "evaluation", "recording", "data.root", "training.threads")
"""Settings that either end may have as it likes."""

Facts = dict[str, Any]


class Disagreement(ValueError):
    """Client and server are not set up for the same experiment."""


def facts(config: Config, classes: tuple[str, ...], channels: tuple[str, ...], n_times: int) -> Facts:
    """Return what an end of the stream is set up for.

    Args:
        config: its settings.
        classes: the label set.
        channels: what a window holds.
        n_times: samples in a window.
    """
    found: Facts = {
        "frame version": FRAME_VERSION,
        "protocol version": PROTOCOL_VERSION,
        "label set": list(classes),
        "channels": list(channels),
        "samples in a window": n_times,
    }
    flat = _flat("", config.model_dump(mode="json"))
    return found | {
        name: value for name, value in flat.items() if not any(name == own or name.startswith(own + ".") for own in OWN)
    }


def _flat(prefix: str, held: Mapping[str, Any]) -> Facts:
    found: Facts = {}
    for name, value in held.items():
        if isinstance(value, dict) and value:
            found |= _flat(f"{prefix}{name}.", value)
        else:
            found[prefix + name] = value
    return found


def to_bytes(held: Facts) -> bytes:
    """Return facts as bytes."""
    return json.dumps(held, sort_keys=True).encode()


def from_bytes(data: bytes) -> Facts:
    """Read facts, trusting nothing in them.

    Raises:
        ValueError: the bytes are no facts.
    """
    try:
        held = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("the greeting is not JSON") from None
    if not isinstance(held, dict):
        raise ValueError("the greeting is no JSON object")
    return held


def agree(client: str, theirs: Facts, ours: Facts) -> None:
    """Hold a client's facts against the server's.

    Raises:
        Disagreement: they differ; the message names each value of both.
    """
    absent = "nothing"
    different = [
        f"{name} is {_shown(theirs.get(name, absent))} at client {client} and {_shown(ours.get(name, absent))} at the "
        "server"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name, absent) != ours.get(name, absent)
    ]
    if different:
        more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
        raise Disagreement("; ".join(different[:5]) + more)


def _shown(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 200 else text[:200] + "…"
