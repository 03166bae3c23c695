"""An optimiser moved past its label takes the same step, and nobody who listens is passed by."""

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hcqsfl.optimizers import take_step


def _weights(steps: int, take, kind: type[torch.optim.Optimizer]) -> torch.Tensor:
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 2), torch.randn(5, 3)
    optimizer = kind(layer.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        take(optimizer)
    return layer.weight.detach()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_the_step_is_the_optimisers_own(kind: type[torch.optim.Optimizer]) -> None:
    assert torch.equal(_weights(4, take_step, kind), _weights(4, lambda optimizer: optimizer.step(), kind))


def test_hooks_and_schedulers_are_asked() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    seen: list[str] = []
    handle = optimizer.register_step_post_hook(lambda *_: seen.append("own"))
    take_step(optimizer)
    handle.remove()
    take_step(optimizer)
    everywhere = register_optimizer_step_pre_hook(lambda *_: seen.append("everywhere"))
    take_step(optimizer)
    everywhere.remove()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    take_step(optimizer)
    scheduler.step()
    assert seen == ["own", "everywhere"]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_an_optimizer_with_a_way_of_its_own_is_asked() -> None:
    class Own(torch.optim.SGD):
        asked = 0

        def step(self, closure=None):
            self.asked += 1
            return super().step(closure)

    optimizer = Own(nn.Linear(2, 1).parameters(), lr=0.1)
    take_step(optimizer)
    assert optimizer.asked == 1
