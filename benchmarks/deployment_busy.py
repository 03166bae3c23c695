"""How busy four clients keep a server whose answers travel while it computes the next.

    PYTHONPATH=tests python benchmarks/deployment_busy.py --quick

Server and clients are processes of their own under mutual TLS. *Busy* is the share of wall time in which the server has
a step in hand, from the bytes of a message to those of its answer, several at once counted once; *computing* is the
processor time that those steps took, as a share of wall time: what is left of busy is waiting for a core or for
Python's lock. Clients train as they do in an experiment, all on this machine's cores, beside the server; or, on ``hosts
of their own``, they sleep for as long as their half of a step takes them alone, which is what a server sees of clients
that are machines of their own. Steps of all clients come as they come (``order = "free"``), at one trunk, or at a copy
each (``splitfed_v1``, as simulated). Where clients take turns, nothing can overlap.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from deployment.planes import FACTS, GREETING
from hcqsfl.deployment import certificates
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.connection import Connection
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.lane import Lane
from hcqsfl.deployment.limits import Limits
from hcqsfl.deployment.metrics import Metrics
from hcqsfl.deployment.plane import Plane
from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.quantum import circuits
from hcqsfl.randomness import torch_seeded
from hcqsfl.split import RemoteTrunk, TrunkServer

BATCH, N_CLIENTS, N_SMASHED, N_FEATURES = 32, 4, 8, 32
LIMITS = Limits(step_bytes=2**21, turn_bytes=2**20)
FRONTS = {"conv1d": (4, 256, {"width": 16}), "tabular": (40, 1, {"width": 256})}
TRUNKS = {
    "classical": ("classical", 8, 3),
    "8 qubits": ("hybrid", 8, 3),
    "10 qubits": ("hybrid", 10, 3),
    "12 qubits": ("hybrid", 12, 3),
}


def network(front: str, trunk: str) -> Network:
    n_chans, n_times, options = FRONTS[front]
    kind, n_qubits, n_layers = TRUNKS[trunk]
    with torch_seeded(0, "bench"):
        below = fronts.make(front, n_chans, n_times, n_smashed=N_SMASHED, **options)
        circuit = circuits.make("strongly_entangling", n_qubits, n_layers)
        return Network(below, trunks.make(kind, N_SMASHED, N_FEATURES, circuit, "auto"), linear_head(N_FEATURES, 3))


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=1e-3)


class Watched:
    """A transport that counts its messages, and the processor time that they took."""

    def __init__(self, transport: Callable[[bytes], bytes]) -> None:
        self.transport = transport
        self.computing, self.messages = 0.0, 0

    def __call__(self, request: bytes) -> bytes:
        """Answer."""
        before = time.thread_time()
        answer = self.transport(request)
        self.computing += time.thread_time() - before
        self.messages += 1
        return answer


def names() -> list[str]:
    return [f"client-{i}" for i in range(1, N_CLIENTS + 1)]


def serve(folder: str, front: str, trunk: str, shared: bool, told) -> None:
    torch.set_num_threads(1)
    path = Path(folder)
    metrics = Metrics()
    plane = Plane(names(), FACTS, LIMITS, Journal(path / "log"), metrics)
    address = plane.start(Address("127.0.0.1", 0), certificates.load(path / "certs", "server"))
    one, common = network(front, trunk).trunk, Lane()
    optimizer, watched = adam(one), []
    for name in names():
        own = one if shared else network(front, trunk).trunk
        server = TrunkServer(own, optimizer if shared else adam(own))
        server.interleaved = shared
        watched.append(Watched(server))
        plane.open(name, watched[-1], common if shared else Lane())

    def read() -> list[float]:
        computing, messages = sum(w.computing for w in watched), sum(w.messages for w in watched)
        return [time.perf_counter(), metrics.busy._value.get(), computing, messages, time.process_time()]

    told.send(address.port)
    while (seconds := told.recv()) is not None:
        before = read()
        time.sleep(seconds)
        told.send([[b - a for a, b in zip(before, read(), strict=True)], min(w.messages for w in watched)])
    plane.stop(0)


def client(folder: str, port: int, i: int, front: str, trunk: str, pause: float | None, stop, spent) -> None:
    torch.set_num_threads(1)
    path, name = Path(folder), names()[i]
    identity = certificates.load(path / "certs", name)
    connection = Connection(Address("127.0.0.1", port), identity, name, GREETING, LIMITS, Journal(path / "c"))
    wire = RemoteTrunk(connection.steps(), name)
    step = training(front, trunk, wire) if pause is None else sleeping(wire, pause)
    while not stop.is_set():
        step()
        spent[i] = time.process_time()
    connection.close()


def training(front: str, trunk: str, wire: RemoteTrunk) -> Callable[[], None]:
    """Return a client's step, its half of the network trained for real."""
    net = network(front, trunk)
    mine = Network(net.front, wire, net.head)
    optimizer = adam(nn.ModuleList([net.front, net.head]))
    n_chans, n_times, _ = FRONTS[front]
    x, y = torch.randn(BATCH, n_chans, n_times), torch.arange(BATCH) % 3

    def step() -> None:
        optimizer.zero_grad()
        mine.loss(x, y).backward()
        optimizer.step()

    return step


