"""What tells made-up smashed data, or windows, from those seen."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Critic(nn.Module):
    """Two dense layers over a row, and one score.

    Args:
        shape: of a row.
        n_classes: if above 0, the class is given with the row.
        width: units.
    """

    def __init__(self, shape: Sequence[int], n_classes: int = 0, width: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(math.prod(shape) + n_classes, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def forward(self, rows: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return scores ``(b,)`` of rows ``(b, ...)``, given their classes one-hot ``(b, n_classes)``."""
        flat = rows.flatten(1)
        scores: Tensor = self.net(flat if labels is None else torch.cat([flat, labels], dim=1))
        return scores[:, 0]


def wasserstein_step(
    critic: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, made: Tensor, penalty: float = 10.0
) -> float:
    """Take one step of a Wasserstein critic with gradient penalty; return its estimate of the distance.

    Source: Gulrajani et al. (2017), Improved training of Wasserstein GANs, algorithm 1.
    """
    n = min(len(real), len(made))
    real, made = real[:n], made[:n]
    share = torch.rand(n, *[1] * (real.ndim - 1))
    between = (share * real + (1 - share) * made).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    distance = critic(real).mean() - critic(made).mean()
    loss = -distance + penalty * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(distance.detach())


def tell_apart(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    made: Tensor,
    real_labels: Tensor | None = None,
    made_labels: Tensor | None = None,
) -> float:
    """Take one step of a discriminator towards 1 for what is real and 0 for what is made; return its loss.

    Source: Goodfellow et al. (2014), Generative adversarial nets, algorithm 1.
    """
    scores = torch.cat([critic(real, real_labels), critic(made, made_labels)])
    wanted = torch.cat([torch.ones(len(real)), torch.zeros(len(made))])
    loss = nn.functional.binary_cross_entropy_with_logits(scores, wanted)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def fooled(scores: Tensor) -> Tensor:
    """Return the loss of one who wants a discriminator to take what it made for real."""
    return nn.functional.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))
