"""A whole federation on one machine: a server and its clients as real processes, watched over and begun again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.deployment import certificates, share
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.journal import read
from hcqsfl.deployment.serve import refuse_sealed

SERVER = certificates.SERVER
START_SECONDS = 300.0
END_SECONDS = 20.0


@dataclass(eq=False)
class Child:
    """A process of the federation.

    Attributes:
        name: ``server``, or the client's.
        command: what runs it.
        log: folder of its journal and its output.
        process: the process; ``None`` until it was begun.
        begun: how often it was begun.
    """

    name: str
    command: Sequence[str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    begun: int = 0

    @property
    def journal(self) -> Path:
        """Its JSON lines."""
        return self.log / f"{self.name}.jsonl"

    def start(self, *more: str) -> None:
        """Begin the process."""
        output = (self.log / f"{self.name}.out").open("ab")
        with output:
            self.process = subprocess.Popen(
                [*self.command, *more], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self.begun += 1

    def stop(self, seconds: float) -> None:
        """Ask the process to end; make it, if it does not."""
        if self.process is None or self.process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=5)

    @property
    def status(self) -> int | None:
        """Its exit status; ``None`` while it runs."""
        return None if self.process is None else self.process.poll()

    def last_words(self) -> str:
        """What it wrote last, for an error message."""
        lines = (self.log / f"{self.name}.out").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        told = [line for line in lines if line.startswith("hcqsfl:")]
        return (told or lines or ["nothing was written"])[-1][:500]


@dataclass(eq=False)
class State:
    """How a federation stands, for the live table.

    Attributes:
        total: rounds of all trainings.
        done: rounds done.
        rows: the last round of each training.
        clients: name to what its process does.
        connected: clients that were connected at the end of the last round.
    """

    total: int = 0
    done: int = 0
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    clients: dict[str, str] = field(default_factory=dict)
    connected: int = 0


class Up:
    """Runs a federation on this machine.

    Args:
        config: settings; addresses and certificates in it are chosen here.
        out: folder of the run.
        cache: folder of parsed windows.
        resume, overwrite: as in ``recipes.train.train``.
        restarts: how often a process that was killed is begun again.

    Raises:
        ValueError, OSError: the settings, the recordings or the folder do not allow it.
    """

    def __init__(
        self,
        config: Config,
        out: Path,
        *,
        cache: Path,
        resume: bool = False,
        overwrite: bool = False,
        restarts: int = 10,
    ) -> None:
        refuse_sealed(config)
        self.out, self.restarts = out, restarts
        self.side = side = out.with_name(out.name + ".deployment")
        side.mkdir(parents=True, exist_ok=True)
        windows = build.windows(config, cache)
        names = share.client_names(config, windows)
        certs = side / "certs"
        if not config.deployment.insecure:
            missing = [name for name in names if not (certs / f"{name}.crt").exists()]
            if missing or not (certs / "server.crt").exists():
                for old in certs.glob("*"):
                    old.unlink()
                certificates.make(certs, names)
        for old in (*side.glob("*.jsonl"), *side.glob("*.out")):
            old.unlink()
        update = {"certificates": certs, "listen": "127.0.0.1:0", "server": "", "metrics_port": 0}
        resolved = config.model_copy(update={"deployment": config.deployment.model_copy(update=update)})
        path = side / "config.toml"
        path.write_text(resolved.to_toml(), encoding="utf-8")
        hcqsfl = [sys.executable, "-m", "hcqsfl"]
        common = ["--cache", str(cache)]
        again = ["--resume"] if resume else ["--overwrite"] if overwrite else []
        self._first = again
        self.server = Child(
            SERVER,
            [*hcqsfl, "serve", str(path), "--out", str(out), "--log", str(side / "server.jsonl"), *common],
            side,
        )
        self.clients = [
            Child(
                name,
                [*hcqsfl, "client", str(path), "--name", name, "--log", str(side / f"{name}.jsonl"), *common],
                side,
            )
            for name in names
        ]
        self.address: Address | None = None
        self.metrics_port = 0
        self.state = State()

    def run(self, show: Callable[[State], None] = lambda state: None) -> None:
        """Run the federation to its end.

        Raises:
            ValueError: a process failed for good; its last words follow.
        """
        try:
            self.server.start(*self._first)
            self._await_listening()
            for client in self.clients:
                self._start_client(client)
            while self.server.status is None or self._revive_server():
                for client in self.clients:
                    self._look_after(client)
                self._read()
                show(self.state)
                time.sleep(0.25)
            self._read()
            show(self.state)
            until = time.monotonic() + END_SECONDS
            while any(c.status is None for c in self.clients) and time.monotonic() < until:
                time.sleep(0.05)
        finally:
            for child in [*self.clients, self.server]:
                child.stop(5.0)

    def pids(self) -> dict[str, int]:
        """Return the processes that run, by name."""
        return {c.name: c.process.pid for c in [self.server, *self.clients] if c.process and c.process.poll() is None}

    def kill(self, name: str) -> bool:
        """Kill a process, as a power cut would; return whether it ran."""
        pid = self.pids().get(name)
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def _start_client(self, client: Child) -> None:
        client.start("--server", str(self.address))

    def _await_listening(self) -> None:
        until = time.monotonic() + START_SECONDS
        begun = self.server.begun
        while sum(event["event"] == "listening" for event in read(self.server.journal)) < begun:
            if self.server.status is not None:
                if self.server.status < 0:  # killed before it could listen
                    return
                raise ValueError(f"the server ended at once: {self.server.last_words()}")
            if time.monotonic() > until:
                raise ValueError(f"the server did not listen within {START_SECONDS:.0f} s")
            time.sleep(0.05)
        events = read(self.server.journal)
        self.address = Address.parse([e["address"] for e in events if e["event"] == "listening"][-1])
        self.metrics_port = [e["port"] for e in events if e["event"] == "metrics"][-1]

    def _revive_server(self) -> bool:
        status = self.server.status
        if status == 0:
            return False
        if status is not None and status > 0:
            raise ValueError(f"the server failed: {self.server.last_words()}")
        if self.server.begun > self.restarts:
            raise ValueError(f"the server was killed {self.server.begun} times; it is not begun again")
        again = "--resume" if (self.out / "config.toml").is_file() else None
        fixed = ["--listen", str(self.address)] if self.address is not None else []
        self.server.start(*([again] if again else self._first), *fixed)
        return True

    def _look_after(self, client: Child) -> None:
        status = client.status
        if status == 0 or status is None:
            self.state.clients[client.name] = "running" if status is None else "done"
            return
        if status > 0:
            raise ValueError(f"client {client.name} failed: {client.last_words()}")
        if client.begun > self.restarts:
            raise ValueError(f"client {client.name} was killed {client.begun} times; it is not begun again")
        self._start_client(client)
        self.state.clients[client.name] = f"begun again, {client.begun - 1} times"

    def _read(self) -> None:
        events = read(self.server.journal)
        self.state.done = 0
        seen: set[tuple[str, int]] = set()
        for event in events:
            if event["event"] == "started":
                self.state.total = event["rounds"]
            elif event["event"] == "round":
                seen.add((event["training"], event["round"]))
                self.state.rows[event["training"]] = event
                self.state.connected = event["clients"]
        self.state.done = len(seen)
