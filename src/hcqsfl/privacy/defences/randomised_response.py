"""Labels told falsely with a known chance (label differential privacy)."""

import math

import torch
from torch import Tensor

from hcqsfl.models.defence import Defence
from hcqsfl.privacy.defences.gaussian import content_generator
from hcqsfl.randomness import derive


class RandomisedResponse(Defence):
    """Trains on labels that are true with probability ``e^eps / (e^eps + k - 1)`` and else one of the others, drawn.

    The lie is told once for each window, from a secret key and the window's content, so that a majority vote over
    epochs finds nothing and ``epsilon`` holds however often the label is used. It protects labels alone.

    Args:
        epsilon: of each label, under the replacement of one label; infinite tells the truth.
        n_outputs: classes.
        seed, client: the key.

    Raises:
        ValueError: ``epsilon`` is negative, or there are fewer than two classes.

    Source: Warner (1965), Randomized response; Ghazi et al. (2021), Deep learning with label differential privacy,
    algorithm 1 (k-ary).
    """

    acts_in_evaluation = False

    def __init__(self, epsilon: float = 2.0, *, n_outputs: int, seed: int, client: str) -> None:
        super().__init__()
        if not epsilon >= 0 or n_outputs < 2:
            raise ValueError(
                f"randomised_response has epsilon {epsilon} and {n_outputs} classes; epsilon must be 0 or more, and "
                "there must be 2 classes or more"
            )
        self.n_outputs, self.key = n_outputs, derive(seed, "randomised response", client)
        self.truth = 1.0 if math.isinf(epsilon) else 1 / (1 + (n_outputs - 1) * math.exp(-epsilon))

    def labels(self, y: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the labels ``(b,)`` as told; negative ones, which count for nothing, stay."""
        if self.truth == 1.0:
            return y
        if x is None:
            raise ValueError("randomised_response tells one lie a window, but the windows were not given")
        return torch.stack([self._told(label, window) for label, window in zip(y, x, strict=True)])

    def _told(self, label: Tensor, window: Tensor) -> Tensor:
        generator = content_generator(self.key, window)
        lies = torch.rand((), generator=generator).item() >= self.truth
        by = int(torch.randint(1, self.n_outputs, (), generator=generator))
        return (label + by) % self.n_outputs if lies and label >= 0 else label
