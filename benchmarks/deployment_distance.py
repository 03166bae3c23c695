"""A federation over three network namespaces: a server and two clients, with distance between them.

    HCQSFL_DATA=data python benchmarks/deployment_distance.py --delays 0 20 100

Makes the namespaces, a pair of virtual cables between server and clients, and delays, loss and rate on them by ``tc
netem``; starts ``hcqsfl serve`` and two ``hcqsfl client`` in them under mutual TLS, each client with its dealt share of
TON_IoT alone; and tables rounds a minute and bytes against the delay. Each run is held against the simulated one: same
predictions, byte for byte. Needs Linux, root, ``ip`` and ``tc`` (iproute2); says so and ends where they are not. Where
the kernel has no netem, a relay before the server holds every byte back for as long instead, and the table says so.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOSTS = ("hcqsfl-server", "hcqsfl-1", "hcqsfl-2")
PORT, RELAY = 7443, 7444


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def namespaces(delay: float, loss: float, rate: str) -> Iterator[None]:
    """Lay cables between a server and two clients; ``delay`` in ms each way, ``loss`` in per cent, where netem is."""
    server, *clients = HOSTS
    netem = has_netem()
    relay: subprocess.Popen[str] | None = None
    try:
        for host in HOSTS:
            run("ip", "netns", "add", host)
            run("ip", "-n", host, "link", "set", "lo", "up")
        for i, client in enumerate(clients, 1):
            here, there = f"hq{i}s", f"hq{i}c"
            run("ip", "link", "add", here, "netns", server, "type", "veth", "peer", "name", there, "netns", client)
            for host, link, end in ((server, here, 1), (client, there, 2)):
                run("ip", "-n", host, "addr", "add", f"10.77.{i}.{end}/24", "dev", link)
                run("ip", "-n", host, "link", "set", link, "up")
                if netem:
                    how = ["delay", f"{delay}ms", "rate", rate, *(["loss", f"{loss}%"] if loss else [])]
                    run("ip", "netns", "exec", host, "tc", "qdisc", "add", "dev", link, "root", "netem", *how)
        if not netem:
            command = ["ip", "netns", "exec", server, sys.executable, __file__, "--relay", str(delay / 1000)]
            relay = subprocess.Popen(command, text=True)
        yield
    finally:
        if relay is not None:
            relay.kill()
            relay.wait()
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


def relay(delay: float) -> None:
    """Pass on what comes at ``RELAY`` to the server's port, each byte ``delay`` seconds later, both ways."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def let_go() -> None:
            while True:
                when, data = await held.get()
                await asyncio.sleep(max(0.0, when - time.monotonic()))
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        going = asyncio.create_task(let_go())
        data = b" "
        while data:
            data = await reader.read(65536)
            await held.put((time.monotonic() + delay, data))
        await going

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                inner, outer = await asyncio.open_connection("127.0.0.1", PORT)
                break
            except OSError:  # the server is not up yet
                await asyncio.sleep(0.1)
        await asyncio.gather(pump(reader, outer), pump(inner, writer), return_exceptions=True)

    async def serve() -> None:
        server = await asyncio.start_server(accept, "0.0.0.0", RELAY)
        await server.serve_forever()

    asyncio.run(serve())


def hcqsfl(*arguments: str, host: str = "") -> subprocess.Popen[str]:
    inside = ["ip", "netns", "exec", host] if host else []
    command = [*inside, sys.executable, "-m", "hcqsfl.cli", *arguments]
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
    port = PORT if has_netem() else RELAY
    certs = ("--certs", str(folder / "certs"))
    start = time.perf_counter()
    serving = hcqsfl(
        "serve", config, *settings, *certs, "--listen", f"0.0.0.0:{PORT}", "--out", str(folder / out),
        "--cache", str(folder / "cache"), "--log", str(folder / f"{out}.server.jsonl"), "--overwrite", host=HOSTS[0],
    )  # fmt: skip
    shares = sorted((folder / "shares").iterdir())
    clients = [
        hcqsfl(
            "client", config, *settings, *certs, "--data", str(share), "--server", f"10.77.{i}.1:{port}",
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
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 20, 100], help="round trips in ms")
    parser.add_argument("--loss", type=float, default=0.0, help="lost packets, per cent")
    parser.add_argument("--rate", default="100mbit", help="bandwidth of each cable")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25, help="steps of a client in a round")
    parser.add_argument("--config", default=str(ROOT / "configs" / "ton_iot_network.toml"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--relay", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.relay is not None:
        relay(args.relay)
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
        for delay in args.delays:
            out = f"deployed-{delay:g}"
            with namespaces(delay / 2, args.loss, args.rate):
                wall = deployed(folder, args.config, settings, out, 300)
            job = "jobs/hybrid/0/chronological"
            rows = [json.loads(line) for line in (folder / out / job / "metrics.jsonl").read_text().splitlines()]
            seconds = sum(row["seconds"] for row in rows)
            same = all(
                (folder / out / job / file).read_bytes() == (folder / "simulated" / job / file).read_bytes()
                for file in ("predictions.npz",)
            )
            row = {
                "round_trip_ms": delay,
                "rounds_a_minute": 60 * len(rows) / seconds,
                "ms_a_step": 1000 * seconds / (len(rows) * 2 * args.steps),
                "kib_up": sum(r["bytes_up"] for r in rows) / len(rows) / 1024,
                "kib_down": sum(r["bytes_down"] for r in rows) / len(rows) / 1024,
                "wall_seconds": wall,
                "as_simulated": same,
            }
            found.append(row)
            print(
                f"{'netem' if has_netem() else 'relay: this kernel has no netem, so neither loss nor rate'}; "
                f"round trip {delay:g} ms: {row['rounds_a_minute']:.2f} rounds a minute, "
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
