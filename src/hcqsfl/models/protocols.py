"""Wire the same parts as any protocol: who holds which half, and what becomes of it.

======================  =============  =======
protocol                client's half  trunk
======================  =============  =======
centralised             keep           keep       (one client that holds everything, nothing cut)
local_only              keep           keep       (nothing cut)
federated               average        average    (nothing cut)
sequential              relay          shared
sequential_own          keep           shared
splitfed_v1             average        average
splitfed_v2             average        shared
splitfed_v3             keep           average
======================  =============  =======

Source: Gupta & Raskar (2018), Distributed learning of deep neural network over multiple agents; Thapa et al. (2022),
SplitFed; Gawali et al. (2021), Comparison of privacy-preserving distributed deep learning methods in healthcare, for
v3; McMahan et al. (2017), Communication-efficient learning of deep networks from decentralized data.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from hcqsfl.federated.asynchronous import AsyncFederation
from hcqsfl.federated.client import Client, MakeOptimizer
from hcqsfl.federated.clock import Clock
from hcqsfl.federated.guard import TrunkGuard
from hcqsfl.federated.participation import Participation
from hcqsfl.federated.parts import Part
from hcqsfl.federated.rounds import Federation, Memory
from hcqsfl.federated.staleness import Discount, constant
from hcqsfl.federated.update import Aggregator
from hcqsfl.models.learner import LabelSharingNetwork, Network
from hcqsfl.models.parties import PartiesFront
from hcqsfl.randomness import torch_generator
from hcqsfl.registry import lookup
from hcqsfl.split import (
    Metered,
    RemoteLoss,
    RemoteTrunk,
    RemoteVerticalTrunk,
    Transport,
    TrunkServer,
    VerticalTrunkServer,
)
from hcqsfl.split.codecs import Codec
from hcqsfl.split.codecs.pair import CutCodec, Passage


@dataclass(frozen=True)
class Protocol:
    """Who trains what, and where.

    Attributes:
        client: what becomes of the client's half; of the whole network where nothing is cut.
        trunk: what becomes of the server's half; ``None`` where nothing is cut.
        pooled: whether one client holds everybody's data.
        meaning: in words, for the report.
    """

    client: str
    trunk: str | None
    meaning: str
    pooled: bool = False


PROTOCOLS = {
    "centralised": Protocol("keep", None, "all training data in one place, nothing cut", pooled=True),
    "federated": Protocol("average", None, "the whole network on every client, averaged each round"),
    "local_only": Protocol("keep", None, "each client alone; each window is judged by one client's own network, drawn"),
    "sequential": Protocol("relay", "shared", "split learning: one trunk, clients in turn, each starts from the last"),
    "sequential_own": Protocol("keep", "shared", "split learning without weight sharing: one trunk, each its own half"),
    "splitfed_v1": Protocol("average", "average", "a trunk copy for each client; both halves averaged each round"),
    "splitfed_v2": Protocol("average", "shared", "one trunk trained by all clients in turn; client halves averaged"),
    "splitfed_v3": Protocol(
        "keep", "average", "a trunk copy for each client, averaged; each client keeps its own half"
    ),
}


@dataclass(frozen=True, eq=False)
class Plan:
    """How a federation is to run, beside its protocol.

    Attributes:
        make_optimizer: makes the optimiser of any part.
        make_aggregator: makes the aggregation rule of any averaged part.
        seed: root seed.
        batch_size, local_epochs, local_steps, proximal: as in ``Client``.
        label_sharing: whether labels go to the server, which then holds the head too.
        cuts: how many of the front's blocks stay with the client, and after how many each further server hands on;
            empty where the client keeps the whole front.
        make_guard: makes what guards a shared trunk.
        participation, clock: as in ``Federation``.
        buffer_size: updates that make a version in asynchronous rounds; ``None`` for synchronous ones.
        discount: of stale updates.
        make_codec: client and end (``"client"`` or ``"server"``) to what codes the messages it sends.
        wear: puts more coats on a client's transport, outside the meter.
    """

    make_optimizer: MakeOptimizer
    make_aggregator: Callable[[], Aggregator]
    seed: int
    batch_size: int
    local_epochs: int = 1
    local_steps: int | None = None
    proximal: float = 0.0
    label_sharing: bool = False
    cuts: tuple[int, ...] = ()
    make_guard: Callable[[], TrunkGuard] | None = None
    participation: Participation = field(default_factory=Participation)
    clock: Clock = field(default_factory=Clock)
    buffer_size: int | None = None
    discount: Discount = field(default_factory=constant)
    make_codec: Callable[[str, str], CutCodec] | None = None
    wear: Callable[[str, Transport], Transport] = lambda client, transport: transport


class Half(nn.Module):
    """Some of a network's children, under the names they have there, so that the halves' states make up the whole's."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        """Pass ``x`` through the children in order."""
        for child in self.children():
            x = child(x)
        return x


