"""From settings to parts: the only place that reads both."""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl.config import Config, CrossConfig
from hcqsfl.data import cache, dataset, folds, leakage, partition, scaling, synthetic
from hcqsfl.data.folds import Fold
from hcqsfl.data.recording import SYNTHETIC_MARKER
from hcqsfl.data.windows import Windows, slide_all
from hcqsfl.federated import aggregation, staleness
from hcqsfl.federated.client import Client
from hcqsfl.federated.clock import Clock
from hcqsfl.federated.guard import GUARDS, TrunkGuard
from hcqsfl.federated.participation import Participation
from hcqsfl.federated.rounds import Federation
from hcqsfl.federated.update import Aggregator, State
from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.models.parties import PartiesFront
from hcqsfl.models.protocols import PROTOCOLS, Data, Plan, Setup, set_up
from hcqsfl.models.references import REFERENCES
from hcqsfl.quantum import circuits
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.randomness import numpy_generator, torch_generator, torch_seeded
from hcqsfl.registry import lookup
from hcqsfl.split import Transport, codecs
from hcqsfl.split.codecs import Codec
from hcqsfl.split.codecs.pair import CutCodec


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


def cross_arms(config: CrossConfig) -> list[Arm]:
    """Return the arms in which data sets share a trunk: the chosen one and its controls.

    Raises:
        ValueError: the protocol is unknown, or has no trunk to share.
    """
    protocol = config.federation.protocol
    if lookup("protocol", PROTOCOLS, protocol).trunk is None:
        raise ValueError(f"{protocol} cuts nothing, so that data sets have no trunk to share")
    kinds = dict.fromkeys([config.trunk.kind, *config.evaluation.controls])
    return [Arm(kind, kind, protocol) for kind in kinds]


def alone_arms(config: Config) -> list[Arm]:
    """Return the arms that a data set of several is held against: the same network on its own, and references."""
    kind, protocol = config.trunk.kind, config.federation.protocol
    return [Arm("alone", kind, protocol), *(arm for arm in arms(config) if arm.reference)]


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
    )


def circuit(config: Config) -> Circuit:
    """Return the circuit that ``trunk`` describes.

    Raises:
        ValueError: there is no such circuit, or it cannot have this size.
    """
    t = config.trunk
    return circuits.make(t.circuit, t.n_qubits, t.n_layers, **t.circuit_options)


def network(config: Config, arm: Arm, seed: int, like: Windows, n_chans: int) -> Network:
    """Return the joined network of an arm, initialised by the seed alone: arms share their front and head.

    Args:
        config: settings.
        arm: whose trunk.
        seed: root seed.
        like: windows that tell channels, length and classes.
        n_chans: channels after scaling.

    Raises:
        ValueError: a name is unknown, or sizes do not fit.
    """
    m = config.model
    width = m.n_smashed * max(len(m.parties), 1)
    with torch_seeded(seed, "init", "front"):
        front = _parties(config, like, n_chans) if m.parties else _front(config, n_chans, like.n_times)
    with torch_seeded(seed, "init", "trunk"):
        trunk = trunks.make(arm.trunk, width, m.n_features, circuit(config), config.trunk.backend)
    with torch_seeded(seed, "init", "head"):
        head = linear_head(m.n_features, len(like.classes))
    return Network(front, trunk, head)


def _front(config: Config, n_chans: int, n_times: int) -> nn.Module:
    m = config.model
    return fronts.make(m.front, n_chans, n_times, m.n_smashed, **m.front_options)


def _parties(config: Config, like: Windows, n_chans: int) -> PartiesFront:
    if n_chans != len(like.channels):
        raise ValueError("a vertical split needs numeric channels: categories would be spread over several columns")
    index = {channel: i for i, channel in enumerate(like.channels)}
    held = {party: [lookup("channel", index, c) for c in own] for party, own in config.model.parties.items()}
    return PartiesFront({party: _front(config, len(own), like.n_times) for party, own in held.items()}, held)


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
    """Wire one arm on one fold.

    Raises:
        ValueError: the settings contradict one another.
    """
    joined, data = group(config, arm, seed, prepared)
    chosen = plan(config, arm, seed, prepared, wear)
    ready = set_up(arm.protocol, joined, data, chosen)
    root = getattr(chosen.make_aggregator, "keywords", {}).get("root_update")
    if isinstance(root, RootTraining):
        root.federation = ready.federation
    return ready


