"""Kill the processes of a federation at random moments; it must end, with nothing lost.

    PYTHONPATH=tests python tests/soak/kill.py --client-kills 200 --server-kills 20

Every run is one federation under mutual TLS (`hcqsfl up`), with one client and Adam or SGD, whose result is held
against the simulation's, bit for bit, however often its processes were killed. Ends with 1 where a run differs, fails,
or takes longer than ``--deadline`` seconds; prints how many processes were really killed.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from deployment.federations import CONFIG, Home
from hcqsfl.deployment.journal import read
from hcqsfl.deployment.up import Up
from made_people import write_table


def run(folder: Path, number: int, kills: dict[str, int], rng: random.Random, rounds: int, deadline: float) -> Up:
    """Run one federation while its processes are killed; each kill waits until its victim has come back."""
    home = Home(folder)
    optimizer = ("adam", "sgd")[number % 2]
    options = ("federation.n_clients=1", f"federation.rounds={rounds}", f"training.optimizer={optimizer}")
    there, here = f"there-{optimizer}", f"here-{number}"
    if not (folder / there).exists():
        home.simulate(there, *options)
    patient = ("deployment.rejoin_seconds=600", "deployment.connect_seconds=600", "deployment.insecure=false")
    up = Up(home.config(*options, *patient), folder / here, cache=folder / "cache", restarts=10_000)
    started, due = time.monotonic(), [time.monotonic()]

    def watch(state) -> None:
        if time.monotonic() - started > deadline:
            raise TimeoutError(f"the federation was not done after {deadline:.0f} s")
        left = [name for name, n in kills.items() if n > 0]
        if not left or time.monotonic() < due[0] or not joined(up):
            return
        name = rng.choice(left)
        if up.kill(name):
            kills[name] -= 1
            due[0] = time.monotonic() + rng.uniform(0.0, 1.0)

    up.run(watch)
    home.assert_same(there, here, traffic=False)
    return up


def joined(up: Up) -> bool:
    """Return whether the client is connected to the server of the moment."""
    events = read(up.server.journal)
    last = {e["event"]: i for i, e in enumerate(events) if e["event"] in ("listening", "joined", "left")}
    return last.get("joined", -1) > max(last.get("listening", 0), last.get("left", -1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client-kills", type=int, default=200)
    parser.add_argument("--server-kills", type=int, default=20)
    parser.add_argument("--runs", type=int, default=2, help="federations, among which the kills are shared out")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--deadline", type=float, default=3600.0, help="seconds for one federation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    killed = {"client-1": 0, "server": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder / "data" / "table")
        (folder / "c.toml").write_text(CONFIG)
        os.environ["HCQSFL_DATA"] = str(folder / "data")
        for number in range(args.runs):
            asked = {"client-1": args.client_kills // args.runs, "server": args.server_kills // args.runs}
            kills = dict(asked)
            run(folder, number, kills, rng, args.rounds, args.deadline)
            for victim in killed:
                killed[victim] += asked[victim] - kills[victim]
            print(f"run {number + 1}: the same bytes after {killed} kills so far", flush=True)
    short = killed["client-1"] < args.client_kills or killed["server"] < args.server_kills
    print(
        f"{killed['client-1']} client and {killed['server']} server kills, every run the same bytes as the simulation"
    )
    if short:
        sys.exit("the federations were over before all kills were done; ask for more --rounds")


if __name__ == "__main__":
    main()