def sleeping(wire: RemoteTrunk, pause: float) -> Callable[[], None]:
    """Return a step that sends what a client sends, and sleeps as long as its half takes."""
    smashed, gradient = torch.randn(BATCH, N_SMASHED), torch.full((BATCH, N_FEATURES), 1e-3)

    def step() -> None:
        number = wire.next_step()
        wire.send_smashed(smashed, "forward", number)
        time.sleep(0.1 * pause)  # the head and the loss
        wire.send_gradient(gradient, number)
        time.sleep(0.9 * pause)

    return step


def alone(front: str, trunk: str, steps: int = 200) -> tuple[float, float]:
    """Return the processor seconds of a step in process: the server's and the client's."""
    spent = []
    server_net = network(front, trunk).trunk
    server = TrunkServer(server_net, adam(server_net))

    def transport(request: bytes) -> bytes:
        before = time.thread_time()
        answer = server(request)
        spent[-1] += time.thread_time() - before
        return answer

    step, whole = training(front, trunk, RemoteTrunk(transport, "a")), []
    for _ in range(steps):
        spent.append(0.0)
        before = time.thread_time()
        step()
        whole.append(time.thread_time() - before)
    at_server = statistics.median(spent[steps // 4 :])
    return at_server, statistics.median(whole[steps // 4 :]) - at_server


def measure(front: str, trunk: str, shared: bool, own_hosts: bool, seconds: float) -> dict:
    at_server, at_client = alone(front, trunk)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        certificates.make(Path(folder) / "certs", names())
        here, there = context.Pipe()
        server = context.Process(target=serve, args=(folder, front, trunk, shared, there))
        server.start()
        port, stop, spent = here.recv(), context.Event(), context.Array("d", N_CLIENTS)
        pause = at_client if own_hosts else None
        clients = [
            context.Process(target=client, args=(folder, port, i, front, trunk, pause, stop, spent))
            for i in range(N_CLIENTS)
        ]
        for process in clients:
            process.start()
        until, fewest = time.monotonic() + 120, 0
        while fewest < 100 and time.monotonic() < until:  # everybody is to be up and warm
            here.send(0.25)
            _, fewest = here.recv()
        before = sum(spent)
        here.send(seconds)
        (wall, busy, computing, messages, processor), _ = here.recv()
        at_clients = sum(spent) - before
        stop.set()
        for process in clients:
            process.join(10)
        here.send(None)
        server.join(10)
    return {
        "front": front,
        "trunk": trunk,
        "one trunk": shared,
        "hosts": "of their own" if own_hosts else "this machine",
        "server_ms": 1e3 * at_server,
        "client_ms": 1e3 * at_client,
        "busy": busy / wall,
        "computing": computing / wall,
        "server_cores": processor / wall,
        "client_cores": at_clients / wall,
        "steps_a_second": messages / 2 / wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--fronts", nargs="+", default=list(FRONTS), choices=list(FRONTS))
    parser.add_argument("--trunks", nargs="+", default=list(TRUNKS), choices=list(TRUNKS))
    parser.add_argument("--hosts", nargs="+", default=["this", "own"], choices=["this", "own"])
    parser.add_argument("--copies", action="store_true", help="a copy of the trunk for each client, instead of one")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seconds = args.seconds or (4 if args.quick else 10)
    found = []
    for front in args.fronts:
        for trunk in args.trunks:
            for hosts in args.hosts:
                row = measure(front, trunk, not args.copies, hosts == "own", seconds)
                found.append(row)
                print(f"{front}, {trunk}, clients on {'hosts of their own' if hosts == 'own' else 'this machine'}: "
                      f"server {row['server_ms']:.2f} ms, client {row['client_ms']:.2f} ms a step; busy "
                      f"{row['busy']:.0%}, computing {row['computing']:.0%}, {row['steps_a_second']:.0f} steps a "
                      f"second; processes take {row['server_cores']:.2f} cores (server) and {row['client_cores']:.2f} "
                      "(clients)", flush=True)  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
