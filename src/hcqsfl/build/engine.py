"""From settings to a federation that is ready to run."""

import copy
import inspect
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from hcqsfl.adversarial.detection.trust_watch import TrustWatch
from hcqsfl.adversarial.evasion.flows import FlowRegion, region_of
from hcqsfl.build import trust
from hcqsfl.build.arms import Arm
from hcqsfl.build.data import Prepared, clients
from hcqsfl.build.network import network
from hcqsfl.config import Config
from hcqsfl.federated import aggregation, staleness
from hcqsfl.federated.client import Client
from hcqsfl.federated.clock import Clock
from hcqsfl.federated.guard import GUARDS, TrunkGuard
from hcqsfl.federated.participation import Participation
from hcqsfl.federated.rounds import Federation
from hcqsfl.federated.sealed import RULES, SealedAggregator, SecAggPlus
from hcqsfl.federated.secure_aggregation import SCHEMES, SecureAggregator
from hcqsfl.federated.update import Aggregator, State
from hcqsfl.models.defence import Defence, MakeDefence
from hcqsfl.models.learner import Network
from hcqsfl.models.plan import PROTOCOLS, Plan
from hcqsfl.models.protocols import Data, Setup, set_up
from hcqsfl.privacy import defences
from hcqsfl.privacy.dp_sgd import Privatise
from hcqsfl.randomness import numpy_generator, torch_generator
from hcqsfl.registry import lookup
from hcqsfl.split import Transport, codecs
from hcqsfl.split.codecs import Codec
from hcqsfl.split.codecs.pair import CutCodec

Wear = Callable[[str, Transport], Transport]
"""Client and its transport -> what it is to use instead."""


def _as_it_is(client: str, transport: Transport) -> Transport:
    return transport


def optimizer(config: Config) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """Return what makes the optimiser of any half."""
    t = config.training
    if t.optimizer == "sgd":
        return partial(torch.optim.SGD, lr=t.learning_rate, momentum=t.momentum, weight_decay=t.weight_decay)
    kind = torch.optim.AdamW if t.optimizer == "adamw" else torch.optim.Adam
    return partial(kind, lr=t.learning_rate, weight_decay=t.weight_decay)


def setup(
    config: Config,
    arm: Arm,
    seed: int,
    prepared: Prepared,
    wear: Wear = _as_it_is,
    change: Callable[[Plan], Plan] = lambda plan: plan,
    without: Collection[str] = (),
) -> Setup:
    """Wire one arm on one fold.

    Args:
        config, arm, seed, prepared: settings, which network and protocol, root seed, and windows.
        wear: puts more coats on a client's transport.
        change: makes another plan of the one that the settings describe.
        without: clients to leave out, with their windows.

    Raises:
        ValueError: the settings contradict one another.
    """

    def watched(seed: int, watch: TrustWatch, wear: Wear = _as_it_is, rehearsal: bool = True) -> Setup:
        def listened(client: str, transport: Transport) -> Transport:
            return watch.wear(client, wear(client, transport))

        own = plan(config, arm, seed, prepared, listened, watch.rule)
        if not rehearsal:
            own = change(own)
        joined, data = group(config, arm, seed, prepared)
        ready = set_up(arm.protocol, joined, {c: held for c, held in data.items() if c not in without}, own)
        ready.federation.memories = {**ready.federation.memories, "watch": watch}
        ready.judged = watch.events
        return ready

    if (watch := trust.watch(config, arm, seed, watched)) is not None:
        return watched(seed, watch, wear, rehearsal=False)
    joined, data = group(config, arm, seed, prepared)
    data = {client: held for client, held in data.items() if client not in without}
    chosen = plan(config, arm, seed, prepared, wear)
    ready = set_up(arm.protocol, joined, data, change(chosen))
    root = getattr(chosen.make_aggregator, "keywords", {}).get("root_update")
    if isinstance(root, RootTraining):
        root.federation = ready.federation
    return ready


def group(config: Config, arm: Arm, seed: int, prepared: Prepared) -> tuple[Network, Data]:
    """Return an arm's network and its clients' data."""
    x, y = prepared.x["train"], prepared.y["train"]
    joined = network(config, arm, seed, prepared.training, x.shape[1])
    joined.class_weights = copy.copy(prepared.class_weights)
    return joined, {name: (x[index], y[index]) for name, index in dealt(config, prepared).items()}


