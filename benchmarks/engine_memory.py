"""Measure the peak memory of a round of 100 clients against one of 10.

    python benchmarks/engine_memory.py --quick
    python benchmarks/engine_memory.py --json benchmarks/results/engine_memory.json

Each number of clients runs in a process of its own (Linux: VmHWM of ``/proc/self/status``, put back to zero before the
round through ``/proc/self/clear_refs``). The peak of 100 clients may be at most

    2 x the peak of 10 clients + the states of 100 clients.

Told twice: for the whole process, imports and all, and, which is stricter, for what is above the process as it was
after a warm-up, before any of its clients existed. The states of a client are its windows, its copy of the parts of
the network, and the copy that waits for aggregation; gradients and moments live for one turn and are not counted, nor
are the Python objects of a network, about 100 KiB a client. Ends with 1 where a peak is larger.
"""

import gc
import json
import subprocess
import sys
from pathlib import Path

import torch
from engine_workload import BATCH, arguments, clients, facts, network, plan, show, write

from hcqsfl.models.protocols import set_up

PROTOCOLS = ("federated", "splitfed_v1", "splitfed_v2")
FEW, MANY = 10, 100
FRONT, TRUNK = "conv1d", "hybrid"


def status(entry: str) -> int:
    """Return an entry of the process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"the system does not tell {entry}; this benchmark needs Linux")


def child(protocol: str, n_clients: int, n_windows: int) -> dict[str, int]:
    torch.set_num_threads(1)
    warm = set_up(protocol, network(FRONT, TRUNK), clients(FRONT, 2, BATCH), plan())
    warm.federation.run_round()
    del warm
    gc.collect()
    before = status("VmRSS")
    setup = set_up(protocol, network(FRONT, TRUNK), clients(FRONT, n_clients, n_windows), plan())
    after = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    done = setup.federation.run_round()
    assert len(done.trained) == n_clients
    return {
        "before": before,
        "set up": after,
        "peak": status("VmHWM"),
        "states": states(setup.federation),
        "steps": sum(result.steps for result in done.trained.values()),
    }


def states(federation) -> int:  # type: ignore[no-untyped-def]
    """Return the bytes of the clients' windows, weights, and copies that wait for aggregation."""
    total = sum(c.x.nbytes + c.y.nbytes for c in federation.clients)
    for part in federation.parts:
        copies = {id(module): module for module in part.modules.values()}.values()
        for module in copies:
            weights = sum(t.nbytes for t in module.state_dict().values())
            total += 2 * weights if part.rule == "average" else weights
    return total


def measure(protocol: str, n_clients: int, n_windows: int) -> dict[str, int]:
    command = [sys.executable, __file__, "--child", protocol, str(n_clients), str(n_windows)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, int] = json.loads(answer.splitlines()[-1])
    return found


def mib(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:.1f}"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
        return
    args = arguments(__doc__).parse_args()
    n_windows = 6 * BATCH
    found, rows, over = {}, [], []
    for protocol in PROTOCOLS[-1:] if args.quick else PROTOCOLS:
        few, many = (measure(protocol, n, n_windows) for n in (FEW, MANY))
        found[protocol] = {str(FEW): few, str(MANY): many}
        for what, base in (("whole process", 0), ("above warm-up", 1)):
            low, high = (run["peak"] - base * run["before"] for run in (few, many))
            bound = 2 * low + many["states"]
            rows.append([f"{protocol}, {what}", *map(mib, (low, high, many["states"], bound)), f"{high / bound:.2f}"])
            if high > bound:
                over.append(f"{protocol}, {what}: {mib(high)} MiB of {mib(bound)}")
    show(
        f"Peak memory of a round, MiB ({FRONT} front, {TRUNK} trunk, {n_windows} windows a client)",
        ["", f"{FEW} clients", f"{MANY} clients", f"states of {MANY}", "bound", f"{MANY} clients / bound"],
        rows,
        f"bound: 2 x the peak of {FEW} clients + states of {MANY}",
    )
    write(args.json, {"about": facts(), "windows a client": n_windows, "protocols": found})
    if over:
        sys.exit("over the bound: " + "; ".join(over))


if __name__ == "__main__":
    main()
