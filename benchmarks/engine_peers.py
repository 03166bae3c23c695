"""Measure simulated client steps per second: ours, Flower's simulation engine, and SplitFed written as a plain loop.

    python benchmarks/engine_peers.py --quick
    python benchmarks/engine_peers.py --json benchmarks/results/engine_peers.json

Ten clients, about 200 Adam steps each in a round, one thread a client. All arms train the same network from the same
start on the same windows in the same batches:

- ``federated``, ``splitfed_v1``, ``splitfed_v2``: our engine, clients in turn in one process, messages as bytes;
- the first two ``batched``: the same with the clients of a round as one batch (``federation.batched``), on one thread
  and on as many as Flower has cores;
- ``flower``: FedAvg of the joined network in Flower's simulation engine (Ray), as many clients at once as there are
  cores, each with our own local training, so that only the engine differs;
- ``v1 paper``, ``v2 paper``: SplitFed as algorithms 1 and 2 of the paper say, tensors detached at the cut, nothing
  serialised, nothing checked, networks copied once a round;
- ``v1 published``, ``v2 published``: as the authors' published program works: windows through a ``DataLoader`` one by
  one, the server's network copied before and after each batch, a new optimiser for each batch (so that Adam forgets).

Labels are shared in every split arm, as there. Rounds of all arms take turns; ours run between two rounds of Flower's,
whose clients then wait. A figure is the median over the rounds; Flower's start-up and its first round are told apart.
Before anything is timed, one short round of each arm with plain SGD must reach the same weights.

Flower is not a dependency: without it (``pip install 'flwr[simulation]'``, best in an environment of its own) its arm
is left out, saying so.

Source: Thapa et al. (2022), SplitFed: when federated learning meets split learning, algorithms 1 and 2;
https://github.com/chandra2thapa/SplitFed-When-Federated-Learning-Meets-Split-Learning.
"""

import copy
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is there, for the processes of Ray too

import torch
from engine_workload import BATCH, Data, adam, arguments, clients, facts, network, plan, sgd, show, windows, write
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hcqsfl.federated.participation import Participation
from hcqsfl.models.protocols import set_up
from hcqsfl.randomness import torch_generator

CASES = [("tabular", "classical"), ("tabular", "hybrid"), ("conv1d", "hybrid")]
FLOWER_OURS = "federated"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}

State = Mapping[str, Tensor]
Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Arm:
    """One way to run rounds."""

    def run_round(self) -> None:
        """Let every client train once, and average."""
        raise NotImplementedError

    def state(self) -> State:
        """Return the joined network as trained so far."""
        raise NotImplementedError


class Ours(Arm):
    """Our engine."""

    def __init__(
        self,
        protocol: str,
        front: str,
        trunk: str,
        data: Data,
        epochs: int,
        optimizer: Optimizer,
        batched: bool = False,
        threads: int = 1,
    ) -> None:
        how = {"local_epochs": epochs, "batched": batched, "label_sharing": protocol != "federated"}
        self.setup = set_up(protocol, network(front, trunk), data, plan(optimizer, **how))
        self.threads = threads

    def run_round(self) -> None:
        """Run a round, in which nothing may go wrong."""
        torch.set_num_threads(self.threads)
        done = self.setup.federation.run_round()
        torch.set_num_threads(1)
        if done.events:
            raise SystemExit(f"a round did not go as planned: {done.events[0].what}")

    def state(self) -> State:
        """Return the joined network."""
        (parts,) = self.setup.federation.final_states()
        return {name: tensor for state in parts.values() for name, tensor in state.items()}


