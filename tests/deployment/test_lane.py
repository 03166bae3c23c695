"""Steps at one trunk: one at a time, in the order of their coming, by a thread that waits for no answer to be sent."""

import threading
import time
from collections.abc import Callable

import pytest

from hcqsfl.deployment import lane as lanes
from hcqsfl.deployment.lane import Lane

SECONDS = 20.0


def calling(lane: Lane, work: Callable[[], bytes], got: list) -> threading.Thread:
    """Bring work in a thread of its own; return once it is in hand or waits."""
    before = lane._waiting.qsize()
    thread = threading.Thread(target=lambda: got.append(lane(work)))
    thread.start()
    until = time.monotonic() + SECONDS
    while lane._waiting.qsize() == before and not lane._free.locked() and time.monotonic() < until:
        time.sleep(0.001)
    return thread


def test_work_that_waits_is_done_in_turn_by_one_thread_and_never_two_at_once() -> None:
    lane, go = Lane(), threading.Event()
    done: list[tuple[int, str]] = []
    got: list[bytes] = []
    inside = threading.Lock()

    def work(i: int) -> Callable[[], bytes]:
        def act() -> bytes:
            assert inside.acquire(blocking=False), "two at once"
            if not i:
                go.wait(SECONDS)
            done.append((i, threading.current_thread().name))
            inside.release()
            return bytes([i])

        return act

    threads = []
    for i in range(5):
        threads.append(calling(lane, work(i), got))
        until = time.monotonic() + SECONDS
        # the thread of the lane has taken the first that waits, and holds it until the lane is free
        while i and lane._waiting.qsize() < i - 1 and time.monotonic() < until:
            time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join(SECONDS)
    assert [i for i, _ in done] == [0, 1, 2, 3, 4]
    assert done[0][1] != "lane"  # who finds it free loses no time
    assert {name for _, name in done[1:]} == {"lane"}
    assert sorted(got) == [bytes([i]) for i in range(5)]


def test_what_work_raises_reaches_its_caller_and_the_lane_goes_on() -> None:
    lane, go, caught = Lane(), threading.Event(), []

    def fail() -> bytes:
        raise ValueError("no trunk")

    def bring() -> None:
        try:
            lane(fail)
        except ValueError as error:
            caught.append(str(error))

    holder = calling(lane, lambda: bytes(go.wait(SECONDS)), [])
    waiting = threading.Thread(target=bring)
    waiting.start()
    go.set()
    for thread in (holder, waiting):
        thread.join(SECONDS)
    with pytest.raises(ValueError, match="no trunk"):
        lane(fail)
    assert caught == ["no trunk"]
    assert lane(lambda: b"x") == b"x"


def test_settling_waits_for_the_work_in_hand_and_an_idle_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "IDLE_SECONDS", 0.05)
    lane, go, got = Lane(), threading.Event(), []
    holder = calling(lane, lambda: bytes(go.wait(SECONDS)), got)
    settling = threading.Thread(target=lane.settle)
    settling.start()
    settling.join(0.1)
    assert settling.is_alive()
    go.set()
    for thread in (settling, holder):
        thread.join(SECONDS)
        assert not thread.is_alive()
    until = time.monotonic() + SECONDS
    while lane._thread is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert lane._thread is None
    assert lane(lambda: b"again") == b"again"
