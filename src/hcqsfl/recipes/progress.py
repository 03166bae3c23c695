"""What a recipe tells while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """What a caller may listen to.

    Attributes:
        say: told what is being done.
        start: told the number of rounds to come.
        step: told after each round which training it was in, and its metric row; ``None`` for a round done before.
    """

    say: Callable[[str], None] = lambda text: None
    start: Callable[[int], None] = lambda total: None
    step: Callable[[str, dict[str, Any] | None], None] = lambda job, row: None
