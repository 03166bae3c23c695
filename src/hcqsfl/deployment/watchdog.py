"""Deadlines on waits that have none of their own: one thread looks after all of them."""

import threading
import time
from collections.abc import Callable


class Wait:
    """One wait that must end. Made by ``Watchdog.watch``."""

    def __init__(self, give_up: Callable[[], object]) -> None:
        self.give_up = give_up
        self.until: float | None = None
        self.expired = False

    def begin(self, seconds: float) -> None:
        """Start to wait: after so many seconds the wait is given up."""
        self.until = time.monotonic() + seconds

    def end(self) -> None:
        """What was waited for has come."""
        self.until = None


class Watchdog:
    """Gives up waits that have taken too long.

    Args:
        interval: seconds between two looks, and so how much later than asked a wait may end.
    """

    def __init__(self, interval: float = 0.1) -> None:
        self.interval = interval
        self._waits: set[Wait] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
        self._thread.start()

    def watch(self, give_up: Callable[[], object]) -> Wait:
        """Return a wait that is given up by calling ``give_up`` once."""
        wait = Wait(give_up)
        with self._lock:
            self._waits.add(wait)
        return wait

    def release(self, wait: Wait) -> None:
        """Look after a wait no longer."""
        with self._lock:
            self._waits.discard(wait)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _look(self) -> None:
        while not self._stop.wait(self.interval):
            now = time.monotonic()
            with self._lock:
                late = [wait for wait in self._waits if wait.until is not None and wait.until < now]
            for wait in late:
                wait.until = None
                wait.expired = True
                wait.give_up()
