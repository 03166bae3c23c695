"""Gradients at the cut noised such that two classes are as hard to tell apart as the power allows (Marvell)."""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from hcqsfl.models.defence import Defence
from hcqsfl.randomness import torch_generator


class Marvell(Defence):
    """Adds Gaussian noise of a covariance of its own to each class's gradient rows, the sum of both divergences least.

    Classes' rows are taken for normal with means a vector apart and spherical spread. A batch of one class alone gets
    spherical noise of the same power.

    Args:
        strength: power of the noise over the squared distance of the classes' mean rows; 0 adds nothing.
        n_outputs: classes; two.
        seed, client: fix the noise.

    Raises:
        ValueError: ``strength`` is negative, or there are other than two classes.

    Source: Li et al. (2022), Label leakage and protection in two-party split learning, section 4.2 and theorem 2.
    """

    acts_in_evaluation = False
    couples_windows = True
    needs_own_gradient = True

    def __init__(self, strength: float = 1.0, *, n_outputs: int, seed: int, client: str) -> None:
        super().__init__()
        if n_outputs != 2:
            raise ValueError(f"marvell is for two classes, and here are {n_outputs}; max_norm takes any number")
        if not strength >= 0:
            raise ValueError(f"marvell has strength {strength}; it must be 0 or more")
        self.strength, self.seed, self.client = strength, seed, client
        self.begin_round(0)

    def begin_round(self, number: int) -> None:
        """Seed the noise of a round."""
        self.generator = torch_generator(self.seed, "defence noise", self.client, number)

    def gradient(self, gradient: Tensor, y: Tensor) -> Tensor:
        """Return the rows ``(b, n_features)``, noised by class."""
        if not self.strength:
            return gradient
        n, d = gradient.shape
        drawn = torch.randn(n, d, generator=self.generator, dtype=gradient.dtype)
        is_one = (y == 1)[:, None]
        p = is_one.float().mean().item()
        if not 0 < p < 1:
            power = self.strength * gradient.square().sum(dim=1).mean()
            return gradient + (power / d).sqrt() * drawn
        zeros, ones = gradient[~is_one[:, 0]], gradient[is_one[:, 0]]
        apart = ones.mean(dim=0) - zeros.mean(dim=0)
        u, v = (_spread(rows) for rows in (zeros, ones))
        g = apart.square().sum().item()
        if g <= 0:
            return gradient
        along0, across0, along1, across1 = variances(u / g, v / g, p, d, self.strength) * g
        unit = apart / g**0.5
        line = (drawn @ unit)[:, None] * unit
        along = torch.where(is_one, float(along1) ** 0.5, float(along0) ** 0.5)
        across = torch.where(is_one, float(across1) ** 0.5, float(across0) ** 0.5)
        return gradient + along * line + across * (drawn - line)


def _spread(rows: Tensor) -> float:
    return (rows - rows.mean(dim=0)).square().mean().item()


def variances(u: float, v: float, p: float, d: int, power: float) -> np.ndarray:
    """Return the noise's variances along and across the line between two classes, that make them hardest to tell apart.

    Args:
        u, v: spherical variance of class 0 and class 1, in units of the squared distance of their means.
        p: share of class 1.
        d: dimensions.
        power: largest mean squared length of the noise, in the same units.

    Returns:
        ``(4,)``: along and across for class 0, along and across for class 1.
    """
    costs = np.array([1 - p, (1 - p) * (d - 1), p, p * (d - 1)])
    u, v = max(u, 1e-6), max(v, 1e-6)  # rows that are all equal are told apart at any power but for this
    starts = (
        power * np.array([1.0, 0, 1.0, 0]),
        power * np.array([0.9, 0, 0.9, 0]) / 1.0 + 0.1 * power / costs.sum(),
        np.array([power / (1 - p), 0, 0, 0]),
        np.array([0, 0, power / p, 0]),
    )
    constraints = [
        {"type": "ineq", "fun": lambda w: power - costs @ w, "jac": lambda w: -costs},
        {"type": "ineq", "fun": lambda w: w[0] - w[1], "jac": lambda w: np.array([1.0, -1, 0, 0])},
        {"type": "ineq", "fun": lambda w: w[2] - w[3], "jac": lambda w: np.array([0, 0, 1.0, -1])},
    ]
    found = [
        minimize(sum_kl, start, (u, v, d), bounds=[(0, None)] * 4, constraints=constraints, method="SLSQP")
        for start in starts
    ]
    best = min((f.x for f in found if np.isfinite(f.fun)), key=lambda w: sum_kl(np.maximum(w, 0), u, v, d))
    kept = np.maximum(best, 0)
    return kept * min(1.0, power / max(costs @ kept, 1e-300))


def sum_kl(w: np.ndarray, u: float, v: float, d: int) -> float:
    """Return, but for a constant and a factor, the divergence between the noised classes, both ways added.

    Args:
        w: ``(4,)`` variances as ``variances`` returns them.
        u, v, d: as there.
    """
    along0, across0, along1, across1 = w[0] + u, w[1] + u, w[2] + v, w[3] + v
    return float((d - 1) * (across0 / across1 + across1 / across0) + (along0 + 1) / along1 + (along1 + 1) / along0)
