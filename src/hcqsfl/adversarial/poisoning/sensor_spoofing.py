"""Spoofed sensors."""

import numpy as np
import torch
from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Member, PoisoningAttack
from hcqsfl.data.synthetic.physiology import ppg_cycle, replay
from hcqsfl.randomness import numpy_generator
from hcqsfl.registry import lookup

KINDS = {"flat": "no signal: each channel at its own mean", "pulse": "a simulated pulse wave at a rate of one's choice"}


class Attack(PoisoningAttack):
    """Feed the sensor made-up vital signs, and keep the labels.

    Args:
        kind: one of ``KINDS``.
        rate: of the pulse, beats a minute, above 0.
        share: of the windows that are spoofed, in (0, 1].
        channels: which channels; all of them unless given.

    Raises:
        ValueError: an option is out of range; and where windows are too short to hold a signal in time.

    Source: Foo Kune et al. (2013), Ghost Talk: mitigating EMI signal injection attacks against analog sensors, for the
    means; the pulse wave is one beat of NeuroKit2 (Makowski et al. 2021), replayed.
    """

    source = "Foo Kune et al. (2013), Ghost Talk: mitigating EMI signal injection attacks against analog sensors"

    def __init__(
        self, kind: str = "pulse", rate: float = 150.0, share: float = 1.0, channels: tuple[int, ...] = ()
    ) -> None:
        lookup("kind of spoofed signal", KINDS, kind)
        if not rate > 0 or not 0 < share <= 1:
            raise ValueError("sensor_spoofing takes a rate above 0 and a share in (0, 1]")
        self.kind, self.rate, self.share, self.channels = kind, rate, share, tuple(channels)

    def data(self, x: Tensor, y: Tensor, member: Member) -> tuple[Tensor, Tensor]:
        """Return windows whose channels keep their mean and deviation, and nothing else."""
        n, n_chans, n_times = x.shape
        beats = n_times / member.sfreq * self.rate / 60
        if n_times < 8 or (self.kind == "pulse" and beats < 1):
            raise ValueError(
                f"sensor_spoofing makes a signal in time, but windows hold {n_times} samples"
                + (f" at {member.sfreq:g} Hz, {beats:.2g} beats" if n_times > 1 else "")
            )
        generator = numpy_generator(member.seed, "spoof", member.client)
        chosen = generator.random(n) < self.share
        channels = self.channels or tuple(range(n_chans))
        mean, std = x.mean(dim=(0, 2)), x.std(dim=(0, 2), correction=0)
        spoofed = x.clone()
        waves = torch.zeros(int(chosen.sum()), n_times, dtype=x.dtype)
        if self.kind == "pulse" and len(waves):
            phases = generator.random(len(waves))[:, None] + np.arange(n_times) / member.sfreq * self.rate / 60
            made = replay(ppg_cycle(), phases)
            made = (made - made.mean()) / made.std()
            waves = torch.from_numpy(made).to(x.dtype)
        for channel in channels:
            spoofed[torch.from_numpy(chosen), channel] = mean[channel] + std[channel] * waves
        return spoofed, y
