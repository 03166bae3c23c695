"""Set a protocol up: the same parts, wired as it says (see ``hcqsfl.models.plan`` for the protocols)."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from hcqsfl.federated.parts import Part
from hcqsfl.federated.rounds import Event, Federation
from hcqsfl.models.batched import BatchedTurns
from hcqsfl.models.defence import MakeDefence
from hcqsfl.models.learner import Network
from hcqsfl.models.parties import PartiesFront
from hcqsfl.models.plan import PROTOCOLS, Plan, Protocol
from hcqsfl.models.stacked import check_stackable
from hcqsfl.models.wiring import Data, Wiring, client_of, federation_of
from hcqsfl.registry import lookup
from hcqsfl.split import Metered
from hcqsfl.split.codecs import Codec
from hcqsfl.split.codecs.pair import Passage


@dataclass(eq=False)
class Setup:
    """A federation ready to run.

    Attributes:
        federation: clients and parts.
        meters: what counts each client's bytes; empty where nothing is cut.
        joined: group of clients to its network as initialised, whole, for evaluation; one under ``""`` without groups.
        codec: what activations are coded by on their way, if they are.
        make_defence: makes what stands between a front and the wire, if anything does.
        judged: tells what was decided about clients in a round, by its number.
    """

    federation: Federation
    meters: Mapping[str, Metered]
    joined: Mapping[str, Network]
    codec: Codec | None = None
    make_defence: MakeDefence | None = None
    judged: Callable[[int], tuple[Event, ...]] = lambda number: ()

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
            if self.make_defence is not None:
                defence = self.make_defence("evaluation")
                defence.begin_round(self.federation.round)
                network.defend(defence)
            trained.append(network.eval())
        return trained


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
        joined = _joined(rules, network, _pooled(data) if rules.pooled else data, plan)
        return Setup(joined, {}, {name: network}, make_defence=plan.make_defence)
    wiring = Wiring(rules, plan, next(iter(groups.values()))[0])
    for name, (network, data) in groups.items():
        wiring.add_group(name, network, data)
    codec = plan.make_codec("", "client").activations if plan.make_codec is not None else None
    networks = {name: network for name, (network, _) in groups.items()}
    return Setup(wiring.federation(), wiring.meters, networks, codec, plan.make_defence)


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
    if plan.privatise is not None and (plan.label_sharing or plan.proximal or len(plan.cuts) > 1):
        why = "label sharing" if plan.label_sharing else "a proximal term" if plan.proximal else "several hops"
        raise ValueError(f"DP-SGD is for one cut (or none) where clients keep their labels, not for {why}")
    if plan.make_guard is not None and rules.trunk != "shared":
        raise ValueError(f"a guard is for a trunk that all clients train; {protocol} has none")
    if plan.batched:
        _check_batched(protocol, rules, groups, plan)
    first = next(iter(groups.values()))[0].trunk.state_dict()
    for name, (network, _) in groups.items():
        other = network.trunk.state_dict()
        if {k: t.shape for k, t in first.items()} != {k: t.shape for k, t in other.items()}:
            raise ValueError(
                f"the trunk of group {name} has another shape: a shared trunk needs equal widths of the cut"
            )
        _check_cuts(network, plan)


def _check_batched(protocol: str, rules: Protocol, groups: Mapping[str, tuple[Network, Data]], plan: Plan) -> None:
    why = ""
    if not rules.independent:
        able = ", ".join(name for name, each in PROTOCOLS.items() if each.independent)
        why = f"train independently within a round; take one of {able} in place of {protocol}"
    elif plan.buffer_size is not None:
        why = "begin and end together; asynchronous rounds do not"
    elif plan.make_defence is not None:
        why = "send what their fronts make; a defence is each client's own"
    elif plan.privatise is not None:
        why = "be moved by the mean of their batches; DP-SGD looks at each window"
    elif len(plan.cuts) > 1:
        why = "reach one server; with several hops there are several"
    elif any(isinstance(network.front, PartiesFront) for network, _ in groups.values()):
        why = "send their smashed data whole; in a vertical split there are parties"
    if why:
        raise ValueError(f"batched clients must {why}; or set federation.batched = false")
    for network, _ in groups.values():
        check_stackable(network)


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


def _joined(rules: Protocol, network: Network, data: Data, plan: Plan) -> Federation:
    copies = {name: copy.deepcopy(network) for name in data}
    aggregator = plan.secure(plan.make_aggregator())
    part = Part("client", rules.client, copies, plan.make_optimizer, aggregator, privatise=plan.privatise)
    clients = [client_of(name, copies[name], each, plan) for name, each in data.items()]
    together = None
    if plan.batched:
        learners = {client.name: client.learner for client in clients}
        together = BatchedTurns(plan, learners, dict.fromkeys(data, network.class_weights))
    return federation_of(clients, [part], plan, together=together)
