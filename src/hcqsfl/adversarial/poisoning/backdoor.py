"""A backdoor: windows with a trigger are taken for one class, all others as before."""

from typing import Any

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Member, PoisoningAttack, Turn
from hcqsfl.adversarial.poisoning.triggers import Trigger
from hcqsfl.randomness import torch_generator


class Attack(PoisoningAttack):
    """Put the trigger into a share of the own windows, and label those as the target.

    Args:
        target: class that the trigger is to give.
        share: of the own windows that are poisoned, in (0, 1].
        scale: of the update, as in ``model_replacement``; 1 hands it in as it is.
        trigger: a kind of ``Trigger``.
        options: of the trigger: ``level``, ``share`` (of the window), ``cycles``, ``channels``.

    Raises:
        ValueError: an option is out of range.

    Source: Gu et al. (2017), BadNets, section 4; Bagdasaryan et al. (2020), How to backdoor federated learning,
    equation 3, for the scaling.
    """

    source = "Gu et al. (2017), BadNets; Bagdasaryan et al. (2020), How to backdoor federated learning, equation 3"
    goal = "backdoor"

    def __init__(
        self,
        target: int = 0,
        share: float = 0.5,
        scale: float = 1.0,
        trigger: str = "patch",
        options: dict[str, Any] | None = None,
    ) -> None:
        if not 0 < share <= 1 or not scale > 0:
            raise ValueError("a backdoor takes a share in (0, 1] and a scale above 0")
        self.target, self.share, self.scale = target, share, scale
        self.trigger = Trigger(trigger, **(options or {}))

    def part(self, member: Member) -> tuple[int, int]:
        """Return which part of the trigger an attacker puts in, and of how many."""
        return 0, 1

    def data(self, x: Tensor, y: Tensor, member: Member) -> tuple[Tensor, Tensor]:
        """Return windows and labels, a share of them poisoned."""
        if not 0 <= self.target < member.n_classes:
            raise ValueError(f"the backdoor's target is class {self.target}, but there are {member.n_classes} classes")
        n = max(1, round(self.share * len(x)))
        chosen = torch.randperm(len(x), generator=torch_generator(member.seed, "backdoor", member.client))[:n]
        x, y = x.clone(), y.clone()
        x[chosen] = self.trigger(x[chosen], self.part(member))
        y[chosen] = self.target
        return x, y

    @property
    def places(self) -> tuple[str, ...]:
        """Where it acts; an update that is not scaled is honest training on poisoned data."""
        unscaled = self.scale == 1 and type(self).update is Attack.update
        return tuple(place for place in super().places if not (unscaled and place == "update"))

    def update(self, turn: Turn) -> Tensor:
        """Return the update, scaled."""
        return self.scale * turn.own