class Server(nn.Module):
    """Trunk and head, as the server holds them where labels are shared."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, smashed: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.trunk(smashed))
        return logits


class Front(nn.Module):
    """What a client holds."""

    def __init__(self, front: nn.Module) -> None:
        super().__init__()
        self.front = front

    def forward(self, x: Tensor) -> Tensor:
        """Return smashed data."""
        smashed: Tensor = self.front(x)
        return smashed


class Paper(Arm):
    """SplitFed v1 or v2 as a plain loop."""

    def __init__(self, version: int, front: str, trunk: str, data: Data, epochs: int, optimizer: Optimizer) -> None:
        whole = network(front, trunk)
        self.version, self.data, self.epochs, self.optimizer = version, data, epochs, optimizer
        self.client, self.server = Front(whole.front), Server(whole.trunk, whole.head)
        self.shared = optimizer(list(self.server.parameters()))
        self.number = 0

    def batches(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a client's turn."""
        x, y = self.data[name]
        for order in orders(name, self.number, len(y), self.epochs):
            for batch in order.split(BATCH):
                yield x[batch], y[batch]

    def run_round(self) -> None:
        """Train all clients in turn, then average."""
        self.number += 1
        turns, _ = Participation().draw(list(self.data), 0, self.number)
        fronts, servers = [], []
        for name in turns:
            front = copy.deepcopy(self.client)
            servers.append(self.train(name, front))
            fronts.append(front.state_dict())
        self.client.load_state_dict(average(fronts))
        if self.version == 1:
            self.server.load_state_dict(average(servers))

    def train(self, name: str, front: nn.Module) -> State:
        """Train through a client's turn, and return the server's state after it."""
        server = copy.deepcopy(self.server) if self.version == 1 else self.server
        moves_front = self.optimizer(list(front.parameters()))
        moves_server = self.optimizer(list(server.parameters())) if self.version == 1 else self.shared
        for x, y in self.batches(name):
            moves_front.zero_grad()
            below = front(x)
            smashed = below.clone().detach().requires_grad_(True)
            moves_server.zero_grad()
            loss = nn.functional.cross_entropy(server(smashed), y)
            loss.backward()
            moves_server.step()
            loss.item()
            below.backward(smashed.grad.clone().detach())
            moves_front.step()
        return server.state_dict()

    def state(self) -> State:
        """Return the joined network."""
        return {**self.client.state_dict(), **self.server.state_dict()}


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """A client's windows, one by one."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


class Published(Paper):
    """The same with the habits of the published program."""

    def batches(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a client's turn."""
        for order in orders(name, self.number, len(self.data[name][1]), self.epochs):
            yield from DataLoader(Windows(*self.data[name]), batch_size=BATCH, sampler=order.tolist())

    def train(self, name: str, front: nn.Module) -> State:
        """Train through a client's turn, and return the server's state after it."""
        held = self.server
        moves_front = self.optimizer(list(front.parameters()))
        for x, y in self.batches(name):
            moves_front.zero_grad()
            below = front(x)
            smashed = below.clone().detach().requires_grad_(True)
            server = copy.deepcopy(held)
            moves_server = self.optimizer(list(server.parameters()))
            moves_server.zero_grad()
            logits = server(smashed)
            loss = nn.functional.cross_entropy(logits, y)
            right = (logits.argmax(dim=1) == y).float().mean()
            loss.backward()
            moves_server.step()
            loss.item(), right.item()
            held = copy.deepcopy(server)
            below.backward(smashed.grad.clone().detach())
            moves_front.step()
        if self.version == 2:
            self.server = held
        return held.state_dict()


def orders(name: str, number: int, n: int, epochs: int) -> Iterator[Tensor]:
    """Yield the windows of each epoch in the order in which our clients take them."""
    generator = torch_generator(0, "batches", name, number)
    for _ in range(epochs):
        yield torch.randperm(n, generator=generator)


def average(states: Sequence[State]) -> State:
    mean = copy.deepcopy(dict(states[0]))
    for name in mean:
        for other in states[1:]:
            mean[name] += other[name]
        mean[name] = torch.div(mean[name], len(states))
    return mean


def arms(front: str, trunk: str, data: Data, epochs: int, optimizer: Optimizer, cores: int = 1) -> dict[str, Arm]:
    common = (front, trunk, data, epochs, optimizer)
    ours = {name: Ours(name, *common) for name in ("federated", "splitfed_v1", "splitfed_v2")}
    for name in ("federated", "splitfed_v1"):
        ours[f"{name} batched"] = Ours(name, *common, batched=True)
        if cores > 1:
            ours[f"{name} batched, {cores} threads"] = Ours(name, *common, batched=True, threads=cores)
    paper = {f"v{version} paper": Paper(version, *common) for version in (1, 2)}
    published = {f"v{version} published": Published(version, *common) for version in (1, 2)}
    return {**ours, **paper, **published}


