"""Write and read checkpoints so that a run killed at any moment, or a full disk, costs one round at most."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint beside the earlier one, then put it in that one's place.

    Args:
        path: where it is to stand.
        tensors: what to keep.
        facts: what else to keep; anything JSON can hold.

    Raises:
        OSError: it cannot be written; an earlier checkpoint at ``path`` is as it was.
    """
    data = safetensors.torch.save({k: t.contiguous() for k, t in tensors.items()}, {"facts": json.dumps(dict(facts))})
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"the checkpoint {path} of {len(data):,} bytes cannot be written ({error.strerror}); "
            "the one before is intact",
        ) from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint that ``save`` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"the checkpoint {path} is damaged ({error}); delete it to start that part afresh") from None
