"""Put servers behind wires and clients before them."""

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hcqsfl.federated.asynchronous import AsyncFederation
from hcqsfl.federated.client import Client
from hcqsfl.federated.parts import Part
from hcqsfl.federated.rounds import Federation, Memory
from hcqsfl.models.batched import BatchedTurns
from hcqsfl.models.defence import Defence
from hcqsfl.models.half import Half
from hcqsfl.models.learner import LabelSharingNetwork, Network
from hcqsfl.models.parties import PartiesFront
from hcqsfl.models.plan import Plan, Protocol
from hcqsfl.split import (
    Metered,
    RemoteLoss,
    RemoteTrunk,
    RemoteVerticalTrunk,
    TrunkServer,
    VerticalTrunkServer,
)
from hcqsfl.split.codecs.pair import PLAIN, CutCodec
from hcqsfl.split.gathered import Seat

Data = Mapping[str, tuple[Tensor, Tensor]]
"""Client to its windows ``(n, n_chans, n_times)`` and labels ``(n,)``."""


def client_of(name: str, learner: nn.Module, data: tuple[Tensor, Tensor], plan: Plan) -> Client:
    """Return a client that trains as the plan says."""
    client = Client(name, learner, *data, plan.batch_size, plan.local_epochs, plan.local_steps, plan.proximal)  # type: ignore[arg-type]
    defence = plan.make_defence(name) if plan.make_defence is not None else None
    client.defence = defence
    client.poisson = plan.privatise is not None
    if isinstance(learner, Network):
        learner.defend(defence)
        learner.divisor = plan.batch_size if client.poisson else None
    return client


def federation_of(
    clients: Sequence[Client],
    parts: Sequence[Part],
    plan: Plan,
    memories: Mapping[str, Memory] | None = None,
    together: BatchedTurns | None = None,
) -> Federation:
    """Return a federation that runs as the plan says, synchronously or not."""
    if plan.buffer_size is None:
        return Federation(clients, parts, plan.seed, plan.participation, plan.clock, memories or {}, together)
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


class Wiring:
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
        self.seats: dict[str, Seat] = {}

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
            self.wired.append((client_of(name, nn.Identity(), each, self.plan), own))
        label = f"client:{group}" if group else "client"
        self.client_parts.append(
            Part(
                label,
                self.rules.client,
                halves,
                self.plan.make_optimizer,
                self.plan.secure(self.plan.make_aggregator()),
                privatise=self.plan.privatise,
            )
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
            return Part(
                name, rule, modules, plan.make_optimizer, aggregator, False, guard=guard, privatise=plan.privatise
            )

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
        return federation_of(self.clients, [*self.client_parts, *hops, trunk], plan, self.memories, self._together())

    def _together(self) -> BatchedTurns | None:
        if not self.plan.batched:
            return None
        learners = {client.name: client.learner for client, _ in self.wired}
        weights = {client.name: own.class_weights for client, own in self.wired}
        return BatchedTurns(self.plan, learners, weights, self.seats)

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
            return PLAIN
        codec = self.plan.make_codec(client, end)
        self.memories[f"{end}/{client}"] = codec
        return codec

    def _server_codec(self, client: str) -> CutCodec:
        found = self.memories.get(f"server/{client}")
        return found if isinstance(found, CutCodec) else self._codec(client, "server")

    def _wire(self, client: Client, own: Network, server: TrunkServer) -> None:
        name, plan = client.name, self.plan
        defence = client.defence if isinstance(client.defence, Defence) else None
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
            self.seats[name] = Seat(server)
            meter = self.meters[name] = client.meter = Metered(self.seats[name] if plan.batched else server)
            transport = plan.wear(name, meter)
            if plan.label_sharing:
                remote = RemoteLoss(transport, name, codec)
                client.wire, client.learner = remote, LabelSharingNetwork(front, remote, defence)
                return
            wire = RemoteTrunk(transport, name, codec)
        client.wire = wire
        client.learner = network = Network(front, wire, half.get_submodule("head"), own.class_weights)
        network.defend(defence)
        network.divisor = plan.batch_size if client.poisson else None


def _blocks(front: nn.Module, start: int, end: int) -> nn.Module:
    if not isinstance(front, nn.Sequential):
        raise ValueError("this front is not made of blocks; it cannot be cut inside")
    return Half(**{str(i): front[i] for i in range(start, end)})


@torch.no_grad()
def _party_widths(front: PartiesFront, x: Tensor) -> dict[str, int]:
    one = x[:1]
    return {party: own(one[:, front.channels[party]]).shape[1] for party, own in front.fronts.items()}
