"""Reversed gradients at the cut, as many as the trunk's guard lets pass."""

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Member, PoisoningAttack


class Attack(PoisoningAttack):
    """Reverse the gradients of a share of each batch's windows: the largest share that the guard would let pass.

    An attacker who knows the guard, what it remembers and the trunk rehearses its turn with each share, the largest
    first, and sends the first that stays; where none does, the smallest. Without a guard it is ``gradient_reversal``.

    Args:
        levels: the shares that are rehearsed, each in (0, 1], falling.

    Raises:
        ValueError: there is none, or they are out of range or order.

    Source: Wan et al. (2023), MISA: unveiling the vulnerabilities in split federated learning, for poisoning the
    server's half through the cut; the rehearsal is set here, against the guard ``turn``.
    """

    source = "Wan et al. (2023), MISA: unveiling the vulnerabilities in split federated learning; the rehearsal is own"

    def __init__(self, levels: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1)) -> None:
        falling = sorted(set(levels), reverse=True)
        if not levels or list(levels) != falling or not 0 < levels[-1] <= levels[0] <= 1:
            raise ValueError(f"careful_reversal was given the levels {levels}; need shares in (0, 1], falling")
        self.levels = tuple(levels)
        self.level = self.levels[0]

    @property
    def knowledge(self) -> str:
        """What it takes, in words."""
        return "the trunk, its guard and what that remembers"

    def gradient(self, gradient: Tensor, member: Member) -> Tensor:
        """Return the gradient ``(b, n_features)``, the first rows of the batch (in random order) turned around."""
        signs = torch.ones(len(gradient), 1, dtype=gradient.dtype)
        signs[: max(1, round(self.level * len(gradient)))] = -1.0
        return signs * gradient
