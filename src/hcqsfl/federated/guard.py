"""Defend a trunk that all clients train directly: aggregation never sees what smashed data do to it.

Source: the idea of scoring a turn by what it did to the server's half, and of taking it back, is that of Rieger et al.
(2025), SafeSplit: a novel defense against client-side backdoor attacks in split learning.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from hcqsfl.federated.turn_guard import TurnGuard
from hcqsfl.federated.update import State


class TrunkGuard(Protocol):
    """Judges each client's turn by what it did to the shared trunk.

    Attributes:
        leaves_out: whether a client whose turn is taken back is left out of what becomes of the clients' halves, too.
    """

    leaves_out: bool

    def share(self, client: str, before: State, after: State) -> float:
        """Return what share of the turn's update stays: 1 all of it, 0 none (the trunk is rolled back)."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return what it remembers, as named tensors."""
        ...

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        ...


class NormGuard:
    """Shorten a turn that moved the trunk much further than turns usually do; take back one that is beyond all measure.

    The measure is the median length of the last accepted turns. The first ``warm_up`` turns are measured but pass.

    Args:
        clip: a turn longer than ``clip`` medians is shortened to that.
        rollback: a turn longer than ``rollback`` medians is taken back; ``None`` never.
        warm_up: turns before the guard begins to judge.
        memory: how many turns the median is taken over.

    Raises:
        ValueError: the limits are out of order.
    """

    leaves_out = False

    def __init__(self, clip: float = 2.0, rollback: float | None = 10.0, warm_up: int = 5, memory: int = 50) -> None:
        if not clip > 0 or (rollback is not None and rollback <= clip):
            raise ValueError(f"a guard clips at {clip} and rolls back at {rollback} medians; need 0 < clip < rollback")
        if not 1 <= warm_up <= memory:
            raise ValueError(
                f"a guard warms up over {warm_up} turns and remembers {memory}; need 1 <= warm-up <= memory"
            )
        self.clip, self.rollback, self.warm_up, self.memory = clip, rollback, warm_up, memory
        self.lengths = torch.empty(0, dtype=torch.float64)

    def share(self, client: str, before: State, after: State) -> float:
        """Return what share of the turn's update stays."""
        length = update_norm(before, after)
        usual = self.lengths.quantile(0.5).item() if len(self.lengths) else 0.0
        if not length < float("inf"):
            return 0.0
        judged = len(self.lengths) >= self.warm_up and usual > 0
        if judged and self.rollback is not None and length > self.rollback * usual:
            return 0.0
        share = min(1.0, self.clip * usual / length) if judged and length > 0 else 1.0
        accepted = torch.tensor([share * length], dtype=torch.float64)
        self.lengths = torch.cat([self.lengths, accepted])[-self.memory :]
        return share

    def tensors(self) -> dict[str, Tensor]:
        """Return the lengths it remembers."""
        return {"lengths": self.lengths}

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        self.lengths = held["lengths"]


def update_norm(before: State, after: State) -> float:
    """Return the Euclidean length of the step from one state to another."""
    squares = [(after[name].double() - base.double()).square().sum() for name, base in before.items()]
    return float(torch.stack(squares).sum().sqrt())


GUARDS: dict[str, Callable[..., TrunkGuard]] = {
    "norm": NormGuard,
    "turn": TurnGuard,
}
