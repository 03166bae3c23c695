"""A federation over three network namespaces: a server and two clients, with distance between them.

    HCQSFL_DATA=data python benchmarks/deployment_distance.py --cables 0 20 100 20:10 20:1 20:100:1

Makes the namespaces, a pair of cables between server and clients, and delays, rate and loss on them by ``tc netem``;
starts ``hcqsfl serve`` and two ``hcqsfl client`` in them under mutual TLS, each client with its dealt share of TON_IoT
alone; and tables rounds a minute and bytes against the cable, which is ``round trip in ms[:Mbit/s[:lost packets in per
cent]]``. Each run is held against the simulated one: same predictions, byte for byte. Needs Linux, root, ``ip`` and
``tc`` (iproute2); says so and ends where they are not. Where the kernel has no netem, the cables are TUN devices, and a
process between them keeps every packet for as long, lets as many bytes through a second and loses as many at random:
TCP, which knows nothing of it, waits, slows down and sends again as over a real one.
"""

import argparse
import fcntl
import json
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOSTS = ("hcqsfl-server", "hcqsfl-1", "hcqsfl-2")
PORT = 7443
QUEUE_SECONDS = 0.5
"""What a cable's sender keeps waiting before it drops packets, in seconds of its rate."""
TUNSETIFF, TUN_WITHOUT_HEADER = 0x400454CA, 0x1001


@dataclass(frozen=True)
class Cable:
    """What lies between two hosts.

    Attributes:
        round_trip: in ms.
        rate: Mbit/s each way.
        loss: packets that are lost each way, per cent.
    """

    round_trip: float
    rate: float = 100.0
    loss: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Cable":
        """Read ``round trip[:rate[:loss]]``."""
        return cls(*map(float, text.split(":")))

    def __str__(self) -> str:
        return f"round trip {self.round_trip:g} ms, {self.rate:g} Mbit/s, {self.loss:g} % lost"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def namespaces(cable: Cable) -> Iterator[None]:
    """Lay such cables between a server and two clients."""
    server, *clients = HOSTS
    netem = has_netem()
    between: subprocess.Popen[str] | None = None
    try:
        for host in HOSTS:
            run("ip", "netns", "add", host)
            run("ip", "-n", host, "link", "set", "lo", "up")
        if not netem:
            command = [sys.executable, __file__, "--between", f"{cable.round_trip}:{cable.rate}:{cable.loss}"]
            between = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert between.stdout is not None
            between.stdout.readline()  # its devices are there
        for i, client in enumerate(clients, 1):
            here, there = f"hq{i}s", f"hq{i}c"
            if netem:
                run("ip", "link", "add", here, "netns", server, "type", "veth", "peer", "name", there, "netns", client)
            for host, link, end in ((server, here, 1), (client, there, 2)):
                if not netem:
                    run("ip", "link", "set", link, "netns", host)
                run("ip", "-n", host, "addr", "add", f"10.77.{i}.{end}/24", "dev", link)
                run("ip", "-n", host, "link", "set", link, "up")
                if netem:
                    how = ["delay", f"{cable.round_trip / 2}ms", "rate", f"{cable.rate}mbit"]
                    how += ["loss", f"{cable.loss}%"] if cable.loss else []
                    run("ip", "netns", "exec", host, "tc", "qdisc", "add", "dev", link, "root", "netem", *how)
        yield
    finally:
        if between is not None:
            between.kill()
            between.wait()
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)


