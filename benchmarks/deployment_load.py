"""Many devices at one server: latency percentiles, memory, and how busy four clients keep it.

    PYTHONPATH=tests python benchmarks/deployment_load.py --quick

The server is a process of its own; each device is a thread with its own connection under mutual TLS that trains its own
front against one trunk, steps of all interleaved. Busy is the share of wall time that the server spends on answers.
"""

import argparse
import multiprocessing
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from deployment_step import LIMITS, Step, server_of

from deployment.planes import FACTS, GREETING
from hcqsfl.deployment import certificates
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.connection import Connection
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.lane import Lane
from hcqsfl.deployment.metrics import Metrics
from hcqsfl.deployment.plane import Plane

N_SMASHED = 16


def names(n: int) -> list[str]:
    return [f"device-{i}" for i in range(n)]


def serve(folder: str, n: int, told) -> None:
    torch.set_num_threads(1)
    path = Path(folder)
    metrics = Metrics()
    plane = Plane(names(n), FACTS, LIMITS, Journal(path / "log"), metrics)
    address = plane.start(Address("127.0.0.1", 0), certificates.load(path / "certs", "server"))
    server, lane = server_of(N_SMASHED), Lane()
    server.interleaved = True
    for name in names(n):
        plane.open(name, server, lane)
    told.send(address.port)
    told.recv()
    before, began, start = metrics.busy._value.get(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time()
    told.send("ready")
    told.recv()
    spent = metrics.busy._value.get() - before
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began
    told.send((spent / (time.time() - start), began / 1024, grown / 1024))
    plane.stop(0)


def device(
    path: Path, port: int, name: str, barrier: threading.Barrier, until: list[float], found: list[float]
) -> None:
    identity = certificates.load(path / "certs", name)
    connection = Connection(Address("127.0.0.1", port), identity, name, GREETING, LIMITS, Journal(path / "c"))
    steps = connection.steps()

    def timed(request: bytes) -> bytes:
        start = time.perf_counter()
        answer = steps(request)
        found.append(time.perf_counter() - start)
        return answer

    step = Step(N_SMASHED, timed, name)
    step()
    barrier.wait(120)
    found.clear()
    while time.monotonic() < until[0]:
        step()
    connection.close()


def measure(n: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        certificates.make(path / "certs", names(n))
        here, there = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, n, there))
        process.start()
        port = here.recv()
        until, barrier = [float("inf")], threading.Barrier(n + 1)
        times: list[list[float]] = [[] for _ in range(n)]
        arguments = [(path, port, name, barrier, until, times[i]) for i, name in enumerate(names(n))]
        threads = [threading.Thread(target=device, args=each) for each in arguments]
        for thread in threads:
            thread.start()
        here.send("begin")
        here.recv()
        until[0] = time.monotonic() + seconds
        barrier.wait(120)
        until[0] = time.monotonic() + seconds
        for thread in threads:
            thread.join(seconds + 60)
        here.send("end")
        busy, mib, grown = here.recv()
        process.join(10)
    all_ = 1e3 * np.concatenate([np.array(t) for t in times])
    p50, p95, p99 = np.percentile(all_, [50, 95, 99])
    print(f"{n} devices, {seconds:.0f} s: {len(all_) / 2 / seconds:.0f} steps a second; a message takes {p50:.1f} ms "
          f"(median), {p95:.1f} (95 %), {p99:.1f} (99 %); server busy {busy:.0%}, {mib:.0f} MiB, {grown:+.1f} MiB",
          flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for n in (4,) if args.quick else (4, 50):
        measure(n, 5 if args.quick else 30)


if __name__ == "__main__":
    main()
