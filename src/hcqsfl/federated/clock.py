"""How long a client's turn takes, on a simulated clock: no test sleeps, and time to a target is a result.

Speeds are drawn once a client from a lognormal distribution, as measured times of devices tend to be.
"""

import math
from dataclasses import dataclass

from hcqsfl.randomness import numpy_generator


@dataclass(frozen=True)
class Clock:
    """The timing of a federation.

    Attributes:
        step_seconds: time of one local step on a typical client.
        spread: deviation of the logarithm of clients' speeds; 0 makes them equal.
        jitter: the same from turn to turn of one client.
        latency: seconds that a message takes beside its bytes.
        bandwidth: bytes a second between a client and the servers.
        deadline: seconds after which a synchronous round closes; who comes later comes too late.

    Raises:
        ValueError: a time is negative, or the bandwidth is not above zero.
    """

    step_seconds: float = 0.0
    spread: float = 0.0
    jitter: float = 0.0
    latency: float = 0.0
    bandwidth: float = math.inf
    deadline: float = math.inf

    def __post_init__(self) -> None:
        for name in ("step_seconds", "spread", "jitter", "latency"):
            if getattr(self, name) < 0:
                raise ValueError(f"the clock's {name} is {getattr(self, name)}; it must be at least 0")
        if not self.bandwidth > 0 or not self.deadline > 0:
            raise ValueError(f"bandwidth ({self.bandwidth} B/s) and deadline ({self.deadline} s) must be above 0")

    def turn(self, seed: int, client: str, turn: int, steps: int, n_bytes: int, messages: int) -> float:
        """Return the seconds of a client's turn.

        Args:
            seed: root seed.
            client: who.
            turn: which of its turns.
            steps: local steps taken.
            n_bytes: bytes that crossed, in both directions.
            messages: how often the client waited for an answer.
        """
        speed = math.exp(self.spread * numpy_generator(seed, "speed", client).standard_normal())
        wobble = math.exp(self.jitter * numpy_generator(seed, "jitter", client, turn).standard_normal())
        return steps * self.step_seconds * speed * wobble + messages * self.latency + n_bytes / self.bandwidth