@dataclass(eq=False)
class Setup:
    """A federation ready to run.

    Attributes:
        federation: clients and parts.
        meters: what counts each client's bytes; empty where nothing is cut.
        joined: group of clients to its network as initialised, whole, for evaluation; one under ``""`` without groups.
        codec: what activations are coded by on their way, if they are.
    """

    federation: Federation
    meters: Mapping[str, Metered]
    joined: Mapping[str, Network]
    codec: Codec | None = None

    @property
    def network(self) -> Network:
        """The joined copy where all clients have the same network."""
        (network,) = self.joined.values()
        return network

    def networks(self, group: str = "") -> list[Network]:
        """Return the networks as trained so far: one, or one for each client where halves are kept."""
        trained = []
        for states in self.federation.final_states(group):
            network = copy.deepcopy(self.joined[group])
            network.load_state_dict({name: tensor for state in states.values() for name, tensor in state.items()})
            if self.codec is not None:
                network.there, network.back = Passage(self.codec, "smashed"), Passage(self.codec, "features")
            trained.append(network.eval())
        return trained


Data = Mapping[str, tuple[Tensor, Tensor]]


def set_up(protocol: str, network: Network, data: Data, plan: Plan) -> Setup:
    """Wire a network and the clients' data as a protocol says.

    Args:
        protocol: a name in ``PROTOCOLS``.
        network: the joined network as initialised; every client and the server start from copies of it.
        data: each client's windows ``(n, n_chans, n_times)`` and labels ``(n,)``.
        plan: how it is to run.

    Raises:
        ValueError: there is no such protocol, no client, or the plan does not fit the protocol.
    """
    return set_up_groups(protocol, {"": (network, data)}, plan)


def set_up_groups(protocol: str, groups: Mapping[str, tuple[Network, Data]], plan: Plan) -> Setup:
    """Wire several groups of clients, each with fronts and heads of its own, around one trunk.

    Args:
        protocol: a name in ``PROTOCOLS``.
        groups: name of each group (a data set) to its network and its clients' data. The trunks must be of one shape;
            that of the first group is the one they share.
        plan: how it is to run.

    Raises:
        ValueError: as ``set_up``; or trunks differ, a client is in two groups, or there is nothing to share.
    """
    rules = lookup("protocol", PROTOCOLS, protocol)
    _check(protocol, rules, groups, plan)
    if rules.trunk is None:
        ((name, (network, data)),) = groups.items()
        return Setup(_joined(rules, network, _pooled(data) if rules.pooled else data, plan), {}, {name: network})
    wiring = _Wiring(rules, plan, next(iter(groups.values()))[0])
    for name, (network, data) in groups.items():
        wiring.add_group(name, network, data)
    codec = plan.make_codec("", "client").activations if plan.make_codec is not None else None
    return Setup(wiring.federation(), wiring.meters, {name: network for name, (network, _) in groups.items()}, codec)


def _check(protocol: str, rules: Protocol, groups: Mapping[str, tuple[Network, Data]], plan: Plan) -> None:
    clients = [client for _, data in groups.values() for client in data]
    if not clients:
        raise ValueError("there is no client to train")
    if len(set(clients)) < len(clients):
        raise ValueError("a client is in two groups; give it another name in each")
    if rules.trunk is None:
        if plan.label_sharing:
            raise ValueError(f"{protocol} cuts nothing, so there is no server to share labels with")
        if plan.cuts:
            raise ValueError(f"{protocol} cuts nothing, but a cut after block {plan.cuts[0]} was asked for")
        if len(groups) > 1:
            raise ValueError(f"{protocol} has no trunk that {len(groups)} groups of clients could share")
    if plan.label_sharing and len(plan.cuts) > 1:
        raise ValueError("labels are shared with one server; with several hops they stay with the client")
    if plan.label_sharing and len(groups) > 1:
        raise ValueError("groups of clients share a trunk, not a head: with several groups labels stay with the client")
    if plan.make_codec is not None and (rules.trunk is None or plan.cuts):
        why = "cuts nothing" if rules.trunk is None else "is cut inside the front"
        raise ValueError(f"codecs make what crosses the cut of a whole front smaller, but {protocol} {why}")
    if plan.make_guard is not None and rules.trunk != "shared":
        raise ValueError(f"a guard is for a trunk that all clients train; {protocol} has none")
    first = next(iter(groups.values()))[0].trunk.state_dict()
    for name, (network, _) in groups.items():
        other = network.trunk.state_dict()
        if {k: t.shape for k, t in first.items()} != {k: t.shape for k, t in other.items()}:
            raise ValueError(
                f"the trunk of group {name} has another shape: a shared trunk needs equal widths of the cut"
            )
        _check_cuts(network, plan)


