"""A federation of ten clients on a task of two classes, small enough to be poisoned many times over."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.adversarial.poisoning import make
from hcqsfl.adversarial.poisoning.infiltrate import infiltrate
from hcqsfl.federated.aggregation import make as make_rule
from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.models.plan import Plan
from hcqsfl.models.predict import predict_by_lot
from hcqsfl.models.protocols import Setup, set_up
from hcqsfl.quantum import circuits
from hcqsfl.randomness import torch_seeded

CLIENTS = tuple(f"c{i}" for i in range(10))
BAD = CLIENTS[:4]


def draw(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return sines in noise whose frequency tells the class."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=generator)
    phase = 6.28 * torch.rand(n, 1, 1, generator=generator)
    wave = torch.sin(phase + (0.6 + 1.2 * y[:, None, None]) * torch.arange(16))
    return wave + 0.7 * torch.randn(n, 2, 16, generator=generator), y


def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.02)


def federation(
    protocol: str, rule: str = "fedavg", without: Collection[str] = (), rule_options: Any = None, **plan: Any
) -> Setup:
    torch.set_num_threads(1)
    data = {client: draw(32, i) for i, client in enumerate(CLIENTS) if client not in without}
    with torch_seeded(0, "poisoned"):
        circuit = circuits.make("basic_entangler", 3, 1)
        front = fronts.make("conv1d", 2, 16, 3, width=8, n_layers=1)
        network = Network(front, trunks.make("classical", 3, 4, circuit, "fused"), linear_head(4, 2))
    options = {"make_optimizer": adam, "seed": 0, "batch_size": 16} | plan
    return set_up(
        protocol, network, data, Plan(make_aggregator=lambda: make_rule(rule, **(rule_options or {})), **options)
    )


def poisoned(setup: Setup, attack: str, bad: Collection[str] = BAD, rounds: int = 6, **options: Any) -> Setup:
    if attack:
        infiltrate(setup, make(attack, **options), bad, n_classes=2, seed=0, sfreq=4.0)
    for _ in range(rounds):
        setup.federation.run_round()
    return setup


def judged(setup: Setup, x: Tensor | None = None) -> tuple[float, float, Tensor]:
    """Return cross entropy and accuracy on 400 new windows, and what was predicted."""
    new, y = draw(400, 99)
    logits = predict_by_lot(setup.networks(), new if x is None else x, 0)
    return (
        float(nn.functional.cross_entropy(logits, y)),
        float((logits.argmax(1) == y).float().mean()),
        logits.argmax(1),
    )
