"""JSON lines that say what happened, one event a line, never a secret and never data."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Journal:
    """Writes events to a file, or to standard error.

    Args:
        path: file to append to; ``None`` for standard error.
        who: name of the process, in every line.
    """

    def __init__(self, path: Path | None = None, who: str = "server") -> None:
        self.who = who
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def __call__(self, event: str, level: str = "info", **facts: Any) -> None:
        """Write one line.

        Args:
            event: what happened, in one word.
            level: ``info``, ``warning`` or ``error``.
            facts: what else is to be known of it; anything JSON can hold.
        """
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, "level": level, "who": self.who, "event": event} | facts, default=str)
        with self._lock:
            if self.path is None:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()
                return
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the events of a file; a line that is being written is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