def _check_cuts(network: Network, plan: Plan) -> None:
    if not plan.cuts:
        return
    if not isinstance(network.front, nn.Sequential):
        raise ValueError("this front is not made of blocks; it cannot be cut inside")
    ends = [*plan.cuts, len(network.front)]
    if sorted(set(plan.cuts)) != list(plan.cuts) or not 1 <= ends[0] <= ends[-1] or max(plan.cuts) > len(network.front):
        raise ValueError(
            f"cuts {list(plan.cuts)} must rise and lie between 1 and {len(network.front)}, the front's blocks"
        )


def _pooled(data: Data) -> Data:
    return {"all": (torch.cat([x for x, _ in data.values()]), torch.cat([y for _, y in data.values()]))}


def _client(name: str, learner: nn.Module, data: tuple[Tensor, Tensor], plan: Plan) -> Client:
    return Client(name, learner, *data, plan.batch_size, plan.local_epochs, plan.local_steps, plan.proximal)  # type: ignore[arg-type]


def _federation(
    clients: Sequence[Client], parts: Sequence[Part], plan: Plan, memories: Mapping[str, Memory] | None = None
) -> Federation:
    if plan.buffer_size is None:
        return Federation(clients, parts, plan.seed, plan.participation, plan.clock, memories or {})
    return AsyncFederation(
        clients,
        parts,
        plan.seed,
        plan.participation,
        plan.clock,
        memories or {},
        buffer_size=plan.buffer_size,
        discount=plan.discount,
    )


def _joined(rules: Protocol, network: Network, data: Data, plan: Plan) -> Federation:
    copies = {name: copy.deepcopy(network) for name in data}
    part = Part("client", rules.client, copies, plan.make_optimizer, plan.make_aggregator())
    clients = [_client(name, copies[name], each, plan) for name, each in data.items()]
    return _federation(clients, [part], plan)