def has_netem() -> bool:
    """Return whether the kernel can delay packets."""
    probe = "hcqsfl-probe"
    try:
        run("ip", "netns", "add", probe)
        run("ip", "-n", probe, "link", "set", "lo", "up")
        run("ip", "netns", "exec", probe, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    except subprocess.CalledProcessError:
        return False
    finally:
        subprocess.run(["ip", "netns", "del", probe], check=False, capture_output=True)
    return True


class Way:
    """One direction of a cable: a queue before a wire of a rate, and the wire's length.

    Args:
        source, sink: TUN devices, as file descriptors.
        cable: what it is like.
        draw: which packets are lost.
    """

    def __init__(self, source: int, sink: int, cable: Cable, draw: random.Random) -> None:
        self.source, self.sink, self.cable, self.draw = source, sink, cable, draw
        self.free = 0.0
        self.under_way: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        """Send what the source has to send on its way."""
        while True:
            try:
                packet = os.read(self.source, 65536)
            except BlockingIOError:
                return
            now = time.monotonic()
            start = max(now, self.free)
            if start - now > QUEUE_SECONDS or self.draw.random() * 100 < self.cable.loss:
                continue
            self.free = start + 8 * len(packet) / (1e6 * self.cable.rate)
            self.under_way.append((self.free + self.cable.round_trip / 2000, packet))

    def give(self) -> float:
        """Hand over what has arrived; return when the next will."""
        while self.under_way and self.under_way[0][0] <= time.monotonic():
            with suppress(OSError):  # the other end is not up yet
                os.write(self.sink, self.under_way.popleft()[1])
        return self.under_way[0][0] if self.under_way else float("inf")


def between(cable: Cable) -> None:
    """Carry packets between pairs of TUN devices, which somebody else moves into their namespaces."""

    def tun(name: str) -> int:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", name.encode(), TUN_WITHOUT_HEADER))
        return device

    ways = {}
    for i in range(1, len(HOSTS)):
        one, other = tun(f"hq{i}s"), tun(f"hq{i}c")
        ways[one], ways[other] = (Way(*ends, cable, random.Random(i)) for ends in ((one, other), (other, one)))
    print("ready", flush=True)
    while True:
        due = min(way.give() for way in ways.values())
        ready, _, _ = select.select(list(ways), [], [], None if due == float("inf") else max(0, due - time.monotonic()))
        for device in ready:
            ways[device].take()


def hcqsfl(*arguments: str, host: str = "") -> subprocess.Popen[str]:
    inside = ["ip", "netns", "exec", host] if host else []
    command = [*inside, sys.executable, "-m", "hcqsfl", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise SystemExit(f"no end within {seconds:.0f} s: {' '.join(process.args)}") from None  # type: ignore[arg-type]
    if process.returncode:
        raise SystemExit(f"{' '.join(process.args)}: {said}")  # type: ignore[arg-type]


def deployed(folder: Path, config: str, settings: Sequence[str], out: str, seconds: float) -> float:
    """Run the federation in the namespaces; return its wall seconds."""
    certs = ("--certs", str(folder / "certs"))
    start = time.perf_counter()
    serving = hcqsfl(
        "serve", config, *settings, *certs, "--listen", f"0.0.0.0:{PORT}", "--out", str(folder / out),
        "--cache", str(folder / "cache"), "--log", str(folder / f"{out}.server.jsonl"), "--overwrite", host=HOSTS[0],
    )  # fmt: skip
    shares = sorted((folder / "shares").iterdir())
    clients = [
        hcqsfl(
            "client", config, *settings, *certs, "--data", str(share), "--server", f"10.77.{i}.1:{PORT}",
            "--log", str(folder / f"{out}.{share.name}.jsonl"), host=host,
        )
        for i, (host, share) in enumerate(zip(HOSTS[1:], shares, strict=True), 1)
    ]  # fmt: skip
    try:
        for process in (*clients, serving):
            finish(process, seconds)
    finally:
        for process in (*clients, serving):
            process.kill()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cables", nargs="+", default=["0", "20", "100", "20:10", "20:1", "20:100:1", "100:100:1"])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25, help="steps of a client in a round")
    parser.add_argument("--config", default=str(ROOT / "configs" / "ton_iot_network.toml"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--between", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.between is not None:
        between(Cable.parse(args.between))
        return
    if sys.platform != "linux" or os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        print("skipped: network namespaces need Linux, root, and ip and tc (iproute2)")
        return
    chosen = [
        "federation.n_clients=2", f"federation.rounds={args.rounds}", f"federation.local_steps={args.steps}",
        "evaluation.seeds=[0]", "evaluation.controls=[]", "evaluation.without_control=true", "evaluation.references=[]",
        "evaluation.n_resamples=100", "deployment.metrics_port=0",
    ]  # fmt: skip
    settings = [word for setting in chosen for word in ("--set", setting)]
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = ("--cache", str(folder / "cache"))
        finish(hcqsfl("train", args.config, *settings, *cache, "--out", str(folder / "simulated")), 900)
        finish(hcqsfl("deal", args.config, *settings, *cache, str(folder / "shares")), 900)
        clients = [word for share in sorted((folder / "shares").iterdir()) for word in ("--client", share.name)]
        hosts = ("--host", "10.77.1.1", "--host", "10.77.2.1")
        finish(hcqsfl("certs", "make", str(folder / "certs"), *clients, *hosts), 60)
        for cable in map(Cable.parse, args.cables):
            out = f"deployed-{cable.round_trip:g}-{cable.rate:g}-{cable.loss:g}"
            with namespaces(cable):
                wall = deployed(folder, args.config, settings, out, 300)
            job = "jobs/hybrid/0/chronological"
            rows = [json.loads(line) for line in (folder / out / job / "metrics.jsonl").read_text().splitlines()]
            seconds = sum(row["seconds"] for row in rows)
            same = all(
                (folder / out / job / file).read_bytes() == (folder / "simulated" / job / file).read_bytes()
                for file in ("predictions.npz",)
            )
            row = {
                "round_trip_ms": cable.round_trip,
                "mbit_a_second": cable.rate,
                "lost_per_cent": cable.loss,
                "by": "netem" if has_netem() else "a process between TUN devices",
                "rounds_a_minute": 60 * len(rows) / seconds,
                "ms_a_step": 1000 * seconds / (len(rows) * 2 * args.steps),
                "kib_up": sum(r["bytes_up"] for r in rows) / len(rows) / 1024,
                "kib_down": sum(r["bytes_down"] for r in rows) / len(rows) / 1024,
                "wall_seconds": wall,
                "as_simulated": same,
            }
            found.append(row)
            print(
                f"{cable} ({row['by']}): {row['rounds_a_minute']:.2f} rounds a minute, "
                f"{row['ms_a_step']:.0f} ms a step, "
                f"{row['kib_up']:.0f} KiB up and {row['kib_down']:.0f} KiB down a round; "
                f"{'the same predictions as simulated' if same else 'OTHER PREDICTIONS THAN SIMULATED'}",
                flush=True,
            )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=2))
    if not all(row["as_simulated"] for row in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
