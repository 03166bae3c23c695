"""The settings of an experiment: one TOML file, checked as a whole before anything starts."""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hcqsfl.registry import suggest

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Options = dict[str, Any]
TrunkKind = Literal["hybrid", "classical", "frozen", "fourier"]
Kind = TypeVar("Kind", bound=BaseModel)


class Section(BaseModel):
    """A part of the settings: frozen, and no key in it may be unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Section):
    """Which recordings.

    Attributes:
        name: a data set; ``hcqsfl data list`` shows them.
        root: its folder; if relative, below the folder that ``HCQSFL_DATA`` names, or ``data``.
        synthetic: write made-up recordings of this size there first, unless they are there already.
        synthetic_seed: of what is made up.
        options: what its loader takes.
    """

    name: str
    root: Path
    synthetic: Literal["tiny", "small", "full"] | None = None
    synthetic_seed: int = 0
    options: Options = Field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The data set's folder."""
        return data_home() / self.root


class WindowSettings(Section):
    """How recordings are cut: by ``seconds``, or by ``samples`` (rows of a table).

    Attributes:
        seconds, samples: length of a window; one of the two.
        overlap: share of a window that the next one repeats.
    """

    seconds: Annotated[float, Field(gt=0)] | None = None
    samples: Count | None = None
    overlap: Share = 0.0

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.seconds is None) == (self.samples is None):
            raise ValueError("give the length of a window either in seconds or in samples")
        return self


class Split(Section):
    """How windows are divided into training, validation and test.

    Attributes:
        scheme: by subject, or class by class in order of time.
        k: folds of ``grouped_k_fold``.
        n_validation: training subjects set aside to choose the round by; 0 takes the last round.
        test, validation: shares of ``chronological``.
        gap: windows left out at the borders of ``chronological``.
        only: run these folds alone, by name; the report says so.
        allow_leaks: findings of the leak scan that do not stop the training; the report shows each.
        seed: draws groups and validation subjects, the same for every training seed.
    """

    scheme: Literal["leave_one_subject_out", "grouped_k_fold", "chronological"]
    k: Annotated[int, Field(ge=2)] = 5
    n_validation: Annotated[int, Field(ge=0)] = 1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    validation: Share = 0.1
    gap: Annotated[int, Field(ge=0)] = 0
    only: tuple[str, ...] = ()
    allow_leaks: tuple[str, ...] = ()
    seed: int = 0


class Model(Section):
    """The client's half, and the widths on both sides of the cut.

    Attributes:
        front: a front.
        front_options: what it takes.
        cuts: how many of the front's blocks stay with the client, then after how many each further server hands on;
            empty where the client keeps the whole front.
        parties: party to its channels, for a vertical split; the last party holds the labels.
        n_smashed: width of the cut; with parties, of each party's share of it.
        n_features: width of what comes back from the server.
        scaling: how inputs are scaled, by training windows alone.
        class_weights: whether the loss makes up for rare classes.
    """

    front: str = "conv1d"
    front_options: Options = Field(default_factory=dict)
    cuts: tuple[Count, ...] = ()
    parties: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    n_smashed: Count = 4
    n_features: Count = 16
    scaling: str = "standard"
    class_weights: Literal["balanced", "none"] = "balanced"


class CircuitNoise(Section):
    """The machine that a circuit is trained and judged on.

    Attributes:
        depolarising, amplitude_damping, phase_damping: chances of these after each gate, on each qubit that it acts on.
        readout: chance that a measured bit is flipped.
        shots: measurements of each observable; exact expectation values unless given.
        method: how noise after gates is worked out: ``density`` is exact, ``trajectories`` samples states, ``auto``
            is the former up to 6 qubits and the latter above.
        n_trajectories: states sampled for each row.
    """

    depolarising: Probability = 0.0
    amplitude_damping: Probability = 0.0
    phase_damping: Probability = 0.0
    readout: Probability = 0.0
    shots: Count | None = None
    method: Literal["auto", "density", "trajectories"] = "auto"
    n_trajectories: Count = 100

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.shots is None and not any(self.strengths.values()):
            raise ValueError("it changes nothing: give it a strength above 0 or shots, or leave the section out")
        return self

    @property
    def strengths(self) -> dict[str, float]:
        """The channels' chances by name."""
        names = ("depolarising", "amplitude_damping", "phase_damping", "readout")
        return {name: getattr(self, name) for name in names}


