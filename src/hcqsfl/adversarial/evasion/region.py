"""Where an attacker may go: everything within reach of each window."""

from typing import Protocol

import torch
from torch import Tensor, nn


class Region(Protocol):
    """Inputs within reach of windows, and coordinates to move among them.

    Attributes:
        x: ``(n, n_chans, n_times)`` windows as the model takes them.
        epsilon: radius, in units of the model's input: deviations of the signal where it is standardised.
    """

    x: Tensor
    epsilon: float

    def start(self, rows: Tensor) -> Tensor:
        """Return the coordinates of the windows themselves."""
        ...

    def draw(self, rows: Tensor, generator: torch.Generator, corners: bool = False) -> Tensor:
        """Return random coordinates within reach; with ``corners`` as far away as may be."""
        ...

    def project(self, u: Tensor, rows: Tensor) -> Tensor:
        """Return the nearest coordinates within reach."""
        ...

    def place(self, u: Tensor, rows: Tensor) -> Tensor:
        """Return the inputs ``(m, n_chans, n_times)`` at coordinates."""
        ...

    def pull(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """Return a gradient of inputs as one of coordinates."""
        ...

    def keep(self, rows: Tensor, of: Tensor) -> None:
        """Note that the best for ``rows`` now are the inputs at ``of`` among those placed last."""
        ...


class Ball:
    """All inputs that differ from a window by at most ``epsilon`` in every sample; coordinates are the inputs.

    Args:
        x: ``(n, n_chans, n_times)``.
        epsilon: radius, 0 or more.

    Raises:
        ValueError: the radius is negative or no number.
    """

    def __init__(self, x: Tensor, epsilon: float) -> None:
        if not epsilon >= 0:
            raise ValueError(f"a radius of {epsilon} was asked for; it must be 0 or more")
        self.x, self.epsilon = x, epsilon

    def start(self, rows: Tensor) -> Tensor:
        """Return the windows."""
        return self.x[rows].clone()

    def draw(self, rows: Tensor, generator: torch.Generator, corners: bool = False) -> Tensor:
        """Return windows with uniform noise; with ``corners`` each sample is moved by plus or minus ``epsilon``."""
        noise = 2 * torch.rand(self.x[rows].shape, generator=generator) - 1
        return self.x[rows] + self.epsilon * (noise.sign() if corners else noise)

    def project(self, u: Tensor, rows: Tensor) -> Tensor:
        """Clip the difference."""
        return self.x[rows] + (u - self.x[rows]).clamp(-self.epsilon, self.epsilon)

    def place(self, u: Tensor, rows: Tensor) -> Tensor:
        """Return the inputs as they are."""
        return u

    def pull(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient as it is."""
        return gradient

    def keep(self, rows: Tensor, of: Tensor) -> None:
        """Note nothing: the inputs tell all."""


class SmoothBall:
    """Windows plus a smoothed perturbation of at most ``epsilon`` in every sample; coordinates are the perturbation.

    The perturbation is the mean of its convolutions with several Gaussian kernels of sum 1, so it stays inside the ball
    and is free of the square waves that give a plain attack on a heartbeat away.

    Args:
        x, epsilon: as in ``Ball``.
        widths: taps and deviation of each kernel, in samples.

    Source: Han et al. (2020), Deep learning models for electrocardiograms are susceptible to adversarial attack, Nature
    Medicine 26, 360-363, Methods: kernels of sizes 5, 7, 11, 15, 19 and deviations 1, 3, 5, 7, 10.
    """

    def __init__(
        self,
        x: Tensor,
        epsilon: float,
        widths: tuple[tuple[int, float], ...] = ((5, 1.0), (7, 3.0), (11, 5.0), (15, 7.0), (19, 10.0)),
    ) -> None:
        self.ball = Ball(torch.zeros_like(x), epsilon)
        self.x, self.epsilon = x, epsilon
        longest = x.shape[2] if x.shape[2] % 2 else x.shape[2] - 1
        widest = max(min(taps, longest) for taps, _ in widths)
        kernel = torch.zeros(widest)
        for taps, deviation in widths:
            held = min(taps, longest)
            at = torch.arange(held) - held // 2
            one = torch.exp(-0.5 * (at / deviation).square())
            first = (widest - held) // 2
            kernel[first : first + held] += one / one.sum() / len(widths)  # the mean of convolutions is one convolution
        self.kernel = kernel

    def smooth(self, signal: Tensor) -> Tensor:
        """Return ``(m, n_chans, n_times)`` smoothed; the kernel is symmetric, so this is its own transpose."""
        rows = signal.reshape(-1, 1, signal.shape[2])
        padding = len(self.kernel) // 2
        return nn.functional.conv1d(rows, self.kernel[None, None], padding=padding).reshape(signal.shape)

    def start(self, rows: Tensor) -> Tensor:
        """Return no perturbation."""
        return torch.zeros_like(self.x[rows])

    def draw(self, rows: Tensor, generator: torch.Generator, corners: bool = False) -> Tensor:
        """Return random perturbations."""
        return self.ball.draw(rows, generator, corners)

    def project(self, u: Tensor, rows: Tensor) -> Tensor:
        """Clip the perturbation."""
        return self.ball.project(u, rows)

    def place(self, u: Tensor, rows: Tensor) -> Tensor:
        """Return the windows with the perturbation, smoothed."""
        return self.x[rows] + self.smooth(u)

    def pull(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient of the perturbation before it was smoothed."""
        return self.smooth(gradient)

    def keep(self, rows: Tensor, of: Tensor) -> None:
        """Note nothing: the inputs tell all."""
