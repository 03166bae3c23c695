"""Time a U-shaped step over loopback with mutual TLS against the step in process, and the stream against a bare echo.

    PYTHONPATH=tests python benchmarks/deployment_step.py --quick

Client and server are two processes. The same network, batches and optimisers; batch 32; smashed data of 2 KB (16
numbers a window) and 64 KB (512). The contenders take turns; a figure is the median over steps. The echo is a bare gRPC
bidirectional stream of bytes under the same TLS. Limits: 2.5 and 1.5 times the step in process; 70 % of the echo.
"""

import argparse
import multiprocessing
import queue
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
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
from hcqsfl.split import Message, RemoteTrunk, TrunkServer, encode

BATCH = 32
CASES = {"2KB": (16, 2.5), "64KB": (512, 1.5)}
LIMITS = Limits(step_bytes=2**21, turn_bytes=2**20)
ECHO = "/bench.Echo/Echo"
ECHO_SHARE = 0.7


def network(n_smashed: int) -> Network:
    with torch_seeded(0, "bench"):
        front = fronts.make("conv1d", 4, 256, n_smashed=n_smashed, width=16)
        trunk = trunks.make("hybrid", n_smashed, 16, circuits.make("strongly_entangling", 4, 2), "auto")
        return Network(front, trunk, linear_head(16, 3))


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=1e-3)


def server_of(n_smashed: int) -> TrunkServer:
    trunk = network(n_smashed).trunk
    return TrunkServer(trunk, adam(trunk))


def bare(request: bytes) -> bytes:
    """Answer a request with itself: what the stream alone carries."""
    return request


def serve(folder: str, told) -> None:
    torch.set_num_threads(1)
    path = Path(folder)
    identity = certificates.load(path / "certs", "server")
    plane = Plane([*CASES, "echo"], FACTS, LIMITS, Journal(path / "log"), Metrics())
    address = plane.start(Address("127.0.0.1", 0), identity)
    for name, (n_smashed, _) in CASES.items():
        plane.open(name, server_of(n_smashed), Lane())
    plane.open("echo", bare, Lane())
    credentials = grpc.ssl_server_credentials([(identity.key, identity.certificate)], identity.authority, True)
    echo = grpc.server(ThreadPoolExecutor(4), options=LIMITS.channel_options())
    handler = grpc.stream_stream_rpc_method_handler(lambda requests, context: requests)
    echo.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    port = echo.add_secure_port("127.0.0.1:0", credentials)
    echo.start()
    told.send((address.port, port))
    told.recv()
    echo.stop(0)
    plane.stop(0)


class Step:
    """One U-shaped training step after another."""

    def __init__(self, n_smashed: int, transport, client: str) -> None:
        net = network(n_smashed)
        self.net = Network(net.front, RemoteTrunk(transport, client), net.head)
        self.optimizer = adam(nn.ModuleList([net.front, net.head]))
        self.x = torch.randn(BATCH, 4, 256, generator=torch.Generator().manual_seed(0))
        self.y = torch.arange(BATCH) % 3

    def __call__(self) -> None:
        """Take a step."""
        self.optimizer.zero_grad()
        self.net.loss(self.x, self.y).backward()
        self.optimizer.step()


def medians(contenders: dict, steps: int) -> dict[str, float]:
    """Return the median seconds of each, taking turns."""
    times = {name: [] for name in contenders}
    for i in range(steps + 10):
        for name, act in contenders.items():
            start = time.perf_counter()
            act()
            if i >= 10:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    steps = 100 if args.quick else 1000
    torch.set_num_threads(1)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        certificates.make(path / "certs", [*CASES, "echo"])
        here, there = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, there))
        process.start()
        port, echo_port = here.recv()
        for name, (n_smashed, limit) in CASES.items():
            identity = certificates.load(path / "certs", name)
            connection = Connection(Address("127.0.0.1", port), identity, name, GREETING, LIMITS, Journal(path / "c"))
            remote = Step(n_smashed, connection.steps(), name)
            found = medians({"process": Step(n_smashed, server_of(n_smashed), name), "tls": remote}, steps)
            ratio = found["tls"] / found["process"]
            print(f"step, smashed {name}: {1e3 * found['process']:.2f} ms in process, {1e3 * found['tls']:.2f} ms over "
                  f"mutual TLS, ratio {ratio:.2f} (at most {limit})", flush=True)  # fmt: skip
            failed += [f"{name}: {ratio:.2f}"] if ratio > limit else []
            connection.close()
        failed += echoes(path, port, echo_port, steps)
        here.send("done")
        process.join(10)
    if failed:
        sys.exit("over the limit: " + "; ".join(failed))


def echoes(path: Path, port: int, echo_port: int, steps: int) -> list[str]:
    """Compare our stream, with all its checks, to a bare echo of the same bytes."""
    identity = certificates.load(path / "certs", "echo")
    credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
    connection = Connection(Address("127.0.0.1", port), identity, "echo", GREETING, LIMITS, Journal(path / "c"))
    channel = grpc.secure_channel(f"127.0.0.1:{echo_port}", credentials, LIMITS.channel_options())
    ours, echo = connection.steps(), bare_stream(channel)
    failed = []
    for kib in (2, 64, 1024):
        request = encode(Message("evaluate", "echo", 1, 1, {"smashed": torch.zeros(BATCH, 8 * kib)}))
        found = medians({"ours": partial(ours, request), "echo": partial(echo, request)}, steps)
        share = found["echo"] / found["ours"]
        print(f"stream, {kib} KiB both ways: ours {1e3 * found['ours']:.2f} ms, a bare echo {1e3 * found['echo']:.2f}, "
              f"share {share:.0%} (at least {ECHO_SHARE:.0%})", flush=True)  # fmt: skip
        failed += [f"stream at {kib} KiB: {share:.0%}"] if share < ECHO_SHARE else []
    connection.close()
    channel.close()
    return failed


def bare_stream(channel):
    outbox: queue.SimpleQueue = queue.SimpleQueue()
    answers = channel.stream_stream(ECHO)(iter(outbox.get, None))

    def ask(request: bytes) -> bytes:
        outbox.put(request)
        return next(answers)

    return ask


if __name__ == "__main__":
    main()
