"""Time every aggregation rule on one round of made-up updates.

``python benchmarks/aggregation.py [n_clients n_values]``. One thread, best of three, beside fedavg on the same updates.
"""

import sys
import time
from typing import Any

import torch

from hcqsfl.federated.aggregation import AGGREGATORS, make
from hcqsfl.federated.update import Update

ATTACKERS = {"n_attackers": 5}
OPTIONS: dict[str, dict[str, Any]] = {
    "bucketing": {"rule": "median"},
    "fltrust": {"root_update": lambda state, version: {name: tensor + 1 for name, tensor in state.items()}},
    "trust_weighted": {"trust": lambda state, updates: {update.client: 1.0 for update in updates}},
    **dict.fromkeys(["bulyan", "dnc", "krum", "multi_krum", "trimmed_mean"], ATTACKERS),
}


def seconds(name: str, state: dict[str, torch.Tensor], updates: list[Update]) -> float:
    times = []
    for _ in range(3):
        rule = make(name, **OPTIONS.get(name, {}))
        begin = time.perf_counter()
        rule(state, updates)
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    torch.set_num_threads(1)
    n_clients, n_values = map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (100, 50_000)
    state = {"weight": torch.zeros(n_values)}
    generator = torch.Generator().manual_seed(0)
    updates = [
        Update(f"client-{i:04d}", {"weight": torch.randn(n_values, generator=generator) + 0.5}, 0, 100)
        for i in range(n_clients)
    ]
    reference = seconds("fedavg", state, updates)
    print(f"{n_clients} clients, {n_values:,} float32 values each")
    for name in sorted(AGGREGATORS):
        took = seconds(name, state, updates)
        print(f"{name:18} {1000 * took:9.1f} ms {took / reference:8.1f} x fedavg")


if __name__ == "__main__":
    main()
