"""Clip the smashed data and add Gaussian noise: fresh at each release, or always the same for the same window."""

import hashlib
import math

import torch
from torch import Tensor

from hcqsfl.models.defence import Defence
from hcqsfl.randomness import derive, torch_generator


class Gaussian(Defence):
    """The Gaussian mechanism on each window's smashed data, drawn anew whenever they are sent.

    Each row is scaled down to an L2 norm of at most ``clip``, so that another window in its place moves what is sent by
    at most ``2 * clip``: noise of deviation ``noise_multiplier * 2 * clip`` is added to each number. What that is worth
    in epsilon falls with every release of the same window: ``hcqsfl.privacy.accounting`` composes them.

    Args:
        noise_multiplier: deviation of the noise over the sensitivity; 0 adds none.
        clip: largest L2 norm that is sent; infinite clips nothing, and then no noise can be measured by it.
        seed, client: fix the noise.

    Raises:
        ValueError: an option is out of range, or there is noise without a clip.

    Source: Dwork & Roth (2014), The algorithmic foundations of differential privacy, section 3.5 and appendix A.
    """

    memoised = False

    def __init__(self, noise_multiplier: float = 0.5, clip: float = 2.0, *, seed: int, client: str) -> None:
        super().__init__()
        if not noise_multiplier >= 0 or not clip > 0:
            raise ValueError(
                f"gaussian has noise_multiplier {noise_multiplier} and clip {clip}; the one must be 0 or more, the "
                "other above 0"
            )
        if noise_multiplier and math.isinf(clip):
            raise ValueError("gaussian adds noise in proportion to clip: without a finite clip there is no sensitivity")
        self.noise_multiplier, self.clip, self.seed, self.client = noise_multiplier, clip, seed, client
        self.begin_round(0)

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise on each number."""
        return self.noise_multiplier * 2 * self.clip if self.noise_multiplier else 0.0

    def begin_round(self, number: int) -> None:
        """Seed the noise of a round."""
        self.generator = torch_generator(self.seed, "defence noise", self.client, number)

    def forward(self, smashed: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the clipped, noisy smashed data ``(b, n_smashed)``."""
        clipped = clip_rows(smashed, self.clip)
        return clipped + self.deviation * self.noise(smashed, x) if self.deviation else clipped

    def noise(self, smashed: Tensor, x: Tensor | None) -> Tensor:
        """Return standard normal noise ``(b, n_smashed)``."""
        return torch.randn(smashed.shape, generator=self.generator, dtype=smashed.dtype)


class MemoisedGaussian(Gaussian):
    """The same, but a window gets the same noise whenever it is sent: averaging over epochs finds nothing.

    The noise is drawn from a secret key and the window's content, nothing is stored. One release is then all there is
    as long as the front stands still, as it does after training. While the front moves, the difference between two
    releases of a window holds no noise at all, so that no epsilon holds over several: the accounting says so.

    Args:
        noise_multiplier, clip: as in ``Gaussian``.
        seed, client: the key.

    Source: Erlingsson et al. (2014), RAPPOR, section 3 (permanent randomised response), for memoising.
    """

    memoised = True

    def noise(self, smashed: Tensor, x: Tensor | None) -> Tensor:
        """Return standard normal noise ``(b, n_smashed)``, each row that of its window."""
        if x is None:
            raise ValueError("memoised noise belongs to a window's content, but the windows were not given")
        return torch.stack([self._row(window, smashed) for window in x])

    def _row(self, window: Tensor, smashed: Tensor) -> Tensor:
        return torch.randn(smashed.shape[1:], generator=self.of(window), dtype=smashed.dtype)

    def of(self, window: Tensor) -> torch.Generator:
        """Return the generator that belongs to one window."""
        return content_generator(derive(self.seed, "memoised noise", self.client), window)


def content_generator(key: int, window: Tensor) -> torch.Generator:
    """Return a generator that a secret key and a window's content fix."""
    content = window.detach().contiguous().numpy().tobytes()
    drawn = hashlib.blake2b(content, key=key.to_bytes(8, "big"), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(drawn, "big") >> 1)


def clip_rows(rows: Tensor, largest: float) -> Tensor:
    """Scale rows ``(b, ...)`` down to an L2 norm of at most ``largest``; those below it stay as they are."""
    if math.isinf(largest):
        return rows
    norms = rows.flatten(1).norm(dim=1).clamp_min(torch.finfo(rows.dtype).tiny)
    return rows * (largest / norms).clamp_max(1.0).reshape(-1, *[1] * (rows.ndim - 1))
