"""Made-up signals, flows and trained networks to attack."""

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl.adversarial.evasion.flow_rules import NEEDED
from hcqsfl.data.windows import Windows
from hcqsfl.models.fronts.conv1d import Conv1dFront


def signals(n: int = 90, n_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sines of one rate a class in noise: ``(n, 2, 64)``, standardised."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    t = np.arange(64) / 8
    rate = 0.4 + 0.5 * y[:, None, None]
    x = np.sin(2 * np.pi * rate * t + rng.uniform(0, 6, (n, 2, 1))) + rng.normal(0, 0.6, (n, 2, 64))
    x = (x - x.mean(2, keepdims=True)) / x.std(2, keepdims=True)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def trained(x: Tensor, y: Tensor, network: nn.Module | None = None, steps: int = 60) -> nn.Module:
    """Train a small network."""
    torch.manual_seed(0)
    if network is None:
        front = Conv1dFront(x.shape[1], x.shape[2], 8, width=8, n_layers=2)
        network = nn.Sequential(front, nn.GELU(), nn.Linear(8, int(y.max()) + 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


CATEGORIES = {
    "proto": ("icmp", "tcp", "udp"),
    "conn_state": ("REJ", "S0", "SF"),
    "http_method": ("-", "GET", "POST"),
    "dns_RD": ("-", "F", "T"),
    "http_version": ("-", "1.0", "1.1"),
}
CHANNELS = tuple(dict.fromkeys((*NEEDED, "dst_bytes")))


def flows(n: int = 300, seed: int = 0) -> Windows:
    """Made-up flows that keep the rules: attacks (class 1) are short, sparse and quick."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    proto = rng.integers(0, 3, n)
    state = np.where(proto == 1, rng.integers(0, 3, n), 2)
    packets = rng.poisson(np.where(y == 1, 2, 12)) + 1.0
    carries = (proto != 1) | (state == 2)
    payload = np.where(carries, rng.poisson(np.where(y == 1, 30, 120)) * 1.0, 0.0)
    request = (proto == 1) & (state == 2) & (rng.random(n) < 0.5)
    query = (proto == 2) & (rng.random(n) < 0.5)
    columns = {
        "proto": proto,
        "conn_state": state,
        "dst_pkts": np.where(state == 2, packets, 1.0),
        "src_pkts": packets,
        "src_bytes": payload,
        "src_ip_bytes": payload + np.where(proto == 1, 40, 28) * packets,
        "duration": rng.exponential(np.where(y == 1, 0.05, 2.0)),
        "http_request_body_len": np.where(request, np.floor(payload / 4), 0.0),
        "http_method": np.where(request, 1 + rng.integers(0, 2, n), 0),
        "http_version": np.where(request, 1 + rng.integers(0, 2, n), 0),
        "dns_RD": np.where(query, 1 + rng.integers(0, 2, n), 0),
        "dst_bytes": rng.poisson(200, n) * 1.0,
    }
    units = tuple("category" if name in CATEGORIES else "byte" for name in CHANNELS)
    x = np.stack([columns[name] for name in CHANNELS], axis=1)[:, :, None].astype(float)
    one = np.zeros(n, dtype=np.int64)
    return Windows(
        x, y, np.array(["h"] * n), np.arange(n), one, y, 1.0, CHANNELS, units, ("normal", "attack"), CATEGORIES
    )
