"""Train on the worst windows within reach, so that the model does not err on them later (PGD-AT)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hcqsfl.models.defence import Defence
from hcqsfl.randomness import torch_generator


class AdversarialTraining(Defence):
    """Moves each window of a batch to where the loss is high, within a ball, before it is trained on.

    Each step of the search is a pass through the whole network. Behind a wire the server cannot tell it from training
    and takes an optimiser step on it too, so that it learns from every iterate, as in free adversarial training; and
    each costs a round trip. Nothing is done to what is sent for inference.

    For flows, ``columns`` and ``upward`` keep the search to what an attacker can raise, and ``spare`` leaves benign
    flows alone. The sums and whole numbers of real flows are not repaired here, since a client's network sees scaled
    flows alone: the ball that is trained on holds all flows that can be sent, and more.

    Args:
        epsilon: radius in the maximum norm, in units of the network's input; 0 leaves the training as it is.
        steps: of the search, at least 1.
        columns: which input channels may move; all unless given.
        upward: whether they may only rise.
        spare: class whose windows are left alone.
        seed, client: fix the random starts.

    Raises:
        ValueError: ``epsilon`` is negative, or there is no step.

    Source: Madry et al. (2018), Towards deep learning models resistant to adversarial attacks, equation 2.1; Shafahi et
    al. (2019), Adversarial training for free!, for the steps that the server takes meanwhile; Simonetto et al. (2024),
    Constrained adaptive attack, section 6, for flows.
    """

    acts_in_evaluation = False

    def __init__(
        self,
        epsilon: float = 0.1,
        steps: int = 3,
        columns: Sequence[int] = (),
        upward: bool = False,
        spare: int | None = None,
        *,
        seed: int = 0,
        client: str = "",
    ) -> None:
        super().__init__()
        if not epsilon >= 0 or steps < 1:
            raise ValueError(
                f"adversarial_training has epsilon {epsilon} and {steps} steps; epsilon must be 0 or more, and at "
                "least 1 step is needed"
            )
        self.epsilon, self.steps, self.columns, self.upward, self.spare = epsilon, steps, list(columns), upward, spare
        self.seed, self.client = seed, client
        self.passes = steps + 1 if epsilon else 1
        self.begin_round(0)

    def begin_round(self, number: int) -> None:
        """Seed the random starts of a round."""
        self._generator = torch_generator(self.seed, "adversarial training", self.client, number)

    def windows(self, x: Tensor, y: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Return where the loss is high around ``x (b, n_chans, n_times)``."""
        if not self.epsilon:
            return x
        reach = torch.full_like(x, self.epsilon)
        if self.columns:
            free = torch.zeros(x.shape[1], dtype=torch.bool)
            free[self.columns] = True
            reach = reach * free.to(x)[None, :, None]
        if self.spare is not None:
            reach = reach * (y != self.spare).to(x)[:, None, None]
        low = torch.zeros_like(reach) if self.upward else -reach
        start = torch.rand(x.shape, generator=self._generator).to(x)
        moved = x + low + start * (reach - low)
        rate = 1.25 if self.steps == 1 else 2.5 / self.steps
        for _ in range(self.steps):
            leaf = moved.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss(leaf), leaf)
            moved = x + torch.minimum(torch.maximum(leaf.detach() + rate * reach * slope.sign() - x, low), reach)
        return moved
