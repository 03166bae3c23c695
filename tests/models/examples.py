"""Small networks, windows and plans for the tests of protocols."""

import torch
from torch import Tensor, nn

from hcqsfl.federated.aggregation import make as make_aggregator
from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.models.plan import Plan
from hcqsfl.models.protocols import Setup, set_up
from hcqsfl.quantum import circuits
from hcqsfl.randomness import torch_generator, torch_seeded

CLASSES = 3


def network(trunk: str = "hybrid", n_chans: int = 2, n_classes: int = CLASSES) -> Network:
    circuit = circuits.make("strongly_entangling", 4, 2)
    with torch_seeded(0, "test network"):
        return Network(
            fronts.make("conv1d", n_chans, 32, n_smashed=4, width=8),
            trunks.make(trunk, 4, 8, circuit, backend="auto"),
            linear_head(8, n_classes),
            torch.linspace(0.5, 2, n_classes),
        )


def windows(client: int, n: int = 40, n_chans: int = 2, n_classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    generator = torch_generator(0, "test windows", client)
    x = torch.randn(n, n_chans, 32, generator=generator)
    return x, torch.randint(n_classes, (n,), generator=generator)


def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def plan(make_optimizer=adam, **options) -> Plan:
    return Plan(make_optimizer, lambda: make_aggregator("fedavg"), **({"seed": 0, "batch_size": 8} | options))


def setup(protocol: str, n_clients: int = 3, make_optimizer=adam, trunk: str = "classical", **options) -> Setup:
    data = {f"client-{i}": windows(i) for i in range(n_clients)}
    return set_up(protocol, network(trunk), data, plan(make_optimizer, **options))


def run(a: Setup, rounds: int) -> Setup:
    for _ in range(rounds):
        a.federation.run_round()
    return a


def states(a: Setup, group: str = "") -> list[dict[str, Tensor]]:
    found = a.federation.final_states(group)
    return [{name: t for state in parts.values() for name, t in state.items()} for parts in found]


def assert_same(a: Setup, b: Setup, **tolerance: float) -> None:
    for one, other in zip(states(a), states(b), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], **({"rtol": 0, "atol": 0} | tolerance), msg=name)