def check(front: str, trunk: str) -> None:
    """Let each arm do one short round with plain SGD, and compare."""
    found = arms(front, trunk, clients(front, 3, 2 * BATCH), 2, sgd)
    for arm in found.values():
        arm.run_round()
        arm.run_round()
    twins = {
        "splitfed_v1": "federated",
        "federated batched": "federated",
        "splitfed_v1 batched": "splitfed_v1",
    } | {f"v{version} {kind}": f"splitfed_v{version}" for version in (1, 2) for kind in ("paper", "published")}
    for name, twin in twins.items():
        compare(name, found[name].state(), found[twin].state())


def compare(name: str, state: State, twin: State) -> None:
    for key, tensor in twin.items():
        if not torch.allclose(state[key], tensor, **TOLERANCE):
            worst = float((state[key] - tensor).abs().max())
            raise SystemExit(f"{name} reached another {key} (by {worst:.1e}): the work is not the same")


def flower(
    front: str,
    trunk: str,
    names: list[str],
    n: int,
    epochs: int,
    rounds: int,
    cores: int,
    between: Callable[[], None],
    after_first: Callable[[State], None],
) -> tuple[list[float], list[float], float]:
    """Run FedAvg in Flower's simulation engine.

    Args:
        front, trunk: of the network.
        names: the clients.
        n: windows of each.
        epochs: passes over them in a round.
        rounds: how many.
        cores: how many clients may train at once.
        between: called before each round, while Flower's clients wait.
        after_first: called with the state that the first round reached.

    Returns:
        Seconds of each round, seconds that processors worked on it, and seconds from the call to the first round.
    """
    import logging

    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        client, part = _flower_client(front, trunk, names[int(context.node_config["partition-id"])], n, epochs)
        part.state = message.content["arrays"].to_torch_state_dict()
        part.hand_out(client.name)
        done = client.train(part.optimizers[client.name], 0, int(message.content["config"]["server-round"]))
        metrics = MetricRecord({"num-examples": done.num_examples})
        arrays = ArrayRecord(part.modules[client.name].state_dict())
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    server = ServerApp()
    marks: list[tuple[float, float]] = []
    work: list[tuple[float, float]] = []

    def mark(number: int, arrays: ArrayRecord) -> MetricRecord:
        ended, worked = time.perf_counter(), processor_seconds()
        torch.set_num_threads(1)
        if number == 1:
            after_first(arrays.to_torch_state_dict())
        if number < rounds:
            between()
        marks.append((ended, time.perf_counter()))
        work.append((worked, processor_seconds()))
        return MetricRecord({"round": number})

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=len(names), min_available_nodes=len(names))
        initial = ArrayRecord(network(front, trunk).state_dict())
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds, evaluate_fn=mark)

    start = time.perf_counter()
    run_simulation(
        server,
        app,
        num_supernodes=len(names),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": cores, "logging_level": "error", "include_dashboard": False},
        },
    )
    seconds = [later[0] - earlier[1] for earlier, later in pairwise(marks)]
    worked = [later[0] - earlier[1] for earlier, later in pairwise(work)]
    return seconds, worked, marks[0][0] - start


def processor_seconds() -> float:
    """Return the seconds that processors have worked for this process and all below it (Linux)."""
    parents, used = {}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        process = int(status.parent.name)
        parents[process], used[process] = int(fields[1]), int(fields[11]) + int(fields[12])
    total = 0
    for process, ticks in used.items():
        above = process
        while above > 1 and above != os.getpid():
            above = parents.get(above, 0)
        total += ticks if above == os.getpid() else 0
    return total / os.sysconf("SC_CLK_TCK")


_CLIENTS: dict[tuple[str, str, str], Any] = {}


def _flower_client(front: str, trunk: str, name: str, n: int, epochs: int) -> Any:
    # a process of Ray keeps what it has made, as a careful user of Flower would
    key = (front, trunk, name)
    if key not in _CLIENTS:
        data = {name: windows(front, int(name.rpartition("-")[2]), n)}
        setup = set_up("federated", network(front, trunk), data, plan(local_epochs=epochs))
        _CLIENTS[key] = setup.federation.clients[0], setup.federation.parts[0]
    return _CLIENTS[key]


