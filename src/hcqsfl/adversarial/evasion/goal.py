"""What an evasion attack wants of the logits, as a loss to raise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hcqsfl.registry import lookup


@dataclass(frozen=True, eq=False)
class Goal:
    """What counts as an error of the model, and how near it is.

    Attributes:
        y: ``(n,)`` true classes.
        towards: the class that the model is to see instead (benign traffic); any other than the true one if ``None``.
        stop: whether an attack is done with a window as soon as the model errs; without it, it goes on to make the
            model surer of its error, as a window needs that is to fool another model too.
    """

    y: Tensor
    towards: int | None = None
    stop: bool = True

    def fooled(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return whether the model errs as wanted ``(m,)`` on the windows at ``rows``, given ``(m, n_outputs)``."""
        decided = logits.argmax(dim=1)
        if not self.stop:
            return torch.zeros_like(decided, dtype=torch.bool)
        return decided != self.y[rows] if self.towards is None else decided == self.towards

    def loss(self, kind: str, logits: Tensor, rows: Tensor) -> Tensor:
        """Return what is to be raised ``(m,)``.

        Args:
            kind: a key of ``LOSSES``.
            logits: ``(m, n_outputs)``.
            rows: ``(m,)`` which windows they are.

        Raises:
            ValueError: there is no such loss, or it is not defined for so few classes.
        """
        function = lookup("loss of an evasion attack", LOSSES, kind)
        if self.towards is None:
            return function(logits, self.y[rows])
        return -function(logits, torch.full_like(self.y[rows], self.towards))


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross entropy of each row."""
    return nn.functional.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return how far the best other class is above the true one; positive where the model errs.

    Source: Carlini & Wagner (2017), Towards evaluating the robustness of neural networks, section V.A, f6.
    """
    own = logits.gather(1, y[:, None])[:, 0]
    other = logits.masked_fill(nn.functional.one_hot(y, logits.shape[1]).bool(), -torch.inf).amax(dim=1)
    return other - own


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio: the margin over the distance of the first from the third class.

    Raises:
        ValueError: there are fewer than three classes.

    Source: Croce & Hein (2020), Reliable evaluation of adversarial robustness, equation 6.
    """
    if logits.shape[1] < 3:
        raise ValueError(
            f"the difference of logits ratio divides by the distance of the first from the third class, and this model "
            f"has {logits.shape[1]} classes; take the cross entropy or the margin"
        )
    ranked = logits.sort(dim=1, descending=True).values
    return margin(logits, y) / (ranked[:, 0] - ranked[:, 2] + 1e-12)


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
}