class Trunk(Section):
    """The server's half.

    Attributes:
        kind: ``hybrid``, or one of its controls: ``classical``, ``frozen``, ``fourier``.
        circuit: a circuit; it sets the width and parameter count of the classical trunk too.
        n_qubits, n_layers: its size.
        circuit_options: what else it takes.
        backend: what simulates it.
        angles: how smashed data become angles: ``bounded`` by ``pi tanh``, or ``wrapped`` into one turn.
        noise: train and judge the circuit, and its frozen control, on a noisy machine; a perfect one unless given.
    """

    kind: TrunkKind = "hybrid"
    circuit: str = "strongly_entangling"
    n_qubits: Annotated[int, Field(ge=1)] = 4
    n_layers: Count = 2
    circuit_options: Options = Field(default_factory=dict)
    backend: str = "auto"
    angles: Literal["bounded", "wrapped"] = "bounded"
    noise: CircuitNoise | None = None

    @model_validator(mode="after")
    def _noise_is_trained_under(self) -> Self:
        if self.noise is not None and self.kind != "hybrid":
            why = "never trains its circuit" if self.kind == "frozen" else "has no circuit"
            raise ValueError(f'training under noise needs kind = "hybrid"; the trunk {self.kind!r} {why}')
        return self


class Federation(Section):
    """Who trains, and how the halves come together.

    Attributes:
        protocol: a protocol.
        label_sharing: whether labels go to the server.
        partition: how training windows are dealt out to clients.
        partition_options: what the partitioner takes.
        n_clients: clients; by ``subject``, one a subject unless given.
        rounds: rounds of training.
        local_epochs: passes over its data that a client makes in a round.
        local_steps: at most so many steps a client and round.
        batch_size: windows in a step.
        proximal: FedProx's mu; 0 is plain local training.
        batched: train the clients of a round as one batch, 1.2 (convolutions) to 3.7 times as fast (small networks);
            for protocols whose clients are independent within a round, equal up to rounding. Baselines whose clients
            are not take turns.
        aggregator: an aggregation rule.
        aggregator_options: what it takes.
        root_share: share of the training windows that the server holds itself, for ``fltrust``.
        participation: share of clients drawn each round (``fraction``), how often a drawn one is away (``dropout``).
        clock: simulated times: ``step_seconds``, ``spread``, ``jitter``, ``latency``, ``bandwidth``, ``deadline``.
        buffer_size: updates that make a version in asynchronous rounds; not given, rounds are synchronous.
        staleness, staleness_options: discount of stale updates, and what it takes.
        codec, codec_options: what makes the messages across the cut smaller, and what it takes.
        error_feedback: whether gradients make good on what the codec lost of the last ones.
        guard, guard_options: what guards a shared trunk, and what it takes.
        secure_aggregation: what hides single updates from the fed server: ``masks``, or ``ckks`` encryption, both
            simulated; or ``secaggplus``, Flower's, between processes that `flwr run` starts.
        secure_options: what it takes, and of masks ``n_groups``: the groups whose means the aggregation rule gets.
    """

    protocol: str = "splitfed_v2"
    label_sharing: bool = False
    partition: str = "subject"
    partition_options: Options = Field(default_factory=dict)
    n_clients: Count | None = None
    rounds: Count = 10
    local_epochs: Count = 1
    local_steps: Count | None = None
    batch_size: Count = 32
    proximal: Annotated[float, Field(ge=0)] = 0.0
    batched: bool = False
    aggregator: str = "fedavg"
    aggregator_options: Options = Field(default_factory=dict)
    root_share: Share = 0.0
    participation: Options = Field(default_factory=dict)
    clock: Options = Field(default_factory=dict)
    buffer_size: Count | None = None
    staleness: str = "constant"
    staleness_options: Options = Field(default_factory=dict)
    codec: str = "none"
    codec_options: Options = Field(default_factory=dict)
    error_feedback: bool = False
    guard: str = "none"
    guard_options: Options = Field(default_factory=dict)
    secure_aggregation: Literal["none", "masks", "ckks", "secaggplus"] = "none"
    secure_options: Options = Field(default_factory=dict)

    @field_validator("secure_aggregation", mode="before")
    @classmethod
    def _by_its_other_names(cls, asked: object) -> object:
        return "secaggplus" if isinstance(asked, str) and asked.lower() in ("secagg", "secagg+") else asked


