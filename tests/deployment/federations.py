"""Whole federations in one process: a server and devices that speak over gRPC, as processes would."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hcqsfl import config as settings
from hcqsfl.config import Config
from hcqsfl.deployment import certificates
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.device import Device, shares_for
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.plane import Plane
from hcqsfl.deployment.serve import orchestrate, serving
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.evaluation.result import Result
from hcqsfl.federated import checkpoint
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.train import train
from made_people import settings_text

CONFIG = settings_text(
    "Made-up people",
    trunk={"kind": "classical", "backend": "fused"},
    evaluation={"references": []},
    deployment={
        "listen": "127.0.0.1:0",
        "metrics_port": 0,
        "rejoin_seconds": 20.0,
        "turn_seconds": 30.0,
        "step_seconds": 10.0,
        "connect_seconds": 15.0,
        "insecure": True,
    },
)
SECONDS = 60.0
"""Longest wait of a test."""


@dataclass
class Home:
    """A folder with recordings, settings and certificates."""

    path: Path
    threads: list[threading.Thread] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def config(self, *overrides: str) -> Config:
        return settings.load(self.path / "c.toml", overrides)

    def simulate(self, out: str, *overrides: str) -> Result:
        return train(self.config(*overrides), self.path / out, cache=self.path / "cache")

    @contextmanager
    def serving(self, config: Config) -> Iterator[tuple[Plane, Address]]:
        with serving(config, self.path / "cache", Journal(self.path / "server.jsonl")) as (plane, address):
            yield plane, address
        for thread in self.threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), f"{thread.name} hangs"
        self.threads.clear()

    def device(self, config: Config, name: str, address: Address) -> Device:
        shares = shares_for(config, name, self.path / "cache")
        return Device(config, name, shares, address, Journal(self.path / f"{name}.jsonl", name))

    def start(self, run: Callable[[], None], name: str) -> None:
        def guarded() -> None:
            try:
                run()
            except BaseException as error:
                self.failures.append(error)

        self.threads.append(threading.Thread(target=guarded, name=name, daemon=True))
        self.threads[-1].start()

    def deploy(
        self, out: str, *overrides: str, through: Callable[[Address], Address] = lambda a: a, **options
    ) -> Result:
        config = self.config(*overrides)
        with self.serving(config) as (plane, address):
            for name in sorted(plane.clients):
                self.start(self.device(config, name, through(address)).run, name)
            result = self.orchestrate(config, out, plane, **options)
        assert not self.failures, self.failures
        return result

    def orchestrate(self, config: Config, out: str, plane: Plane, **options) -> Result:
        cache = self.path / "cache"
        return orchestrate(config, self.path / out, plane, plane, progress=Progress(), cache=cache, **options)

    def certificates(self, *clients: str) -> list[str]:
        certificates.make(self.path / "certs", clients)
        return [f'deployment.certificates="{self.path / "certs"}"', "deployment.insecure=false"]

    def contents(self, out: str) -> dict[str, object]:
        """Everything of a run that must not differ: weights, optimisers, predictions, rows but for their seconds."""
        folder = self.path / out
        found: dict[str, object] = {}
        for path in sorted((folder / "jobs").rglob("checkpoint.safetensors")):
            tensors, facts = checkpoint.load(path)
            found[str(path.relative_to(folder))] = ({k: v.numpy().tobytes() for k, v in tensors.items()}, facts)
        for path in sorted((folder / "jobs").rglob("predictions.npz")):
            p = Predictions.load(path)
            found[str(path.relative_to(folder))] = (p.y.tobytes(), p.scores.tobytes())
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found["rows"] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        found["files"] = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        return found

    def assert_same(self, one: str, other: str, *, traffic: bool = True) -> None:
        """Hold two runs against each other; without ``traffic``, but for what a lost turn sent beside the rest."""
        a, b = self.contents(one), self.contents(other)
        for found in () if traffic else (a, b):
            for row in found["rows"]:
                for key in ("bytes_up", "bytes_down", "bytes_cut", "messages"):
                    del row[key]
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == b[key], key
