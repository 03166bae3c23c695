"""Who takes part in a round."""

from collections.abc import Sequence
from dataclasses import dataclass

from hcqsfl.randomness import numpy_generator


@dataclass(frozen=True)
class Participation:
    """How clients are drawn, and how they fail.

    Attributes:
        fraction: share of the clients drawn each round; at least one is.
        dropout: probability that a drawn client is away in that round. It rejoins when it is next drawn and there.

    Raises:
        ValueError: a share is out of range.
    """

    fraction: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"a fraction of {self.fraction} of the clients was asked for; it must be in (0, 1]")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"a dropout of {self.dropout} was asked for; it must be in [0, 1)")

    def draw(self, clients: Sequence[str], seed: int, number: int) -> tuple[list[str], list[str]]:
        """Return who takes part in round ``number``, in the order of their turns, and who was drawn but is away."""
        n = max(1, round(self.fraction * len(clients)))
        order = numpy_generator(seed, "turns", number).permutation(len(clients))[:n]
        away = numpy_generator(seed, "dropout", number).random(len(clients)) < self.dropout
        return [clients[i] for i in order if not away[i]], [clients[i] for i in order if away[i]]