class Training(Section):
    """The optimiser of every half.

    Attributes:
        optimizer: which.
        learning_rate, weight_decay: its settings; ``momentum`` is for SGD.
        momentum: as in SGD.
        threads: cores for one training; the results are the same bytes for the same number.
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    threads: Count = 1


class Evaluation(Section):
    """What the result is held against.

    Attributes:
        controls: trunks that are trained in the same way beside the chosen one.
        baselines: protocols that are run with the chosen trunk beside the chosen one.
        references: models of the trade, trained centrally on the same windows.
        seeds: root seeds; each is a whole repetition.
        select_by: the validation metric that chooses the round.
        n_resamples: bootstrap resamples.
        without_control: run a hybrid trunk without its classical control; the report says so.
    """

    controls: tuple[TrunkKind, ...] = ("classical", "frozen", "fourier")
    baselines: tuple[str, ...] = ()
    references: tuple[str, ...] = ("random_forest",)
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    select_by: Literal["macro_f1", "accuracy", "balanced_accuracy"] = "macro_f1"
    n_resamples: Annotated[int, Field(ge=100)] = 2000
    without_control: bool = False

    @model_validator(mode="after")
    def _distinct_seeds(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed appears twice in {list(self.seeds)}: a repetition must differ")
        return self


class Defence(Section):
    """What clients do to smashed data, labels or gradients before they leave them.

    Attributes:
        name: a defence, or ``none``.
        options: what it takes.
    """

    name: str = "none"
    options: Options = Field(default_factory=dict)


class DPSGD(Section):
    """Differentially private training of both halves.

    Attributes:
        noise_multiplier: deviation of the noise over the clip, of each half.
        client_clip, server_clip: largest norm of a window's gradient in the client's half and in the server's.
        delta: of the guarantee that is told.
    """

    noise_multiplier: Annotated[float, Field(ge=0)] = 1.0
    client_clip: Annotated[float, Field(gt=0)] = 1.0
    server_clip: Annotated[float, Field(gt=0)] = 1.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5


class Deployment(Section):
    """How the same experiment runs over real processes and hosts. A simulation reads none of it.

    Attributes:
        listen: where the server listens, ``host:port``; port 0 takes one that is free.
        server: where clients reach it; empty where that is ``listen``.
        certificates: folder of certificates and keys, as `hcqsfl certs make` writes them.
        insecure: no TLS; a warning is printed, and only the loopback may be used.
        policy: what becomes of a round when a client is lost. ``wait``: it is waited for, and its turn begins anew;
            ``minimum``: it is left out while ``minimum_clients`` can still finish, else waited for; ``deadline``: it
            is waited for until its ``turn_seconds`` are up.
        minimum_clients: of ``minimum``.
        order: of the turns at a trunk that all train. ``turns``: one after the other, as simulated, the same bytes;
            ``free``: all at once, step by step as they come, which cannot be repeated bit for bit.
        turn_seconds: until a client's turn must be over.
        rejoin_seconds: for how long a client that is lost is waited for.
        step_seconds: until a step must be answered, and for how long a client may be silent in its turn.
        connect_seconds: for how long a client tries to reach the server.
        keepalive_seconds: between two pings of a connection.
        metrics_port: of the loopback, for Prometheus and `hcqsfl status`; 0 takes one that is free.
    """

    listen: str = "127.0.0.1:7443"
    server: str = ""
    certificates: Path = Path("certs")
    insecure: bool = False
    policy: Literal["wait", "minimum", "deadline"] = "wait"
    minimum_clients: Count = 1
    order: Literal["turns", "free"] = "turns"
    turn_seconds: Annotated[float, Field(gt=0)] = 3600.0
    rejoin_seconds: Annotated[float, Field(gt=0)] = 300.0
    step_seconds: Annotated[float, Field(gt=0)] = 60.0
    connect_seconds: Annotated[float, Field(gt=0)] = 60.0
    keepalive_seconds: Annotated[float, Field(ge=1)] = 10.0
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 7480


class Recording(Section):
    """What a run keeps besides its results.

    Attributes:
        tap: keep what adversaries see, for attacks: every message that crosses the cut in ``tap.bin`` of the job's
            folder, and the states of each round below ``rounds``.
        checkpoint_rounds: rounds from one checkpoint to the next. A run that is killed goes on from the last one, to
            the same bytes, and so trains through at most so many rounds twice.
    """

    tap: bool = False
    checkpoint_rounds: Count = 1


class Config(Section):
    """One experiment, whole.

    Attributes:
        name: its title in the report.
        description: what it is for.
        dp_sgd: train with differential privacy; ordinary training unless given.
    """

    name: str
    description: str = ""
    data: Data
    windows: WindowSettings
    split: Split
    model: Model = Model()
    trunk: Trunk = Trunk()
    federation: Federation = Federation()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    defence: Defence = Defence()
    dp_sgd: DPSGD | None = None
    recording: Recording = Recording()
    deployment: Deployment = Deployment()

    @model_validator(mode="after")
    def _controlled(self) -> Self:
        controlled = "classical" in self.evaluation.controls or self.evaluation.without_control
        if self.trunk.kind == "hybrid" and not controlled:
            raise ValueError(
                'a hybrid trunk needs its classical control: put "classical" into evaluation.controls, or set '
                "evaluation.without_control = true, which the report will show"
            )
        return self

    @model_validator(mode="after")
    def _noise_is_possible(self) -> Self:
        if self.trunk.noise is not None and self.dp_sgd is not None:
            raise ValueError("trunk.noise and dp_sgd exclude each other: a noisy circuit has no gradients by sample")
        if self.trunk.noise is not None and self.federation.batched:
            raise ValueError(
                "trunk.noise and federation.batched exclude each other: a noisy circuit takes one set of weights; "
                "set federation.batched = false"
            )
        return self

    def to_toml(self) -> str:
        """Return the settings as resolved, as TOML."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


