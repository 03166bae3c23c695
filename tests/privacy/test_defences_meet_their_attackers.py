"""What is known of defences comes out in kind: each looks perfect to one who does not know it.

The front stands still over the releases, and a colluding client gives it away: the strongest attacker.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from hcqsfl.models.defence import Defence
from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.metrics.dependence import distance_correlation
from hcqsfl.privacy.metrics.reconstruction import correlation
from hcqsfl.privacy.observation import Observation, Target
from hcqsfl.privacy.record import Exchange

N_RELEASES, N, T = 24, 48, 32


class Noise(Defence):
    """Fresh normal noise, in deviations of the smashed data."""

    def __init__(self, deviation: float, seed: int) -> None:
        super().__init__()
        self.deviation, self.generator = deviation, torch.Generator().manual_seed(seed)

    def forward(self, smashed, x=None):
        return smashed + self.deviation * torch.randn(smashed.shape, generator=self.generator)


def pulses(n: int, seed: int) -> torch.Tensor:
    """Return pulse waves of any rate and phase, ``(n, 1, 32)``."""
    generator = torch.Generator().manual_seed(seed)
    rate, phase = 1 + 2 * torch.rand(n, 1, generator=generator), 6.3 * torch.rand(n, 1, generator=generator)
    t = torch.arange(T) / T
    return (torch.sin(6.283 * rate * t + phase) + 0.3 * torch.sin(12.566 * rate * t + 2 * phase))[:, None]


def wide() -> nn.Module:
    """Every second sample of eight filters crosses."""
    return nn.Sequential(nn.Conv1d(1, 8, 7, stride=2, padding=3), nn.GELU(), nn.Flatten())


def narrow() -> nn.Module:
    """Two numbers cross."""
    return nn.Sequential(nn.Flatten(), nn.Linear(T, 32), nn.Tanh(), nn.Linear(32, 2))


def setting(make_front, deviation: float):
    """Return targets, what the colluding server sees of all their releases, and what it knows."""
    torch.manual_seed(0)
    front = make_front()
    with torch.no_grad():  # of deviation 1, as a trunk's input is
        last = [m for m in front if hasattr(m, "weight")][-1]
        factor = 1 / front(pulses(200, 3)).std()
        last.weight.mul_(factor), last.bias.mul_(factor)
    x = pulses(N, 1)
    clients = Noise(deviation, 5)
    with torch.no_grad():
        exchanges = [Exchange("A", 1, i + 1, clients(front(x))) for i in range(N_RELEASES)]
    half = {f"front.{name}": tensor for name, tensor in front.state_dict().items()}
    targets = [Target(N_RELEASES - 1, i) for i in range(N)]
    states = {0: {"": half}, 1: {"": half}}
    seen = Observation("T2", False, exchanges, targets, client_states=states)
    others = {i: [Target(k, i) for k in range(N_RELEASES - 1)] for i in range(N)}
    knows = Knowledge(pulses(600, 2), torch.zeros(600).long(), ["B"] * 600, 1, make_front, wide, wide, releases=others)
    return x, seen, knows


def found(x, seen, knows) -> float:
    made = attacks.make("decoder_inversion").run(seen, knows, Budget(300), 0).windows
    return float(correlation(x.numpy(), made.numpy()).mean())


@pytest.fixture(scope="module")
def noisy() -> dict[str, float]:
    """Return attacker to correlation, under noise of three times the deviation of the signal."""
    x, seen, knows = setting(wide, 3.0)
    none = dict.fromkeys(range(N), ())
    return {
        "unaware": found(x, seen, replace(knows, releases=none)),
        "aware": found(x, seen, replace(knows, releases=none, defence=Noise(3.0, 6))),
        "averaging": found(x, seen, replace(knows, defence=Noise(3.0, 6))),
        "dcor": distance_correlation(x.numpy(), seen.stacked().numpy(), 0, 0).value,
    }


def test_noise_looks_well_to_the_unaware_and_falls_to_who_averages_releases(noisy) -> None:
    assert noisy["unaware"] < 0.6
    assert noisy["unaware"] < noisy["aware"] + 0.05
    assert noisy["averaging"] > 0.85
    x, seen, knows = setting(wide, 0.0)
    assert found(x, seen, replace(knows, releases={})) > 0.95


def test_distance_correlation_puts_defences_in_the_wrong_order(noisy) -> None:
    x, seen, knows = setting(narrow, 0.0)
    bottleneck = found(x, seen, knows)
    dependence = distance_correlation(x.numpy(), seen.stacked().numpy(), 0, 0).value
    assert dependence > noisy["dcor"]  # so the bottleneck would be the worse defence
    assert bottleneck < noisy["averaging"] - 0.15  # and yet far less comes back through it