def dealt(config: Config, prepared: Prepared) -> dict[str, np.ndarray]:
    """Return which training windows each client holds, but for those that the server holds itself."""
    held = clients(config, prepared.training)
    if config.federation.root_share:
        root = set(_root(config, prepared).tolist())
        held = {name: np.array([i for i in index if i not in root]) for name, index in held.items()}
    return {name: index for name, index in held.items() if len(index)}


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
    wear: Wear = _as_it_is,
    make_aggregator: Callable[[], Aggregator] | None = None,
) -> Plan:
    """Return how a federation is to run; its aggregation rule is that of the settings unless given.

    Raises:
        ValueError: a name is unknown, or an option is not taken or out of range.
    """
    f = config.federation
    rules = lookup("protocol", PROTOCOLS, arm.protocol)
    cut = rules.trunk is not None
    return Plan(
        optimizer(config),
        make_aggregator or _aggregator(config, arm, seed, prepared),
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
        make_defence=_defence(config, seed, prepared),
        secure=_secure(config, seed, arm.protocol),
        privatise=_privatise(config, seed, prepared),
        wear=wear,
        # a baseline whose clients depend on one another takes turns; the chosen protocol is refused where it must
        batched=f.batched and (arm.protocol == f.protocol or rules.independent),
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


def _defence(config: Config, seed: int, prepared: Prepared) -> MakeDefence | None:
    d = config.defence
    if d.name == "none":
        return None

    def flows(client: str, epsilon: float) -> FlowRegion:
        index = dealt(config, prepared)[client]
        attacks = prepared.training.take(index[prepared.training.y[index] != 0])
        return region_of(attacks, prepared.scaler, prepared.training.x[:, :, 0].max(axis=0), epsilon)

    def make(client: str) -> Defence:
        return defences.make(d.name, seed, client, len(prepared.training.classes), flows, **d.options)

    made = make("")  # an unknown name or option is told before anything starts
    if d.name == "two_pi" and getattr(made, "turns", None) and config.trunk.angles != "wrapped":
        raise ValueError(
            "two_pi adds whole turns to angles, which only a trunk that wraps them can take: set trunk.angles = "
            '"wrapped"'
        )
    return make


def _secure(config: Config, seed: int, protocol: str) -> Callable[[Aggregator], Aggregator]:
    f = config.federation
    rules = lookup("protocol", PROTOCOLS, protocol)
    if f.secure_aggregation == "secaggplus" and not rules.pooled:
        return _sealed(config, seed, protocol)
    if f.secure_aggregation == "none" or rules.client != "average":
        return lambda aggregator: aggregator
    options = dict(f.secure_options)
    n_groups = options.pop("n_groups", 1)
    scheme = _options("federation.secure_options", SCHEMES[f.secure_aggregation], {"seed": seed, **options})
    if not scheme.server_learns_sum and f.aggregator != "fedavg":
        raise ValueError(
            f"a server that adds ciphertexts can average them, and no more: {f.aggregator} is not for ckks; take fedavg"
        )

    def wrap(aggregator: Aggregator) -> Aggregator:
        return SecureAggregator(aggregator, scheme, n_groups, seed)

    return wrap


def _sealed(config: Config, seed: int, protocol: str) -> Callable[[Aggregator], Aggregator]:
    f = config.federation
    scheme = _options("federation.secure_options", SecAggPlus, {"seed": seed, **f.secure_options})
    if lookup("protocol", PROTOCOLS, protocol).client != "average":
        able = ", ".join(name for name, each in PROTOCOLS.items() if each.client == "average")
        raise ValueError(
            f"secaggplus hides a client's half in a sum, but in {protocol} nothing is summed, and each half visits the "
            f"server as it is: take one of {able}, or take {protocol} out of evaluation.baselines"
        )
    if f.aggregator not in RULES:
        raise ValueError(
            f"{f.aggregator} judges single updates, of which secaggplus shows the server none: take one of "
            f"{', '.join(RULES)}; or secure_aggregation = 'none'; or, in a simulation, 'masks' with "
            "secure_options.n_groups, whose means a robust rule can compare"
        )
    if f.buffer_size is not None:
        raise ValueError("secaggplus sums the updates of one round: leave federation.buffer_size out")

    def wrap(aggregator: Aggregator) -> Aggregator:
        return SealedAggregator(aggregator, scheme)

    return wrap


def _privatise(config: Config, seed: int, prepared: Prepared) -> Privatise | None:
    d = config.dp_sgd
    if d is None:
        return None
    make = _defence(config, seed, prepared)
    if make is not None and make("").couples_windows:
        raise ValueError(
            f"DP-SGD needs the gradient of each window on its own, but with the defence {config.defence.name} windows "
            "of a batch depend on one another: take one of the two"
        )
    return Privatise(d.noise_multiplier, d.client_clip, d.server_clip, config.federation.batch_size, seed)


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
    if f.aggregator == "trust_weighted":
        if trust.averages(arm.protocol):
            raise ValueError("trust_weighted judges the clients of one data set, and this federation has several")
        return partial(aggregation.make, "fedavg")  # of a baseline that averages nothing
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
        self._last: tuple[State, State] | None = None

    def __call__(self, state: State, version: int) -> State:
        """Return the state that training on the root windows reaches from ``state``; asked again, the same one."""
        if self._last is None or self._last[0] is not state:
            self._last = (state, self._train(state, version))
        return self._last[1]

    def _train(self, state: State, version: int) -> State:
        for part in self.federation.parts if self.federation else ():
            self.joined.load_state_dict(dict(part.final_states().get("", {})), strict=False)
        self.joined.load_state_dict(dict(state), strict=False)
        f = self.config.federation
        server = Client("server", self.joined, self.x, self.y, f.batch_size, f.local_epochs, f.local_steps)
        server.train(optimizer(self.config)(list(self.joined.parameters())), self.seed, version + 1)
        reached = self.joined.state_dict()
        return {name: reached[name].clone() for name in state}
