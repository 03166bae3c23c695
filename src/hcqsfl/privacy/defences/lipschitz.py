"""Keep the front from magnifying small changes of its windows: a penalty on the norm of its Jacobian."""

import torch
from torch import Tensor, nn

from hcqsfl.models.defence import Defence
from hcqsfl.randomness import torch_generator


class Lipschitz(Defence):
    """Adds ``strength * ||dz / dx||^2`` to the loss: the mean squared Frobenius norm of the front's Jacobian.

    The norm is estimated along one random direction of the smashed data a step, without bias. It bounds the client's
    half alone, and that suffices behind a circuit: angles enter by gates whose expectation values change by at most
    their spectral range, whatever the weights. A penalty on weights would do nothing here, since the front normalises.

    Args:
        strength: of the penalty; 0 leaves the loss as it is.
        seed, client: fix the directions.

    Raises:
        ValueError: the strength is negative.

    Source: Hoffman, Roberts & Yaida (2019), Robust learning with Jacobian regularization, equation 6 and algorithm 1;
    for circuits, Wendlinger et al. (2024), A comparative analysis of adversarial robustness for quantum and classical
    machine learning models, section IV.
    """

    acts_in_evaluation = False

    def __init__(self, strength: float = 0.01, *, seed: int = 0, client: str = "") -> None:
        super().__init__()
        if not strength >= 0:
            raise ValueError(f"lipschitz has strength {strength}; it must be 0 or more")
        self.strength, self.seed, self.client = strength, seed, client
        self._front: tuple[nn.Module, ...] = ()
        self.begin_round(0)

    def begin_round(self, number: int) -> None:
        """Seed the directions of a round."""
        self._generator = torch_generator(self.seed, "lipschitz", self.client, number)

    def stand_behind(self, front: nn.Module) -> None:
        """Learn which front it is; in a tuple, so that it is no child of the defence."""
        self._front = (front,)

    def penalty(self, x: Tensor, smashed: Tensor) -> Tensor | None:
        """Return the penalty, or ``None`` where it is nothing."""
        if not self.strength:
            return None
        leaf = x.detach().requires_grad_()
        made = self._front[0](leaf)
        direction = torch.randn(made.shape, generator=self._generator).to(made)
        direction = direction / direction.norm(dim=1, keepdim=True)
        (slope,) = torch.autograd.grad((made * direction).sum(), leaf, create_graph=True)
        # of a direction drawn evenly from the sphere, the mean is the norm over the width
        return self.strength * made.shape[1] * slope.flatten(1).square().sum(dim=1).mean()