def group(config: Config, arm: Arm, seed: int, prepared: Prepared) -> tuple[Network, Data]:
    """Return an arm's network and its clients' data."""
    x, y = prepared.x["train"], prepared.y["train"]
    joined = network(config, arm, seed, prepared.training, x.shape[1])
    joined.class_weights = copy.copy(prepared.class_weights)
    dealt = clients(config, prepared.training)
    if config.federation.root_share:
        root = set(_root(config, prepared).tolist())
        dealt = {name: np.array([i for i in index if i not in root]) for name, index in dealt.items()}
    return joined, {name: (x[index], y[index]) for name, index in dealt.items() if len(index)}


def _root(config: Config, prepared: Prepared) -> np.ndarray:
    """Draw the training windows that the server holds itself."""
    n = len(prepared.y["train"])
    drawn = numpy_generator(config.split.seed, "root").permutation(n)
    return np.sort(drawn[: max(1, round(config.federation.root_share * n))])


def plan(
    config: Config,
    arm: Arm,
    seed: int,
    prepared: Prepared,
    wear: Callable[[str, Transport], Transport] = lambda client, transport: transport,
) -> Plan:
    """Return how a federation is to run.

    Raises:
        ValueError: a name is unknown, or an option is not taken or out of range.
    """
    f = config.federation
    rules = lookup("protocol", PROTOCOLS, arm.protocol)
    cut = rules.trunk is not None
    return Plan(
        optimizer(config),
        _aggregator(config, arm, seed, prepared),
        seed=seed,
        batch_size=f.batch_size,
        local_epochs=f.local_epochs,
        local_steps=f.local_steps,
        proximal=f.proximal,
        label_sharing=f.label_sharing and cut,
        cuts=config.model.cuts if cut else (),
        make_guard=_guard(config) if rules.trunk == "shared" else None,
        participation=_options("federation.participation", Participation, {} if rules.pooled else f.participation),
        clock=_options("federation.clock", Clock, f.clock),
        buffer_size=None if rules.pooled else f.buffer_size,
        discount=staleness.make(f.staleness, **f.staleness_options),
        make_codec=_codec(config, seed) if cut else None,
        wear=wear,
    )


def _options(where: str, make: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return make(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(make).parameters)
        raise ValueError(f"{where}: {str(error).partition(') ')[2] or error}; known: {known}") from None


def _guard(config: Config) -> Callable[[], TrunkGuard] | None:
    f = config.federation
    if f.guard == "none":
        return None
    return partial(_options, "federation.guard_options", lookup("guard", GUARDS, f.guard), f.guard_options)


def _codec(config: Config, seed: int) -> Callable[[str, str], CutCodec] | None:
    f = config.federation
    if f.codec == "none":
        return None

    def make(client: str, end: str) -> CutCodec:
        def one(use: str, feedback: bool) -> Codec:
            generator = torch_generator(seed, "codec", client, end, use)
            return codecs.make(f.codec, generator, feedback, **f.codec_options)

        return CutCodec(one("activations", False), one("gradients", f.error_feedback))

    make("", "client")  # an unknown name or option is told before anything starts
    return make


def _aggregator(config: Config, arm: Arm, seed: int, prepared: Prepared) -> Callable[[], Aggregator]:
    f = config.federation
    options = dict(f.aggregator_options)
    if f.aggregator == "fltrust":
        if not f.root_share:
            raise ValueError(
                "fltrust needs a root data set: set federation.root_share to the share of the training windows that "
                "the server is to hold itself"
            )
        options["root_update"] = RootTraining(config, arm, seed, prepared)
    return partial(aggregation.make, f.aggregator, **options)


class RootTraining:
    """Trains one part of the network on the server's own windows, from where the round began.

    Attributes:
        federation: whose other parts complete the network.
    """

    def __init__(self, config: Config, arm: Arm, seed: int, prepared: Prepared) -> None:
        self.config, self.seed = config, seed
        root = _root(config, prepared)
        self.x, self.y = prepared.x["train"][root], prepared.y["train"][root]
        self.joined = network(config, arm, seed, prepared.training, self.x.shape[1])
        self.joined.class_weights = prepared.class_weights
        self.federation: Federation | None = None

    def __call__(self, state: State, version: int) -> State:
        """Return the state that training on the root windows reaches from ``state``."""
        for part in self.federation.parts if self.federation else ():
            self.joined.load_state_dict(dict(part.final_states().get("", {})), strict=False)
        self.joined.load_state_dict(dict(state), strict=False)
        f = self.config.federation
        server = Client("server", self.joined, self.x, self.y, f.batch_size, f.local_epochs, f.local_steps)
        server.train(optimizer(self.config)(list(self.joined.parameters())), self.seed, version + 1)
        reached = self.joined.state_dict()
        return {name: reached[name].clone() for name in state}
