"""What a server tells Prometheus, on loopback only, and `hcqsfl status` a person."""

import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.parser import text_string_to_metric_families

LOOPBACK = "127.0.0.1"
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Metrics:
    """The counters of one server process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.clients = Gauge("hcqsfl_clients", "Clients that are connected.", registry=registry)
        self.round = Gauge("hcqsfl_round", "Rounds done of the training under way.", registry=registry)
        self.rounds = Counter("hcqsfl_rounds", "Rounds done in all.", registry=registry)
        self.loss = Gauge("hcqsfl_training_loss", "Mean training loss of the last round.", registry=registry)
        self.steps = Counter("hcqsfl_messages", "Messages answered.", ["client"], registry=registry)
        self.bytes = Counter("hcqsfl_bytes", "Bytes across the cut.", ["client", "direction"], registry=registry)
        self.refused = Counter("hcqsfl_refused", "Streams and frames refused.", ["reason"], registry=registry)
        self.lost = Counter("hcqsfl_lost", "Clients lost in their turn.", registry=registry)
        self.busy = Counter(
            "hcqsfl_busy_seconds", "Seconds with a step in hand, several at once counted once.", registry=registry
        )
        self.seconds = Histogram(
            "hcqsfl_answer_seconds", "From a message's arrival to its answer.", registry=registry, buckets=_BUCKETS
        )
        self._http: tuple[Any, threading.Thread] | None = None
        self._lock = threading.Lock()
        self._at_work, self._since = 0, 0.0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count the time inside the block as busy, that of several threads at once only once."""
        with self._lock:
            if not self._at_work:
                self._since = time.perf_counter()
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1
                if not self._at_work:
                    self.busy.inc(time.perf_counter() - self._since)

    def serve(self, port: int) -> int:
        """Answer Prometheus on a port of the loopback, 0 for one that is free; return which.

        Raises:
            OSError: the port is taken.
        """
        try:
            server, thread = start_http_server(port, LOOPBACK, self.registry)
        except OSError as error:
            raise OSError(f"the port {port} for metrics on {LOOPBACK} cannot be opened: {error.strerror}") from None
        self._http = (server, thread)
        return int(server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        if self._http is not None:
            server, thread = self._http
            server.shutdown()
            server.server_close()
            thread.join(timeout=5)
            self._http = None


def fetch(port: int, seconds: float = 5.0) -> dict[str, Any]:
    """Ask a server on this machine how it stands.

    Raises:
        OSError: nobody answers there.
    """
    url = f"http://{LOOPBACK}:{port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            text = answer.read().decode()
    except OSError as error:
        raise OSError(f"no server answers at {url} ({getattr(error, 'reason', error)})") from None
    plain: dict[str, float] = {}
    by_client: dict[str, dict[str, float]] = defaultdict(dict)
    refused: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("hcqsfl_").removesuffix("_total")
            if sample.name.endswith(("_created", "_bucket")):
                continue
            if "client" in sample.labels:
                by_client[sample.labels["client"]][
                    "_".join([name, *filter(None, [sample.labels.get("direction")])])
                ] = sample.value
            elif "reason" in sample.labels:
                refused[sample.labels["reason"]] = sample.value
            else:
                plain[name] = sample.value
    return {"server": plain, "clients": dict(by_client), "refused": refused}
