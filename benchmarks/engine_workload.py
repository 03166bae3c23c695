"""The networks, windows and plans that the benchmarks of the split-federated engine share."""

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hcqsfl.federated.aggregation import make as make_aggregator
from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.models.protocols import Plan
from hcqsfl.quantum import circuits
from hcqsfl.randomness import torch_generator, torch_seeded

N_QUBITS, N_LAYERS, N_FEATURES, N_CLASSES, BATCH = 8, 2, 16, 3, 32
SHAPES = {"conv1d": (4, 256), "tabular": (40, 1)}
"""Channels and samples of a window, by front."""

Data = dict[str, tuple[Tensor, Tensor]]


def network(front: str, trunk: str) -> Network:
    """Return the joined network; the same numbers at every call."""
    circuit = circuits.make("strongly_entangling", N_QUBITS, N_LAYERS)
    with torch_seeded(0, "benchmark network"):
        return Network(
            fronts.make(front, *SHAPES[front], N_QUBITS),
            trunks.make(trunk, N_QUBITS, N_FEATURES, circuit, backend="compiled"),
            linear_head(N_FEATURES, N_CLASSES),
        )


def windows(front: str, client: int, n: int) -> tuple[Tensor, Tensor]:
    """Return a client's ``(n, n_chans, n_times)`` windows and ``(n,)`` labels, drawn."""
    generator = torch_generator(0, "benchmark windows", client)
    x = torch.randn(n, *SHAPES[front], generator=generator)
    return x, torch.randint(N_CLASSES, (n,), generator=generator)


def clients(front: str, n_clients: int, n: int) -> Data:
    return {f"client-{i:03d}": windows(front, i, n) for i in range(n_clients)}


def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-2)


def plan(make_optimizer: Any = adam, **options: Any) -> Plan:
    return Plan(make_optimizer, lambda: make_aggregator("fedavg"), **({"seed": 0, "batch_size": BATCH} | options))


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less work; the figures are rough")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser


def facts() -> dict[str, Any]:
    """Return what the figures depend on beside the code: above all how busy the machine was."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average_1_min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
    }


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    # a redirected table is as wide as it needs to be
    Console(width=None if Console().is_terminal else 140).print(table)


def write(path: Path | None, found: Mapping[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
