"""What SecAgg+ costs a deployed round of the demo, and what it leaves of the result.

    PYTHONPATH=tests python benchmarks/deployment_sealed.py --rounds 3

One fold of ``configs/demo.toml``, its six clients, plain, and twice sealed, over Flower's messages without Flower's
processes (they take seconds a message, whatever it carries: ``tests/soak/flower.py --sealed``) and steps over gRPC.
Beside it the sum alone, by clients and numbers in an update.
"""

import argparse
import logging
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from deployment.grids import InProcess
from hcqsfl import config as settings
from hcqsfl.config import Deployment
from hcqsfl.deployment import turn
from hcqsfl.deployment.flower import client_app, sealed_client
from hcqsfl.deployment.flower.sealed_server import FlowerSealing
from hcqsfl.deployment.flower.turns import FlowerRounds
from hcqsfl.deployment.journal import Journal, read
from hcqsfl.deployment.serve import orchestrate, serving
from hcqsfl.deployment.worker import Kept
from hcqsfl.federated import checkpoint
from hcqsfl.federated.sealed import SecAggPlus
from hcqsfl.recipes.progress import Progress

DEMO = Path(__file__).parents[1] / "configs" / "demo.toml"
WHERE = ("arm", 0, "fold")


def demo(folder: Path, name: str, rounds: int) -> tuple[dict, list[dict], list[float]]:
    """Train one fold; return the weights it ends with, its rows, and the seconds of its sums."""
    sealed = name != "plain"
    sets = [
        "evaluation.baselines=[]",
        'evaluation.controls=["classical"]',
        "evaluation.references=[]",
        "evaluation.seeds=[0]",
        "evaluation.n_resamples=100",
        'split.only=["S2"]',
        f"federation.rounds={rounds}",
        f"federation.secure_aggregation={'secaggplus' if sealed else 'none'}",
        "deployment.insecure=true",
        'deployment.listen="127.0.0.1:0"',
        "deployment.metrics_port=0",
    ]
    config = settings.load(DEMO, sets)
    path, cache = folder / f"{name}.toml", Path(os.environ.get("HCQSFL_CACHE", folder / "cache"))
    path.write_text(config.to_toml())
    with serving(config, cache, Journal(folder / f"{name}.jsonl")) as (plane, address):
        run = {"config": str(path), "server": str(address), "cache": str(cache)}
        clients = enumerate(sorted(plane.clients), start=1)
        grid = InProcess({i: Context(1, i, {"client": client}, RecordDict(), run) for i, client in clients})
        turns = FlowerRounds(grid, plane.journal)
        make = partial(FlowerSealing, turns)
        orchestrate(
            config, folder / name, plane, turns, make_sealing=make, progress=Progress(), cache=cache, page=False
        )
        for device in client_app._devices.values():
            device.connection.close()
        client_app._devices.clear()
    events = read(folder / f"{name}.jsonl")
    rows = [event for event in events if event["event"] == "round"]
    spent = [event["seconds"] for event in events if event["event"] == "sealed"]
    weights = {
        str(found.parent.relative_to(folder / name)): checkpoint.load(found)[0]
        for found in sorted((folder / name / "jobs").rglob("checkpoint.safetensors"))
    }
    return weights, rows, spent


def sums(folder: Path, n_clients: int, n_values: int) -> tuple[float, dict]:
    """Return the processor seconds of one sum, all parties together, and what the journal tells of it."""
    path = folder / "sums.toml"
    path.write_text(
        settings.load(DEMO, ["evaluation.baselines=[]", "federation.secure_aggregation=secaggplus"]).to_toml()
    )
    rng, names = np.random.default_rng(0), [f"c{i}" for i in range(n_clients)]
    nodes = {i: Context(1, i, {"client": c}, RecordDict(), {"config": str(path)}) for i, c in enumerate(names, start=1)}
    log = folder / f"{n_clients}-{n_values}.jsonl"
    turns = FlowerRounds(InProcess(nodes), Journal(log))
    assert all(turns.wait_for(client, 0) for client in names)
    for context in nodes.values():
        sealed_client.keep(Kept(turn.Where(*WHERE, 1, 1), rng.normal(0, 0.1, n_values), 10), context)
    sealing = FlowerSealing(turns, SecAggPlus(), WHERE, Deployment())
    before = time.process_time()
    sealing(dict.fromkeys(names, 10), n_values, 0)
    spent = time.process_time() - before
    return spent, next(event for event in read(log) if event["event"] == "sealed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="the sums alone")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for name in ("_task_id", "_run_id", "_node_id"):
        setattr(TaskIdentity, name, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n_clients in (3, 6, 10, 20):
            for n_values in (5_000, 500_000):
                spent, told = sums(folder, n_clients, n_values)
                up, down = (told[key] / n_clients / 1024 for key in ("bytes_up", "bytes_down"))
                print(f"a sum of {n_clients} clients and {n_values:,} numbers: {spent:.2f} s of processor, a client "
                      f"sends {up:.1f} KiB and gets {down:.1f} (plain: {n_values / 256:.1f})", flush=True)  # fmt: skip
        if args.quick:
            return
        runs = {run: demo(folder, run, args.rounds) for run in ("plain", "sealed", "sealed again")}
        for one, other in (("plain", "sealed"), ("sealed", "sealed again")):
            for (job, a), b in zip(runs[one][0].items(), runs[other][0].values(), strict=True):
                off = max((a[k] - b[k]).abs().max().item() for k in a if k.startswith("client/state"))
                print(f"{one} and {other}, {job}: a weight of the clients' half differs by {off:.1e} at most")
        for run, (_, rows, spent) in runs.items():
            last = [row for row in rows if row["round"] == args.rounds]
            loss = ", ".join(f"{row['train_loss']:.4f}" for row in last)
            print(f"{run}: {args.rounds} rounds end at a training loss of {loss}; {last[0]['bytes_up']:,} bytes up "
                  f"and {last[0]['bytes_down']:,} down; a round takes {median(row['seconds'] for row in rows):.2f} s "
                  + (f", of which the sum {median(spent):.2f}" if spent else ""), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
