"""Run an experiment under a real SuperLink and real SuperNodes with `flwr run`, as docs/deployment.md has it.

    PYTHONPATH=tests python tests/soak/flower.py
    PYTHONPATH=tests python tests/soak/flower.py --sealed --kill

TLS on both planes, SuperNodes known by their keys; three clients, each with its dealt share alone; every process starts
one of its own for each message, so that a round takes as long as their imports. What comes out is held against the
simulation, bit for bit. With ``--sealed`` updates are summed by SecAgg+; what comes out is held against the simulation
without it; with ``--kill`` a node is killed before the last sum, which must open without it. Ends with 1 where
something differs or fails; prints how long the run took. On a machine so busy that Flower's processes do not come up
before their tokens run out, Flower starts more and more of them: stop it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from deployment.federations import CONFIG, Home
from hcqsfl.deployment.journal import read
from made_people import write_table

APP = Path(__file__).parents[2] / "docs" / "flower"
PORT, STEPS, NODES = 8010, 7453, 9110
BIN = Path(sys.executable).parent


class Host:
    """A folder of its own for Flower, and what is started there."""

    def __init__(self, folder: Path, name: str, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.env = os.environ | {"FLWR_HOME": str(folder / f"flwr-{name}"), "PATH": f"{BIN}:{os.environ['PATH']}"}
        (folder / f"flwr-{name}").mkdir()
        self.log = folder / f"{name}.log"

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        output = self.stack.enter_context(self.log.open("ab"))
        process = subprocess.Popen(command, env=self.env, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT)
        self.stack.callback(process.wait, 30)
        self.stack.callback(process.terminate)
        return process

    def run(self, *command: str, seconds: float = 120) -> str:
        found = subprocess.run(
            command, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=seconds, check=False
        )
        if found.returncode:
            sys.exit(f"{' '.join(command)}: {found.stdout}{found.stderr}")
        return found.stdout


def until(done, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            sys.exit(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.5)


def sums(home: Home, event: str) -> list[dict]:
    """What the server's journal tells of sealed sums."""
    return [line for line in read(home.path / "here.jsonl") if line["event"] == event]


def judge_sealed(home: Home, lost: str, rounds: int) -> None:
    """Hold a sealed run against the simulation; in its last round a node was killed, if any is ``lost``."""
    there, here = (list(home.contents(out)["rows"]) for out in ("there", "here"))
    whole = rounds - 1 if lost else rounds
    for a, b in zip(there[:whole], here[:whole], strict=True):
        assert not b["events"], b["events"]
        for name in ("loss", "macro_f1"):
            off = abs(a["validation"][name] - b["validation"][name]) if a["validation"] else 0.0
            assert off < 1e-3, (name, a, b)
        assert abs(a["train_loss"] - b["train_loss"]) < 1e-4, (a, b)
    assert there[0]["train_loss"] == here[0]["train_loss"]
    if lost:
        (event,) = here[-1]["events"]
        assert (event["kind"], event["client"]) == ("failed", lost), event
        assert "dropped out of the secure sum" in event["what"], event
        print(event["what"])
    for line in sums(home, "sealed"):
        print(f"round {line['round']}: the sum of {line['clients']} took {line['seconds']:.0f} s, "
              f"{line['bytes_up']:,} bytes up, {line['bytes_down']:,} down")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--deadline", type=float, default=900.0, help="seconds for the run")
    parser.add_argument("--sealed", action="store_true", help="sum by SecAgg+")
    parser.add_argument("--kill", action="store_true", help="of --sealed: kill a node before the last sum")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        home = Home(Path(name))
        write_table(home.path / "data" / "table")
        os.environ["HCQSFL_DATA"] = str(home.path / "data")
        text = CONFIG.replace("insecure = true", "").replace("127.0.0.1:0", f"127.0.0.1:{STEPS}")
        text = text.replace("rejoin_seconds = 20.0", "rejoin_seconds = 180.0")
        text = text.replace("turn_seconds = 30.0", "turn_seconds = 600.0").replace(
            "rounds = 2", f"rounds = {args.rounds}"
        )
        (home.path / "c.toml").write_text(text)
        home.simulate("there")
        if args.sealed:
            text = text.replace("[federation]", '[federation]\nsecure_aggregation = "secaggplus"')
            (home.path / "c.toml").write_text(text)
        server = Host(home.path, "server", stack)
        hcqsfl = (sys.executable, "-m", "hcqsfl")
        server.run(*hcqsfl, "certs", "make", "certs", "--config", "c.toml")
        server.run(*hcqsfl, "deal", "c.toml", "shares")
        clients = sorted(path.name for path in (home.path / "shares").iterdir())
        server.start(
            "flower-superlink", "--host", "127.0.0.1", "--port", str(PORT), "--enable-supernode-auth",
            "--ssl-certfile", "certs/server.crt", "--ssl-keyfile", "certs/server.key",
            "--ssl-ca-certfile", "certs/ca.crt", "--disable-runtime-dependency-installation",
        )  # fmt: skip
        until(lambda: "Uvicorn running" in server.log.read_text(), 120, "the SuperLink listens")
        me = Host(home.path, "me", stack)
        connection = (
            f'[superlink.hospital]\naddress = "127.0.0.1:{PORT}"\nroot-certificates = "{home.path}/certs/ca.crt"\n'
        )
        (home.path / "flwr-me" / "config.toml").write_text(connection)
        nodes = [Host(home.path, client, stack) for client in clients]
        processes = []
        for i, (client, node) in enumerate(zip(clients, nodes, strict=True)):
            node.run("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", f"{client}.node")
            me.run("flwr", "supernode", "register", f"{client}.node.pub", "hospital")
            process = node.start(
                "flower-supernode", "--superlink", f"127.0.0.1:{PORT}", "--root-certificates", "certs/ca.crt",
                "--auth-supernode-private-key", f"{client}.node", "--port", str(NODES + i),
                "--node-config", f'client="{client}" data="shares/{client}"',
            )  # fmt: skip
            processes.append(process)
        started = time.monotonic()
        chosen = f'config="c.toml" out="here" server="127.0.0.1:{STEPS}" cache="cache"'
        me.run("flwr", "run", str(APP), "hospital", "--run-config", chosen)
        if args.sealed and args.kill:
            last = f"the sum of round {args.rounds}"
            until(lambda: any(e["round"] == args.rounds for e in sums(home, "sealing")), args.deadline, last)
            processes[-1].kill()
        until((home.path / "here" / "result.json").is_file, args.deadline, "the run")
        took = time.monotonic() - started
        if args.sealed:
            judge_sealed(home, clients[-1] if args.kill else "", args.rounds)
            print(f"{args.rounds} sealed rounds of {len(clients)} clients under a SuperLink: {took:.0f} s")
            return
        files = home.contents("there")["files"]
        until(lambda: home.contents("here")["files"] == files, 120, "the report")  # comes after the result
        home.assert_same("there", "here")
        messages = args.rounds * len(clients) + len(clients)
        print(f"{args.rounds} rounds of {len(clients)} clients under a SuperLink: the same bytes as the simulation; "
              f"{took:.0f} s, {took / messages:.1f} s a message")  # fmt: skip


if __name__ == "__main__":
    main()
