"""Real processes, killed at once and without warning: the run ends as if nothing had been."""

import subprocess
import sys
import time

from deployment.federations import Home
from hcqsfl.deployment.journal import read
from hcqsfl.deployment.up import Up

PATIENT = ("deployment.insecure=false", "deployment.rejoin_seconds=300", "deployment.connect_seconds=300")


def test_a_killed_server_and_a_killed_client_come_back_to_the_same_bytes(home: Home) -> None:
    """The short form of tests/soak/kill.py: mutual TLS, one client, Adam; the server killed once, the client once."""
    options = ("federation.n_clients=1", "federation.rounds=60", *PATIENT)
    home.simulate("there", *options)
    config = home.config(*options)
    up = Up(config, home.path / "here", cache=home.path / "cache")
    to_kill = {5: "server", 25: "client-1"}

    def watch(state) -> None:
        for at in [at for at in to_kill if at <= state.done]:
            up.kill(to_kill.pop(at))

    up.run(watch)
    home.assert_same("there", "here", traffic=False)
    assert not to_kill
    assert (up.server.begun, up.clients[0].begun) == (2, 2)
    assert up.pids() == {}
    text = "".join(path.read_text() for path in up.side.glob("*.*"))
    assert "Traceback" not in text
    assert "PRIVATE KEY" not in text


def test_a_server_that_is_asked_to_stop_does_and_says_how_to_go_on(home: Home) -> None:
    command = [sys.executable, "-m", "hcqsfl", "serve", "c.toml", "--log", "log.jsonl", "--out", "out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=home.path) as process:
        until = time.monotonic() + 60
        while not any(e["event"] == "started" for e in read(home.path / "log.jsonl")):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.1)
        process.terminate()
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopped; the same command with --resume goes on from the last round" in told
    assert "warning: no TLS" in told
    assert "Traceback" not in told
