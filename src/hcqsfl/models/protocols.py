"""Wire the same parts as any protocol: who holds which half, and what becomes of it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hcqsfl.federated.client import Client, Learner, MakeOptimizer
from hcqsfl.federated.rounds import Federation, Part
from hcqsfl.federated.update import Aggregator
from hcqsfl.models.learner import LabelSharingNetwork, Network
from hcqsfl.randomness import torch_generator
from hcqsfl.registry import lookup
from hcqsfl.split import Metered, RemoteLoss, RemoteTrunk, Transport, TrunkServer


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
    "splitfed_v1": Protocol("average", "average", "a trunk copy for each client; both halves averaged each round"),
    "splitfed_v2": Protocol("average", "shared", "one trunk trained by all clients in turn; client halves averaged"),
}


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
        network: a joined copy, for evaluation.
    """

    federation: Federation
    meters: Mapping[str, Metered]
    network: Network

    def networks(self) -> list[Network]:
        """Return the networks as trained so far: one, or one for each client where halves are kept."""
        trained = []
        for states in self.federation.final_states():
            network = copy.deepcopy(self.network)
            network.load_state_dict({name: tensor for state in states.values() for name, tensor in state.items()})
            trained.append(network.eval())
        return trained


def set_up(
    protocol: str,
    network: Network,
    data: Mapping[str, tuple[Tensor, Tensor]],
    *,
    make_optimizer: MakeOptimizer,
    aggregator: Aggregator,
    seed: int,
    batch_size: int,
    local_epochs: int = 1,
    local_steps: int | None = None,
    label_sharing: bool = False,
    wear: Callable[[str, Transport], Transport] = lambda client, transport: transport,
) -> Setup:
    """Wire a network and the clients' data as a protocol says.

    Args:
        protocol: a name in ``PROTOCOLS``.
        network: the joined network as initialised; every client and the server start from copies of it.
        data: each client's windows ``(n, n_chans, n_times)`` and labels ``(n,)``.
        make_optimizer: makes the optimiser of any half.
        aggregator: averages whatever the protocol averages.
        seed: root seed.
        batch_size, local_epochs, local_steps: as in ``Client``.
        label_sharing: whether labels go to the server, which then holds the head too.
        wear: puts more coats on a client's transport, outside the meter.

    Raises:
        ValueError: there is no such protocol, no client, or labels are to be shared where nothing is cut.
    """
    rules = lookup("protocol", PROTOCOLS, protocol)
    if not data:
        raise ValueError("there is no client to train")
    if rules.trunk is None and label_sharing:
        raise ValueError(f"{protocol} cuts nothing, so there is no server to share labels with")
    if rules.pooled:
        data = {"all": (torch.cat([x for x, _ in data.values()]), torch.cat([y for _, y in data.values()]))}

    learners: dict[str, Learner] = {}
    client_halves: dict[str, nn.Module] = {}
    trunk_halves: dict[str, nn.Module] = {}
    server_side = ("trunk", "head") if label_sharing else ("trunk",)
    for name in data:
        own = copy.deepcopy(network)
        if rules.trunk is None:
            learners[name], client_halves[name] = own, own
            continue
        children = dict(own.named_children())
        first = next(iter(trunk_halves.values()), None) if rules.trunk == "shared" else None
        trunk_halves[name] = first or Half(**{k: children[k] for k in server_side})
        client_halves[name] = Half(**{k: module for k, module in children.items() if k not in server_side})

    parts = [Part("client", rules.client, client_halves, make_optimizer, aggregator)]
    meters: dict[str, Metered] = {}
    wires: dict[str, RemoteTrunk | RemoteLoss] = {}
    if rules.trunk is not None:
        parts.append(Part("trunk", rules.trunk, trunk_halves, make_optimizer, aggregator, crosses=False))
        servers: dict[int, TrunkServer] = {}
        loss = nn.CrossEntropyLoss(weight=network.class_weights) if label_sharing else None
        for name, half in trunk_halves.items():
            server = servers.setdefault(id(half), TrunkServer(half, parts[1].optimizers[name], loss))
            meters[name] = Metered(server)
            transport = wear(name, meters[name])
            client_half = client_halves[name]
            if label_sharing:
                remote = wires[name] = RemoteLoss(transport, name)
                learners[name] = LabelSharingNetwork(client_half.get_submodule("front"), remote)
            else:
                wire = wires[name] = RemoteTrunk(transport, name)
                front, head = client_half.get_submodule("front"), client_half.get_submodule("head")
                learners[name] = Network(front, wire, head, network.class_weights)

    clients = [
        Client(
            name,
            learners[name],
            x,
            y,
            batch_size,
            local_epochs,
            local_steps,
            **({"begin_round": wires[name].begin_round} if name in wires else {}),
        )
        for name, (x, y) in data.items()
    ]
    return Setup(Federation(clients, parts, seed), meters, network)


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
