"""DP-SGD on both halves of a split network: each sample's gradient clipped, noise added, windows drawn by Poisson.

The cut changes nothing about it: the gradient that comes back over the wire has one row a window, and per-sample
gradients of either half are formed below it as they are below a loss. Each half clips to a norm of its own; what both
together give away is accounted with the joint noise (see ``hcqsfl.privacy.accounting.models``).

It protects windows from whoever holds the trained models. The main server itself is trusted to add the noise of its
half, and sees smashed data and gradients as they are.

Source: Abadi et al. (2016), Deep learning with differential privacy, algorithm 1; Yousefpour et al. (2021), Opacus.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.randomness import torch_generator


@dataclass(frozen=True)
class Privatise:
    """Turns a half and its optimiser into ones of DP-SGD.

    Attributes:
        noise_multiplier: deviation of the noise over the clip, of each half.
        client_clip, server_clip: largest L2 norm of a window's gradient in the client's and the server's half.
        divisor: what the sum of clipped gradients is divided by: the expected batch size.
        seed: root seed of the noise.

    Raises:
        ValueError: a number is out of range.
    """

    noise_multiplier: float
    client_clip: float
    server_clip: float
    divisor: int
    seed: int

    def __post_init__(self) -> None:
        if not self.noise_multiplier >= 0 or not min(self.client_clip, self.server_clip) > 0:
            raise ValueError(
                f"DP-SGD has noise {self.noise_multiplier} and clips {self.client_clip} and {self.server_clip}; noise "
                "must be 0 or more, clips above 0"
            )

    def __call__(self, module: nn.Module, optimizer: torch.optim.Optimizer, part: str) -> torch.optim.Optimizer:
        """Hook a half so that it keeps per-sample gradients, and return the optimiser that clips and noises them.

        Raises:
            ValueError: a layer ties windows together, or Opacus is not installed.
        """
        tied = [name for name, child in module.named_modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]
        if tied:
            raise ValueError(f"DP-SGD needs each window on its own, but layer {tied[0]} normalises over the batch")
        if not any(p.requires_grad for p in module.parameters()):
            return optimizer
        keep_samples(module)
        clip = self.server_clip if part.partition(":")[0] != "client" else self.client_clip
        private: torch.optim.Optimizer = _optimizer_class()(optimizer, self, clip, part)
        return private


def keep_samples(module: nn.Module) -> None:
    """Make a module's backward pass leave each sample's gradient in ``parameter.grad_sample``, ``(b, *shape)``.

    The gradients are those of a loss that sums over samples.
    """
    opacus = _opacus()
    if QuantumLayer not in opacus.GradSampleModule.GRAD_SAMPLERS:
        opacus.GradSampleModule.GRAD_SAMPLERS[QuantumLayer] = _quantum
    # not strict: that would refuse constant buffers too, such as random Fourier frequencies; a parameter without
    # per-sample gradients is refused at the first step
    opacus.GradSampleModule(module, batch_first=True, loss_reduction="sum", strict=False)


def _quantum(layer: QuantumLayer, activations: list[Tensor], slopes: Tensor) -> dict[nn.Parameter, Tensor]:
    return {layer.weights: layer.per_sample_gradients(activations[0], slopes)} if layer.weights.requires_grad else {}


def _opacus() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import opacus
    except ImportError:
        raise ValueError("DP-SGD needs opacus, which is not installed: pip install 'hcqsfl[privacy]'") from None
    return opacus


def _optimizer_class() -> Any:
    _opacus()
    from opacus.optimizers import DPOptimizer

    class PrivateOptimizer(DPOptimizer):
        """Opacus' optimiser, whose noise depends on client and turn alone, and that forgets samples after a step."""

        def __init__(self, optimizer: torch.optim.Optimizer, settings: Privatise, clip: float, part: str) -> None:
            super().__init__(
                optimizer,
                noise_multiplier=settings.noise_multiplier,
                # the loss is a sum over the expected batch size, and so are the gradients
                max_grad_norm=clip / settings.divisor,
                expected_batch_size=None,
                loss_reduction="sum",
                generator=torch_generator(settings.seed, "dp_sgd", part),
            )
            self.seed, self.part = settings.seed, part

        def begin_turn(self, client: str, number: int) -> None:
            """Seed the noise of a client's turn."""
            self.generator = torch_generator(self.seed, "dp_sgd", self.part, client, number)

        def step(self, closure: Any = None) -> Any:
            done = super().step(closure)
            for parameter in self.params:
                parameter.grad_sample = parameter.summed_grad = None
            return done

    return PrivateOptimizer
