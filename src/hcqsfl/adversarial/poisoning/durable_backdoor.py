"""The durable backdoor (Neurotoxin)."""

from typing import Any

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning import backdoor
from hcqsfl.adversarial.poisoning.attacker import Turn


class Attack(backdoor.Attack):
    """Keep the backdoor out of the coordinates that honest clients move most, so that they do not wash it out.

    The largest coordinates of what the global state moved by since the attacker's last turn are set to zero in its
    update, at the end of the turn; the publication projects after every step, which is the same only for one step.

    Args:
        kept_off: share of the coordinates that the update keeps off, in (0, 1).
        target, share, scale, trigger, options: as in ``backdoor``.

    Raises:
        ValueError: an option is out of range.

    Source: Zhang et al. (2022), Neurotoxin: durable backdoors in federated learning, algorithm 1.
    """

    source = "Zhang et al. (2022), Neurotoxin: durable backdoors in federated learning, algorithm 1"

    def __init__(
        self,
        kept_off: float = 0.1,
        target: int = 0,
        share: float = 0.5,
        scale: float = 1.0,
        trigger: str = "patch",
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(target, share, scale, trigger, options)
        if not 0 < kept_off < 1:
            raise ValueError(f"durable_backdoor was to keep off a share of {kept_off:g}; it must be in (0, 1)")
        self.kept_off = kept_off
        self.remembers = 1

    def update(self, turn: Turn) -> Tensor:
        """Return the update without the coordinates that move most, scaled."""
        own = self.scale * turn.own
        if turn.bases:
            moved = (turn.base - turn.bases[-1]).abs()
            busiest = torch.topk(moved, max(1, round(self.kept_off * len(moved)))).indices
            own[busiest] = 0.0
        return own
