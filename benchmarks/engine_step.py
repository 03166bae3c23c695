"""Time a client's step through the in-process cut against the joined network's step.

    python benchmarks/engine_step.py --quick
    python benchmarks/engine_step.py --json benchmarks/results/engine_step.json

The same network, windows, batches and optimiser, one thread, real messages as bytes: the joined network (nothing cut),
the U-shaped cut (two round trips a step) and label sharing (one). Beside them a cut without messages or checks: tensors
detached in one process, two optimisers; no cut can cost less. All take turns; a figure is the median over the turns of
the processor's time, which other work on the machine touches less than the clock's. After the last turn the networks
must be equal bit for bit. Ends with 1 where a cut costs more than ``--limit``.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from engine_workload import BATCH, adam, arguments, clients, facts, network, plan, show, write
from torch import nn

from hcqsfl.models.protocols import Setup, set_up
from hcqsfl.randomness import torch_generator

CASES = [("conv1d", "hybrid"), ("conv1d", "classical"), ("tabular", "hybrid"), ("tabular", "classical")]
GATED = ("U-shaped", "label sharing")
WARM_UP = 3

Turn = Callable[[int], None]


def by_engine(setup: Setup) -> Turn:
    (client,) = setup.federation.clients
    own = next(part for part in setup.federation.parts if part.name == "client")

    def turn(number: int) -> None:
        client.train(own.optimizers[client.name], 0, number)

    return turn


def by_detaching(front: str, trunk: str, steps: int) -> tuple[Turn, nn.Module]:
    """Return the cheapest U-shaped cut: tensors detached, nothing serialised, nothing checked."""
    net = network(front, trunk)
    ((name, (x, y)),) = clients(front, 1, steps * BATCH).items()
    own, trunks = adam([*net.front.parameters(), *net.head.parameters()]), adam(list(net.trunk.parameters()))

    def turn(number: int) -> None:
        generator = torch_generator(0, "batches", name, number)
        for batch in torch.randperm(len(y), generator=generator).split(BATCH):
            own.zero_grad()
            below = net.front(x[batch])
            smashed = below.detach().requires_grad_()
            above = net.trunk(smashed)
            features = above.detach().requires_grad_()
            loss = nn.functional.cross_entropy(net.head(features), y[batch])
            loss.backward()
            trunks.zero_grad()
            above.backward(features.grad)
            trunks.step()
            below.backward(smashed.grad)
            own.step()
            loss.item()

    return turn, net


def measure(front: str, trunk: str, turns: int, steps: int) -> dict[str, float]:
    """Return the median seconds of a step, by arm."""
    data = clients(front, 1, steps * BATCH)
    setups = {
        "joined": set_up("federated", network(front, trunk), data, plan()),
        "U-shaped": set_up("splitfed_v2", network(front, trunk), data, plan()),
        "label sharing": set_up("splitfed_v2", network(front, trunk), data, plan(label_sharing=True)),
    }
    arms = {name: by_engine(setup) for name, setup in setups.items()}
    arms["detached"], detached = by_detaching(front, trunk, steps)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(1, WARM_UP + turns + 1):
        for name, turn in arms.items():
            start = time.process_time()
            turn(number)
            times[name].append((time.process_time() - start) / steps)
    check_equal(setups, detached)
    return {name: statistics.median(found[WARM_UP:]) for name, found in times.items()}


def check_equal(setups: dict[str, Setup], detached: nn.Module) -> None:
    reached = {
        name: {key: t for part in setup.federation.parts for m in [next(iter(part.modules.values()))]
               for key, t in m.state_dict().items()}
        for name, setup in setups.items()
    }  # fmt: skip
    reached["detached"] = dict(detached.state_dict())
    for name, state in reached.items():
        for key, tensor in reached["joined"].items():
            if not torch.equal(state[key], tensor):
                raise SystemExit(f"{name} reached another {key} than the joined network: the work is not the same")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--turns", type=int, help="turns of each arm (8 with --quick, else 40)")
    parser.add_argument("--steps", type=int, default=20, help="steps in a turn")
    parser.add_argument("--limit", type=float, default=1.3, help="largest ratio to the joined step")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found, rows, over = [], [], []
    for front, trunk in CASES:
        seconds = measure(front, trunk, args.turns or (8 if args.quick else 40), args.steps)
        ratios = {name: s / seconds["joined"] for name, s in seconds.items()}
        found.append({"front": front, "trunk": trunk, "seconds": seconds, "ratios": ratios})
        rows.append(
            [f"{front}, {trunk}", f"{1e3 * seconds['joined']:.2f}"]
            + [f"{1e3 * seconds[name]:.2f} ({ratios[name]:.2f})" for name in (*GATED, "detached")]
        )
        over += [f"{front}, {trunk}, {name}: {ratios[name]:.2f}" for name in GATED if ratios[name] > args.limit]
    about = facts()
    show(
        f"A step of {BATCH} windows, ms (ratio to joined)",
        ["front, trunk", "joined", *GATED, "detached, no messages"],
        rows,
        f"one thread, medians of turns in turn; load average {about['load_average_1_min']}",
    )
    write(args.json, {"about": about, "limit": args.limit, "cases": found})
    if over:
        sys.exit(f"over {args.limit:g} times the joined step: " + "; ".join(over))


if __name__ == "__main__":
    main()