class _Wiring:
    """Makes client halves, servers and wires, group by group, around the trunk of the first group."""

    def __init__(self, rules: Protocol, plan: Plan, first: Network) -> None:
        self.rules, self.plan, self.first = rules, plan, first
        self.clients: list[Client] = []
        self.client_parts: list[Part] = []
        self.meters: dict[str, Metered] = {}
        self.trunks: dict[str, nn.Module] = {}
        self.hops: list[dict[str, nn.Module]] = [{} for _ in plan.cuts[1:]]
        self.halves: dict[str, nn.Module] = {}
        self.wired: list[tuple[Client, Network]] = []
        self.memories: dict[str, Memory] = {}

    def add_group(self, group: str, network: Network, data: Data) -> None:
        """Take in one group: its clients' halves, and for each client a trunk or the shared one."""
        halves: dict[str, nn.Module] = {}
        for name, each in data.items():
            own = copy.deepcopy(network)
            own.trunk = copy.deepcopy(self.first.trunk)
            halves[name] = (
                Half(front=_blocks(own.front, 0, self.plan.cuts[0])) if self.plan.cuts else Half(front=own.front)
            )
            if not self.plan.label_sharing:
                halves[name].add_module("head", own.head)
            shared = self.rules.trunk == "shared" and bool(self.trunks)
            self._add_server_halves(name, own, shared)
            self.wired.append((_client(name, nn.Identity(), each, self.plan), own))
        label = f"client:{group}" if group else "client"
        self.client_parts.append(
            Part(label, self.rules.client, halves, self.plan.make_optimizer, self.plan.make_aggregator())
        )
        self.halves |= halves

    def _add_server_halves(self, name: str, own: Network, shared: bool) -> None:
        cuts = self.plan.cuts
        for i, (start, end) in enumerate(pairwise(cuts)):
            first = next(iter(self.hops[i].values()), None) if shared else None
            self.hops[i][name] = first or Half(front=_blocks(own.front, start, end))
        if shared:
            self.trunks[name] = next(iter(self.trunks.values()))
            return
        held: dict[str, nn.Module] = {}
        if cuts and isinstance(own.front, nn.Sequential) and cuts[-1] < len(own.front):
            held["front"] = _blocks(own.front, cuts[-1], len(own.front))
        held["trunk"] = own.trunk
        if self.plan.label_sharing:
            held["head"] = own.head
        self.trunks[name] = Half(**held)

    def federation(self) -> Federation:
        """Put servers behind the wires, and clients before them."""
        plan = self.plan
        rule = str(self.rules.trunk)

        def part(name: str, modules: Mapping[str, nn.Module]) -> Part:
            guard = plan.make_guard() if plan.make_guard is not None else None
            aggregator = plan.make_aggregator()
            return Part(name, rule, modules, plan.make_optimizer, aggregator, crosses=False, guard=guard)

        trunk = part("trunk", self.trunks)
        hops = [part(f"hop{i + 1}", modules) for i, modules in enumerate(self.hops)]
        servers: dict[int, TrunkServer] = {}
        for client, own in self.wired:
            name = client.name
            key = id(self.trunks[name])
            if key not in servers:
                servers[key] = self._server(name, own, trunk, hops)
            self._wire(client, own, servers[key])
            self.clients.append(client)
        return _federation(self.clients, [*self.client_parts, *hops, trunk], plan, self.memories)

    def _server(self, name: str, own: Network, trunk: Part, hops: Sequence[Part]) -> TrunkServer:
        loss = nn.CrossEntropyLoss(weight=own.class_weights) if self.plan.label_sharing else None
        if isinstance(own.front, PartiesFront):
            parties = tuple(own.front.fronts)
            return VerticalTrunkServer(self.trunks[name], trunk.optimizers[name], parties, codec_for=self._server_codec)
        server = TrunkServer(self.trunks[name], trunk.optimizers[name], loss, codec_for=self._server_codec)
        for hop in reversed(hops):  # each server but the last runs its blocks and asks the next one
            chain = nn.Sequential(hop.modules[name], RemoteTrunk(server, "hop"))
            server = TrunkServer(chain, hop.optimizers[name])
        return server

    def _codec(self, client: str, end: str) -> CutCodec:
        if self.plan.make_codec is None:
            return CutCodec()
        codec = self.plan.make_codec(client, end)
        self.memories[f"{end}/{client}"] = codec
        return codec

    def _server_codec(self, client: str) -> CutCodec:
        found = self.memories.get(f"server/{client}")
        return found if isinstance(found, CutCodec) else self._codec(client, "server")

    def _wire(self, client: Client, own: Network, server: TrunkServer) -> None:
        name, plan = client.name, self.plan
        codec = self._codec(name, "client")
        self._server_codec(name)
        half = self.halves[name]
        front = half.get_submodule("front")
        if isinstance(front, PartiesFront):
            widths = _party_widths(front, client.x)
            meters = {party: Metered(server) for party in widths}
            self.meters |= {f"{name}/{party}": meter for party, meter in meters.items()}
            transports = {party: plan.wear(f"{name}/{party}", meter) for party, meter in meters.items()}
            wire: RemoteTrunk = RemoteVerticalTrunk(transports, widths, name, codec)
            client.meter = meters[list(meters)[-1]]
        else:
            meter = self.meters[name] = client.meter = Metered(server)
            transport = plan.wear(name, meter)
            if plan.label_sharing:
                remote = RemoteLoss(transport, name, codec)
                client.wire, client.learner = remote, LabelSharingNetwork(front, remote)
                return
            wire = RemoteTrunk(transport, name, codec)
        client.wire = wire
        client.learner = Network(front, wire, half.get_submodule("head"), own.class_weights)


def _blocks(front: nn.Module, start: int, end: int) -> nn.Module:
    if not isinstance(front, nn.Sequential):
        raise ValueError("this front is not made of blocks; it cannot be cut inside")
    return Half(**{str(i): front[i] for i in range(start, end)})


@torch.no_grad()
def _party_widths(front: PartiesFront, x: Tensor) -> dict[str, int]:
    one = x[:1]
    return {party: own(one[:, front.channels[party]]).shape[1] for party, own in front.fronts.items()}


@torch.no_grad()
def predict(network: nn.Module, x: Tensor, batch_size: int = 512) -> Tensor:
    """Return logits ``(n, n_outputs)`` of windows ``(n, n_chans, n_times)``, in evaluation mode."""
    network.eval()
    return torch.cat([network(batch) for batch in x.split(batch_size)])


def predict_by_lot(networks: Sequence[nn.Module], x: Tensor, seed: int) -> Tensor:
    """Return logits ``(n, n_outputs)``, each window's from one of the networks, drawn.

    With several networks (each client's own) this is what a client can expect of its own, not of an ensemble that
    nobody has.
    """
    if len(networks) == 1:
        return predict(networks[0], x)
    lot = torch.randint(len(networks), (len(x),), generator=torch_generator(seed, "lot"))
    logits = [predict(network, x) for network in networks]
    return torch.stack(logits)[lot, torch.arange(len(x))]
