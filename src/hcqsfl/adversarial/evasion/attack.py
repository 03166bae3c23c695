"""What every evasion attack is: a search in a region for an input on which the model errs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region


@dataclass(frozen=True)
class Effort:
    """How much an attack may ask for each window.

    Attributes:
        steps: gradients of one ascent.
        restarts: ascents, the first from the window itself, the others from a random place.
        queries: outputs that an attack without gradients may ask for.

    Raises:
        ValueError: one of them is below 1.
    """

    steps: int = 50
    restarts: int = 5
    queries: int = 1000

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.queries) < 1:
            raise ValueError(
                f"an attack with {self.steps} steps, {self.restarts} restarts and {self.queries} queries cannot do "
                "anything; give it at least 1 of each"
            )


Run = Callable[[Oracle, Region, Goal, Effort, int], Tensor]
"""Oracle, region, goal, effort, seed to windows ``(n, n_chans, n_times)``, one for each of the region's."""


@dataclass(frozen=True)
class Evasion:
    """An attack, as its file declares it under the name ``ATTACK``.

    Attributes:
        id: its row in the evaluation design: ``"A13"`` for signals, ``"A14"`` for flows.
        access: what it asks of the model: ``"gradients"``, ``"scores"``, ``"decisions"`` or ``"nothing"``.
        run: the attack itself.
        source: paper and section.
        smallest: whether it searches for the smallest change, so that one run tells of every radius.
    """

    id: str
    access: str
    run: Run
    source: str
    smallest: bool = False


class Best:
    """The best that was found for each window: the first input that fools the model, or else that of highest loss.

    Args:
        region: where the search takes place; its own windows are the first to be held.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        self.x = region.x.clone()
        self.loss = torch.full((len(self.x),), -torch.inf)
        self.fooled = torch.zeros(len(self.x), dtype=torch.bool)

    def offer(self, rows: Tensor, x: Tensor, loss: Tensor, fooled: Tensor, of: Tensor | None = None) -> None:
        """Hold what is better than what is held.

        Args:
            rows: ``(m,)`` places of the windows.
            x: ``(m, n_chans, n_times)`` inputs.
            loss: ``(m,)`` what is to be high.
            fooled: ``(m,)`` whether the model errs.
            of: ``(m,)`` their places among the inputs that the region placed last; all of them in order unless given.
        """
        better = ~self.fooled[rows] & (fooled | (loss > self.loss[rows]))
        chosen = rows[better]
        self.x[chosen], self.loss[chosen], self.fooled[chosen] = x[better], loss[better], fooled[better]
        self.region.keep(chosen, torch.nonzero(better)[:, 0] if of is None else of[better])

    @property
    def left(self) -> Tensor:
        """Places of the windows that do not fool the model yet."""
        return torch.nonzero(~self.fooled)[:, 0]