class CrossConfig(Section):
    """One federation over several data sets.

    Attributes:
        name: its title in the report.
        description: what it is for.
        data_sets: name to the config file that says what its recordings, windows, split, front and clients are; the
            widths of the cut, the trunk, the protocol, the training and the evaluation are those below.
        n_smashed, n_features: widths on both sides of the cut, the same for all.
        n_folds: at most so many folds of each data set.
        trunk, federation, training, evaluation: for all.
        members: the data sets' settings, resolved; read from the files.
    """

    name: str
    description: str = ""
    data_sets: dict[str, Path] = Field(min_length=2)
    n_smashed: Count = 4
    n_features: Count = 16
    n_folds: Count = 3
    trunk: Trunk = Trunk()
    federation: Federation = Federation()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    members: dict[str, Config] = Field(default_factory=dict)

    def resolve(self, folder: Path) -> "CrossConfig":
        """Return these settings with the data sets' files, relative to ``folder``, read in.

        Raises:
            ValueError, FileNotFoundError: a file is not there, or is no config.
        """
        members = {}
        for name, path in self.data_sets.items():
            own = load(folder / path)
            dealt = {key: getattr(own.federation, key) for key in ("partition", "partition_options", "n_clients")}
            members[name] = own.model_copy(
                update={
                    "name": f"{name}, {self.name}",
                    "model": own.model.model_copy(update={"n_smashed": self.n_smashed, "n_features": self.n_features}),
                    "trunk": self.trunk,
                    "federation": self.federation.model_copy(update=dealt),
                    "training": self.training,
                    "evaluation": self.evaluation,
                }
            )
        return self.model_copy(update={"members": members})


def data_home() -> Path:
    """Return the folder below which data sets lie: ``HCQSFL_DATA``, or ``data``."""
    return Path(os.environ.get("HCQSFL_DATA", "data"))


def load_cross(path: Path, overrides: Sequence[str] = ()) -> CrossConfig:
    """Read a config file of several data sets, and set single keys in it anew; see ``load``."""
    return parse(read(path, overrides), str(path), CrossConfig).resolve(path.parent)


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file, and set single keys in it anew.

    Args:
        path: a TOML file.
        overrides: ``section.key=value``, the value as in TOML; a bare word counts as text.

    Raises:
        ValueError: the file is no TOML, or a key or value is not what it should be; the message names each.
        FileNotFoundError: there is no such file.
    """
    return parse(read(path, overrides), str(path), Config)


def read(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return a config file's content, unchecked, with single keys set anew.

    Raises:
        ValueError, FileNotFoundError: as ``load``.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no config file {path}")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    for override in overrides:
        _override(settings, override)
    return settings


def parse(settings: dict[str, Any], source: str, kind: type[Kind]) -> Kind:
    """Check settings.

    Raises:
        ValueError: a key or value is not what it should be; the message names each, and the nearest known key.
    """
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        lines = [_explain(dict(e), kind) for e in error.errors()]
        raise ValueError(f"{source}: " + "\n".join(lines)) from None


def read_options(pairs: Sequence[str]) -> Options:
    """Return ``key=value`` pairs as a mapping, the values as in TOML; a bare word counts as text.

    Raises:
        ValueError: one is no such pair.
    """
    options = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"an option is key=value, not {pair!r}")
        options[key.strip()] = _value(text)
    return options


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _override(settings: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not separator or not last:
        raise ValueError(f"--set takes section.key=value, not {override!r}")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict):
            raise ValueError(f"--set {override}: {section} is a value, not a section")
    settings[last] = _value(text)


def _explain(error: dict[str, Any], kind: type[BaseModel]) -> str:
    where = ".".join(map(str, error["loc"])) or "the config"
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        known = _keys(parents, kind)
        return f"there is no setting {where!r}{suggest(str(key), known)} Known there: {', '.join(known)}"
    if error["type"] == "missing":
        return f"the setting {where!r} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" + ("" if error["type"] == "value_error" else f", not {error['input']!r}")


def _keys(parents: Sequence[Any], model: type[BaseModel]) -> list[str]:
    for parent in parents:
        annotation: Any = model.model_fields[str(parent)].annotation
        # a section that may be left out is "Section | None"
        model = next((kind for kind in get_args(annotation) if kind is not NoneType), annotation)
    return list(model.model_fields)
