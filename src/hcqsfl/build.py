"""From settings to parts: the only place that reads both."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl.config import Config
from hcqsfl.data import cache, dataset, folds, leakage, partition, scaling, synthetic
from hcqsfl.data.folds import Fold
from hcqsfl.data.recording import SYNTHETIC_MARKER
from hcqsfl.data.windows import Windows, slide_all
from hcqsfl.federated import aggregation
from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.models.protocols import PROTOCOLS, Plan, Setup, set_up
from hcqsfl.models.references import REFERENCES
from hcqsfl.quantum import circuits
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.randomness import torch_seeded
from hcqsfl.registry import lookup
from hcqsfl.split import Transport


@dataclass(frozen=True)
class Arm:
    """One of the networks or protocols that an experiment sets side by side.

    Attributes:
        name: in tables and file names.
        trunk: kind of trunk; ``"none"`` for a reference model.
        protocol: who holds what.
        reference: name of the reference model that it is, if it is one.
    """

    name: str
    trunk: str
    protocol: str
    reference: str = ""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One fold, scaled and as tensors.

    Attributes:
        fold: the division.
        x, y: training, validation and test windows under ``"train"``, ``"validation"``, ``"test"``.
        training: the raw training windows, to be dealt out.
        test: the raw test windows.
        class_weights: of the loss, or ``None``.
    """

    fold: Fold
    x: dict[str, Tensor]
    y: dict[str, Tensor]
    training: Windows
    test: Windows
    class_weights: Tensor | None


def arms(config: Config) -> list[Arm]:
    """Return the arms of an experiment, the chosen one first.

    Raises:
        ValueError: a protocol or a reference is unknown.
    """
    chosen = Arm(config.trunk.kind, config.trunk.kind, config.federation.protocol)
    lookup("protocol", PROTOCOLS, chosen.protocol)
    for protocol in config.evaluation.baselines:
        lookup("protocol", PROTOCOLS, protocol)
    controls = [Arm(kind, kind, chosen.protocol) for kind in config.evaluation.controls if kind != chosen.trunk]
    baselines = [
        Arm(f"{chosen.trunk}-{protocol}", chosen.trunk, protocol)
        for protocol in config.evaluation.baselines
        if protocol != chosen.protocol
    ]
    for name in config.evaluation.references:
        lookup("reference model", REFERENCES, name)
    references = [
        Arm(name.replace("_", " "), "none", "centralised", reference=name) for name in config.evaluation.references
    ]
    return list(dict.fromkeys([chosen, *controls, *baselines, *references]))


def windows(config: Config, cache_folder: Path, progress: Callable[[str], None] = lambda text: None) -> Windows:
    """Load the recordings and cut them, or take the windows from the cache.

    Raises:
        ValueError, FileNotFoundError: the recordings are absent, damaged, or cannot be cut so.
    """
    module, root = dataset(config.data.name), config.data.path
    if config.data.synthetic and not (root / SYNTHETIC_MARKER).exists():
        progress("writing synthetic recordings")
        synthetic.write(config.data.name, root, size=config.data.synthetic)
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
    )


def circuit(config: Config) -> Circuit:
    """Return the circuit that ``trunk`` describes.

    Raises:
        ValueError: there is no such circuit, or it cannot have this size.
    """
    t = config.trunk
    return circuits.make(t.circuit, t.n_qubits, t.n_layers, **t.circuit_options)


def network(config: Config, arm: Arm, seed: int, n_chans: int, n_times: int, n_outputs: int) -> Network:
    """Return the joined network of an arm, initialised by the seed alone: arms share their front and head."""
    m = config.model
    with torch_seeded(seed, "init", "front"):
        front = fronts.make(m.front, n_chans, n_times, m.n_smashed, **m.front_options)
    with torch_seeded(seed, "init", "trunk"):
        trunk = trunks.make(arm.trunk, m.n_smashed, m.n_features, circuit(config), config.trunk.backend)
    with torch_seeded(seed, "init", "head"):
        head = linear_head(m.n_features, n_outputs)
    return Network(front, trunk, head)


def optimizer(config: Config) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """Return what makes the optimiser of any half."""
    t = config.training
    if t.optimizer == "sgd":
        return partial(torch.optim.SGD, lr=t.learning_rate, momentum=t.momentum, weight_decay=t.weight_decay)
    kind = torch.optim.AdamW if t.optimizer == "adamw" else torch.optim.Adam
    return partial(kind, lr=t.learning_rate, weight_decay=t.weight_decay)


def clients(config: Config, training: Windows) -> partition.Partition:
    """Deal one fold's training windows out to clients; the same deal for every arm and seed."""
    f = config.federation
    return partition.deal(f.partition, training, f.n_clients, config.split.seed, **f.partition_options)


def setup(
    config: Config,
    arm: Arm,
    seed: int,
    prepared: Prepared,
    wear: Callable[[str, Transport], Transport] = lambda client, transport: transport,
) -> Setup:
    """Wire one arm on one fold."""
    f = config.federation
    x, y = prepared.x["train"], prepared.y["train"]
    joined = network(config, arm, seed, x.shape[1], x.shape[2], len(prepared.training.classes))
    joined.class_weights = copy.copy(prepared.class_weights)
    return set_up(
        arm.protocol,
        joined,
        {name: (x[index], y[index]) for name, index in clients(config, prepared.training).items()},
        Plan(
            optimizer(config),
            partial(aggregation.make, f.aggregator, **f.aggregator_options),
            seed=seed,
            batch_size=f.batch_size,
            local_epochs=f.local_epochs,
            local_steps=f.local_steps,
            label_sharing=f.label_sharing and PROTOCOLS[arm.protocol].trunk is not None,
            wear=wear,
        ),
    )
