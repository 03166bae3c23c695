"""Gradients at the cut made to look alike in length (max_norm)."""

import torch
from torch import Tensor

from hcqsfl.models.defence import Defence
from hcqsfl.randomness import torch_generator


class MaxNorm(Defence):
    """Adds noise along each row of the gradient, so that all rows are as long, in expectation, as the longest.

    Row ``g`` becomes ``g (1 + strength * s * n)`` with ``n`` standard normal and ``s^2 = max |g|^2 / |g|^2 - 1``. It is
    a heuristic against attacks that read labels off lengths; directions stay as they are.

    Args:
        strength: 1 is the published rule; 0 adds nothing.
        seed, client: fix the noise.

    Raises:
        ValueError: ``strength`` is negative.

    Source: Li et al. (2022), Label leakage and protection in two-party split learning, section 4.1.
    """

    acts_in_evaluation = False
    couples_windows = True
    needs_own_gradient = True

    def __init__(self, strength: float = 1.0, *, seed: int, client: str) -> None:
        super().__init__()
        if not strength >= 0:
            raise ValueError(f"max_norm has strength {strength}; it must be 0 or more")
        self.strength, self.seed, self.client = strength, seed, client
        self.begin_round(0)

    def begin_round(self, number: int) -> None:
        """Seed the noise of a round."""
        self.generator = torch_generator(self.seed, "defence noise", self.client, number)

    def gradient(self, gradient: Tensor, y: Tensor) -> Tensor:
        """Return the rows ``(b, n_features)``, lengthened."""
        if not self.strength:
            return gradient
        squared = gradient.square().sum(dim=1, keepdim=True)
        needed = (squared.max() / squared.clamp_min(torch.finfo(gradient.dtype).tiny) - 1).clamp_min(0).sqrt()
        noise = torch.randn(squared.shape, generator=self.generator, dtype=gradient.dtype)
        return gradient * (1 + self.strength * needed * noise)
