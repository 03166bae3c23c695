"""The networks of a run as they were tested, and the rows they were tested on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl import build, config
from hcqsfl.federated import checkpoint
from hcqsfl.models.learner import Network
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.run_folder import safe_name

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, eq=False)
class Trained:
    """What one training left, and the rows to test it on.

    Attributes:
        networks: each maps ``(n, ...)`` to logits ``(n, n_classes)``; several where every client keeps its own, one of
            which is drawn for each row.
        x: ``(n, ...)`` test rows as a network takes them.
        y: ``(n,)`` classes.
        subject: ``(n,)`` whom each row is from.
        classes: names.
        unit: what is resampled, as in ``Predictions``.
        seed: of the training; the folds of a seed make one score together.
        synthetic: whether the rows were made up.
    """

    networks: tuple[nn.Module, ...]
    x: Tensor
    y: np.ndarray
    subject: np.ndarray
    classes: tuple[str, ...]
    unit: str = "subject"
    seed: int = 0
    synthetic: bool = False


def checkpoints(run: Path, arm: str = "hybrid", seed: int | None = None, fold: str | None = None) -> list[Path]:
    """Return the checkpoints of an arm's trainings, in order.

    Args:
        run: the run's folder.
        arm: which arm.
        seed, fold: of which training; all unless given.

    Raises:
        ValueError, FileNotFoundError: there is no such run or training.
    """
    if not (run / "config.toml").is_file():
        raise FileNotFoundError(f"there is no run in {run}: it has no config.toml")
    pattern = f"{arm}/{'*' if seed is None else seed}/{fold or '*'}/{CHECKPOINT}"
    found = sorted((run / "jobs").glob(pattern))
    if not found:
        there = sorted({str(path.parent.relative_to(run / "jobs")) for path in (run / "jobs").rglob(CHECKPOINT)})
        raise ValueError(f"{run} has no training {pattern.rpartition('/')[0]}; it has: {', '.join(there) or 'none'}")
    return found


def load(
    run: Path,
    arm: str = "hybrid",
    seed: int | None = None,
    fold: str | None = None,
    *,
    cache: Path,
    n_rows: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Trained]:
    """Yield every training of an arm with its test rows, one after the other.

    Args:
        run: the run's folder; its recordings must still be where they were.
        arm: which arm.
        seed, fold: of which training; all unless given.
        cache: folder of parsed windows.
        n_rows: test rows of a training, drawn by the run's split seed; all if None.
        say: told what is being read.

    Raises:
        ValueError, FileNotFoundError: there is no such run or training, or its recordings are gone.
    """
    paths = checkpoints(run, arm, seed, fold)
    settings = config.load(run / "config.toml")
    torch.set_num_threads(settings.training.threads)
    (chosen,) = [each for each in build.arms(settings) if each.name == arm]
    windows = build.windows(settings, cache, say)
    by_folder = {safe_name(fold.name): fold for fold in build.make_folds(settings, windows)}
    for path in paths:
        where, root = by_folder[path.parent.name], int(path.parent.parent.name)
        prepared = build.prepare(settings, windows, where)
        networks = _networks(path, build.setup(settings, chosen, root, prepared).networks())
        rows = np.arange(len(prepared.test))
        if n_rows is not None and n_rows < len(rows):
            rows = np.sort(numpy_generator(settings.split.seed, "trained", "rows").permutation(rows)[:n_rows])
        yield Trained(
            networks,
            prepared.x["test"][rows],
            prepared.test.y[rows],
            prepared.test.subject[rows],
            prepared.test.classes,
            "subject" if where.by == "subject" else "row",
            root,
            windows.synthetic,
        )


def _networks(path: Path, fresh: list[Network]) -> tuple[nn.Module, ...]:
    tensors, _ = checkpoint.load(path)
    for i, network in enumerate(fresh):
        prefix = f"best//{i}/"
        network.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
    return tuple(fresh)
