"""Poisoned smashed data."""

import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Member, PoisoningAttack
from hcqsfl.registry import lookup

KINDS = {
    "swap": "each row gets another row's smashed data, so that they belong to another label",
    "reverse": "each row is mirrored at the batch's mean, and stretched",
    "noise": "Gaussian rows of the batch's mean and deviation, stretched",
}


class Attack(PoisoningAttack):
    """Train the server's half on smashed data that say nothing of the labels, or the wrong thing.

    No aggregation rule ever sees it where the trunk is shared.

    Args:
        kind: one of ``KINDS``.
        scale: how far ``reverse`` and ``noise`` stretch, above 0.

    Raises:
        ValueError: an option is out of range.

    Source: Wan et al. (2023), MISA: unveiling the vulnerabilities in split federated learning, for smashed data as the
    way to poison the server's half; the kinds are set here.
    """

    source = "Wan et al. (2023), MISA: unveiling the vulnerabilities in split federated learning"

    def __init__(self, kind: str = "reverse", scale: float = 3.0) -> None:
        lookup("kind of smashed data", KINDS, kind)
        if not scale > 0:
            raise ValueError(f"smashed_poisoning was given a scale of {scale:g}; it must be above 0")
        self.kind, self.scale = kind, scale

    def smashed(self, smashed: Tensor, member: Member, generator: torch.Generator) -> Tensor:
        """Return what is sent."""
        if self.kind == "swap":
            return smashed[torch.randperm(len(smashed), generator=generator)]
        mean = smashed.mean(dim=0)
        if self.kind == "reverse":
            return mean - self.scale * (smashed - mean)
        noise = torch.randn(smashed.shape, generator=generator, dtype=smashed.dtype)
        return (mean + self.scale * smashed.std(dim=0, correction=0) * noise).detach()