def measure(front: str, trunk: str, n_clients: int, epochs: int, rounds: int, cores: int) -> dict[str, Any]:
    """Return the client steps per second of each arm."""
    check(front, trunk)
    n = 20 * BATCH
    data = clients(front, n_clients, n)
    steps = n_clients * epochs * 20
    running = arms(front, trunk, data, epochs, adam, cores)
    times: dict[str, list[float]] = {name: [] for name in running}
    busy: dict[str, list[float]] = {name: [] for name in running}

    def turn() -> None:
        for name, arm in running.items():
            start, before = time.perf_counter(), time.process_time()
            arm.run_round()
            times[name].append(time.perf_counter() - start)
            busy[name].append(time.process_time() - before)

    found: dict[str, Any] = {"front": front, "trunk": trunk, "clients": n_clients, "steps a round": steps}
    if find_spec("flwr") is None or find_spec("ray") is None:
        for _ in range(rounds):
            turn()
    else:
        # later, Adam blows up what another order of summands makes of the average
        seconds, worked, start_up = flower(
            front, trunk, list(data), n, epochs, rounds, cores, turn,
            lambda state: compare("flower", state, running[FLOWER_OURS].state()),
        )  # fmt: skip
        # the first round makes networks and windows in each process of Ray
        times["flower"], busy["flower"] = seconds[1:] or seconds, worked[1:] or worked
        found["flower start-up"] = {"to the first round": start_up, "first round": seconds[0]}
    found["seconds a round"] = {name: statistics.median(each) for name, each in times.items()}
    found["steps per second"] = {name: steps / seconds for name, seconds in found["seconds a round"].items()}
    found["steps per second of processor"] = {name: steps / statistics.median(each) for name, each in busy.items()}
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, help="rounds of each arm (2 with --quick, else 4)")
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1), help="clients at once in Flower")
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="only this one")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    epochs = 1 if args.quick else 10
    cases = CASES[:1] if args.quick else CASES
    found = []
    for front, trunk in cases if args.case is None else [CASES[args.case]]:
        found.append(measure(front, trunk, args.clients, epochs, args.rounds or (2 if args.quick else 4), args.cores))
        report(found[-1], args.cores)
        write(args.json, {"about": facts(), "cores for flower": args.cores, "cases": found})
    if find_spec("flwr") is None or find_spec("ray") is None:
        print("Flower was left out: it is not installed here (pip install 'flwr[simulation]')")


PAIRS = [
    ("federated", "flower"),
    ("federated batched", "flower"),
    ("federated batched, 2 threads", "flower"),
    ("splitfed_v1", "v1 paper"),
    ("splitfed_v1", "v1 published"),
    ("splitfed_v1 batched", "v1 paper"),
    ("splitfed_v1 batched", "v1 published"),
    ("splitfed_v1 batched, 2 threads", "v1 published"),
    ("splitfed_v2", "v2 paper"),
    ("splitfed_v2", "v2 published"),
]


def report(found: dict[str, Any], cores: int) -> None:
    rates = found["steps per second"]
    worked = found["steps per second of processor"]
    rows = [
        [name, f"{rate:.0f}", f"{worked[name]:.0f}", f"{found['seconds a round'][name]:.2f}"]
        for name, rate in rates.items()
    ]
    show(
        f"{found['front']} front, {found['trunk']} trunk: {found['clients']} clients, "
        f"{found['steps a round']} client steps a round",
        ["", "client steps per second", "per second of processor", "s a round"],
        rows,
        f"load average {facts()['load_average_1_min']}",
    )
    for ours, theirs in PAIRS:
        if ours in rates and theirs in rates:
            by_processor = worked[ours] / worked[theirs]
            print(f"{ours} / {theirs}: {rates[ours] / rates[theirs]:.2f}, per second of processor {by_processor:.2f}")
    if "flower start-up" in found:
        told = found["flower start-up"]
        print(
            f"flower ran {cores} clients at once; {told['to the first round']:.1f} s to its first round, "
            f"which took {told['first round']:.1f} s"
        )


if __name__ == "__main__":
    main()
