"""Noise on smashed data, calibrated such that no unbiased reconstruction of a window can be good (dFIL)."""

import weakref

import torch
from torch import Tensor, nn

from hcqsfl.models.defence import Defence
from hcqsfl.randomness import torch_generator


class FisherCalibrated(Defence):
    """Gaussian noise, as much as keeps the diagonal Fisher information leakage of each window below a bound.

    With smashed data ``f(x)`` plus noise of deviation ``sigma``, ``dFIL = tr(J' J) / (d sigma^2)``, where ``J`` is the
    Jacobian of the front at the window and ``d`` its number of samples; an unbiased attacker's mean squared error per
    sample is at least ``1 / dFIL`` for one release. An attacker with a prior is biased and may do better, and ``T``
    releases multiply dFIL by ``T``.

    The deviation is what the most exposed window that was met in the round asks for, that of the batch included: it
    never falls within a round, so that every window's dFIL stays below the bound.

    Args:
        bound: largest dFIL of a release; windows are scaled, so that ``1 / bound`` is an error in units of variance.
        seed, client: fix the noise.

    Raises:
        ValueError: the bound is not above 0.

    Source: Maeng, Guo, Kariyappa & Suh (2023), Bounding the invertibility of privacy-preserving instance encoding using
    Fisher information, equations 3 and 4.
    """

    couples_windows = True

    def __init__(self, bound: float = 1.0, *, seed: int, client: str) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"dfil has a bound of {bound}; it must be above 0 (infinite adds no noise)")
        self.bound, self.seed, self.client = bound, seed, client
        self._front: tuple[nn.Module, ...] = ()  # in a tuple, so that it is no child of the defence
        self._met: weakref.ref[Tensor] | None = None  # smashed data that the deviation was last made for
        self.begin_round(0)

    def begin_round(self, number: int) -> None:
        """Seed the noise of a round, and calibrate anew."""
        self.generator = torch_generator(self.seed, "defence noise", self.client, number)
        self.deviation, self._met = 0.0, None

    def stand_behind(self, front: nn.Module) -> None:
        """Learn whose Jacobian counts."""
        self._front, self._met = (front,), None

    def forward(self, smashed: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the noisy smashed data ``(b, n_smashed)``.

        Raises:
            ValueError: the front or the windows are not known.
        """
        if self.bound == float("inf"):
            return smashed
        if x is None or not self._front:
            raise ValueError("dfil needs the front and the windows to calibrate its noise")
        if self._met is None or self._met() is not smashed:  # many releases of one tensor ask for one calibration
            sensitivity = squared_jacobian(self._front[0], x) / x[0].numel()  # (b,)
            self.deviation = max(self.deviation, (sensitivity.max() / self.bound).sqrt().item())
            self._met = weakref.ref(smashed)
        noise = torch.randn(smashed.shape, generator=self.generator, dtype=smashed.dtype)
        return smashed + self.deviation * noise


def squared_jacobian(front: nn.Module, x: Tensor) -> Tensor:
    """Return ``tr(J' J)`` of each window, ``(b,)``.

    Args:
        front: maps each window on its own to ``(n_smashed,)``.
        x: windows ``(b, n_chans, n_times)``.
    """
    training = front.training
    front.eval()  # of the function itself, without dropout
    with torch.enable_grad():
        inputs = x.detach().requires_grad_()
        outputs = front(inputs)
        total = torch.zeros(len(x), dtype=x.dtype)
        for k in range(outputs.shape[1]):
            (row,) = torch.autograd.grad(outputs[:, k].sum(), inputs, retain_graph=True)
            total += row.flatten(1).square().sum(dim=1)
    front.train(training)
    return total
