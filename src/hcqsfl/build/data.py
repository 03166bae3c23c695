"""From settings to windows, folds and clients' shares of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hcqsfl.config import Config
from hcqsfl.data import cache, dataset, folds, leakage, partition, scaling, synthetic
from hcqsfl.data.folds import Fold
from hcqsfl.data.recording import SYNTHETIC_MARKER
from hcqsfl.data.windows import Windows, slide_all
from hcqsfl.registry import lookup


@dataclass(frozen=True, eq=False)
class Prepared:
    """One fold, scaled and as tensors.

    Attributes:
        fold: the division.
        x, y: training, validation and test windows under ``"train"``, ``"validation"``, ``"test"``.
        training: the raw training windows, to be dealt out.
        test: the raw test windows.
        class_weights: of the loss, or ``None``.
        scaler: what was learnt from the training windows to scale all.
    """

    fold: Fold
    x: dict[str, Tensor]
    y: dict[str, Tensor]
    training: Windows
    test: Windows
    class_weights: Tensor | None
    scaler: scaling.Scaler


def windows(config: Config, cache_folder: Path, progress: Callable[[str], None] = lambda text: None) -> Windows:
    """Load the recordings and cut them, or take the windows from the cache.

    Raises:
        ValueError, FileNotFoundError: the recordings are absent, damaged, or cannot be cut so.
    """
    module, root = dataset(config.data.name), config.data.path
    if config.data.synthetic:
        progress("writing synthetic recordings")
        synthetic.ensure(config.data.name, root, seed=config.data.synthetic_seed, size=config.data.synthetic)
    paths = _with_options(module.files, config, root)

    def cut() -> Windows:
        progress(f"reading {module.TITLE}")
        recordings = _with_options(module.load, config, root)
        settings = config.windows
        seconds = settings.seconds if settings.samples is None else settings.samples / recordings[0].sfreq
        return slide_all(recordings, float(seconds or 0), settings.overlap)

    settings = {
        "data": config.data.model_dump(mode="json", include={"name", "options"}),
        "windows": config.windows.model_dump(mode="json"),
        "synthetic": (root / SYNTHETIC_MARKER).exists(),
    }
    return cache.cached_windows(paths, settings, cut, cache_folder)


def _with_options(function: Callable[..., Any], config: Config, root: Path) -> Any:
    try:
        return function(root, **config.data.options)
    except TypeError as error:
        if "keyword argument" in str(error):
            raise ValueError(f"data.options: {error}") from None
        raise


def make_folds(config: Config, w: Windows) -> list[Fold]:
    """Divide the windows as ``split`` says.

    Raises:
        ValueError: they cannot be divided so, or ``split.only`` names no fold.
    """
    split = config.split
    if split.scheme == "leave_one_subject_out":
        made = folds.leave_one_subject_out(w, n_validation=split.n_validation, seed=split.seed)
    elif split.scheme == "grouped_k_fold":
        made = folds.grouped_k_fold(w, split.k, n_validation=split.n_validation, seed=split.seed)
    else:
        made = folds.chronological(w, test=split.test, validation=split.validation, gap=split.gap)
    by_name = {fold.name: fold for fold in made}
    return [lookup("fold", by_name, name) for name in split.only] or made


def scan(config: Config, w: Windows, made: list[Fold]) -> list[leakage.Leak]:
    """Scan every fold for leaks; return those that a flag allows.

    Raises:
        LeakError: there is a leak that no flag allows.
    """
    found = [leak for fold in made for leak in leakage.scan(w, fold, config.split.seed)]
    return list(dict.fromkeys(leakage.refuse(found, config.split.allow_leaks)))


def prepare(config: Config, w: Windows, fold: Fold) -> Prepared:
    """Scale one fold's windows by its training windows."""
    parts = {"train": w.take(fold.train), "validation": w.take(fold.validation), "test": w.take(fold.test)}
    scaler = scaling.Scaler.fit(parts["train"], config.model.scaling, config.split.seed)
    weights = None
    if config.model.class_weights == "balanced":
        weights = torch.tensor(scaling.class_weights(parts["train"].y, len(w.classes)), dtype=torch.float32)
    return Prepared(
        fold=fold,
        x={name: torch.from_numpy(scaler(part)) for name, part in parts.items()},
        y={name: torch.from_numpy(np.array(part.y)) for name, part in parts.items()},
        training=parts["train"],
        test=parts["test"],
        class_weights=weights,
        scaler=scaler,
    )


def clients(config: Config, training: Windows) -> partition.Partition:
    """Deal one fold's training windows out to clients; the same deal for every arm and seed."""
    f = config.federation
    return partition.deal(f.partition, training, f.n_clients, config.split.seed, **f.partition_options)
