"""One trunk, one step at a time: while an answer is on its way, the next step is computed."""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

IDLE_SECONDS = 10.0

Work = Callable[[], bytes]
_Outcome = tuple[bytes, BaseException | None]


class Lane:
    """Does pieces of work one after the other.

    Work that finds the lane free is done by whoever brings it, who loses no time by it. Work that has to wait is done
    by a thread of the lane's own, which takes up the next piece the moment it has finished one; whoever brought that
    packs, enciphers and sends the answer meanwhile. A caller waits for its own work, so that no more pieces wait here
    than there are callers.
    """

    def __init__(self) -> None:
        self._free = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[tuple[Work, SimpleQueue[_Outcome]]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, work: Work) -> bytes:
        """Return what ``work`` returns, or raise what it raises."""
        if self._free.acquire(blocking=False):
            try:
                return work()
            finally:
                self._free.release()
        done: SimpleQueue[_Outcome] = SimpleQueue()
        with self._lock:
            self._waiting.put((work, done))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lane", daemon=True)
                self._thread.start()
        answer, error = done.get()
        if error is not None:
            raise error
        return answer

    def settle(self) -> None:
        """Wait until the work in hand is done."""
        self(lambda: b"")

    def _run(self) -> None:
        while True:
            try:
                work, done = self._waiting.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._thread = None
                        return
                continue
            with self._free, suppress(Empty):
                while True:
                    done.put(_outcome(work))
                    work, done = self._waiting.get_nowait()


def _outcome(work: Work) -> _Outcome:
    try:
        return work(), None
    except BaseException as error:
        return b"", error
