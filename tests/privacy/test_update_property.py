"""What updates give away about a client's windows, and how many auxiliary people a decoder needs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hcqsfl.data.windows import Windows
from hcqsfl.models.learner import Network
from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.recipes.suites.auxiliary import like, of_few

N, T, CLIENTS = 200, 8, 8


def front() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * T, 6), nn.GELU())


def trunk() -> nn.Module:
    return nn.Linear(6, 6)


def head() -> nn.Module:
    return nn.Linear(6, 2)


def windows(n: int, loud: bool, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return windows whose first channel tells the class, and whose second one is loud or not."""
    y = torch.randint(2, (n,), generator=generator)
    x = torch.randn(n, 2, T, generator=generator)
    x[:, 0] += (2.0 * y - 1)[:, None]
    x[:, 1] *= 3.0 if loud else 0.3
    return x, y


@pytest.fixture(scope="module")
def clients():
    """Two rounds of updates of eight clients, every second one of whom has loud windows."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = Network(front(), trunk(), head())
    start = {k: v.clone() for k, v in network.state_dict().items()}
    half = {k: v for k, v in start.items() if not k.startswith("trunk.")}
    own = {k: v for k, v in start.items() if k.startswith("trunk.")}
    updates = {}
    for number in (1, 2):
        updates[number] = {}
        for i in range(CLIENTS):
            network.load_state_dict(start)
            optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
            for _ in range(5):
                optimizer.zero_grad()
                network.loss(*windows(16, i % 2 == 1, generator)).backward()
                optimizer.step()
            updates[number][f"c{i}"] = {k: v.clone() for k, v in network.state_dict().items() if k in half}
    seen = Observation(
        "T5", False, client_states={n: {"": half} for n in range(3)}, trunk_states={n: {"": own} for n in range(3)},
        updates=updates,
    )  # fmt: skip
    parts = [windows(N // 2, loud, generator) for loud in (True, False)]
    x, y = (torch.cat([p[i] for p in parts]) for i in (0, 1))
    values = np.array(["loud"] * (N // 2) + ["quiet"] * (N // 2))
    training = {"batch_size": 16, "local_steps": 5, "optimizer": "sgd", "learning_rate": 0.05}
    knows = Knowledge(x, y, ["B"] * N, 2, front, trunk, head, training, extra={"values": values})
    return seen, knows, np.array(["quiet", "loud"] * (CLIENTS // 2))


def right(seen, knows, truth) -> float:
    made = attacks.make("update_property").run(seen, knows, Budget(400), 0)
    return float((np.array(made.candidates)[made.property.numpy().argmax(axis=1)] == truth).mean())


def test_updates_tell_whose_windows_are_loud_and_noise_in_their_place_does_not(clients) -> None:
    seen, knows, truth = clients
    assert right(seen, knows, truth) == 1.0
    generator = torch.Generator().manual_seed(1)
    base = seen.client_states[0][""]
    noise = {
        n: {
            c: {k: base[k] + (v - base[k]).std() * torch.randn(v.shape, generator=generator) for k, v in state.items()}
            for c, state in given.items()
        }
        for n, given in seen.updates.items()
    }
    assert right(replace(seen, updates=noise), knows, truth) <= 0.75


def test_what_cannot_be_imitated_is_refused(clients) -> None:
    seen, knows, _ = clients
    run = attacks.make("update_property").run
    with pytest.raises(NotApplicable, match="T4 does not see the trunk"):
        run(replace(seen, threat="T4", trunk_states={}), knows, Budget(400), 0)
    with pytest.raises(ValueError, match="at least 4 are needed: 80 evaluations"):
        run(seen, knows, Budget(20), 0)
    with pytest.raises(ValueError, match="only one value"):
        run(seen, replace(knows, extra={"values": ["a"] * N}), Budget(400), 0)


def test_few_auxiliary_people_are_those_and_no_others(clients) -> None:
    _, knows, _ = clients
    knows = replace(knows, subject=[f"S{i % 4}" for i in range(N)])
    few = of_few(knows, 2, 0)
    assert len(set(few.subject)) == 2
    assert len(few.x) == len(few.y) == len(few.subject) == N // 2
    assert torch.equal(few.x[0], knows.x[knows.subject.index(few.subject[0])])
    with pytest.raises(NotApplicable, match="there are 4 auxiliary subjects in this fold, fewer than 15"):
        of_few(knows, 15, 0)


def test_windows_of_another_data_set_take_the_victims_shape_rate_and_scale() -> None:
    t = np.arange(100) / 50.0
    x = np.stack([np.sin(2 * np.pi * t), 5 + 2 * np.cos(2 * np.pi * t)])[None].repeat(3, axis=0)
    flat = np.zeros(3, np.int64)
    other = Windows(x, flat, np.array(["A"] * 3), flat, flat, flat, 50.0, ("a", "b"), ("", ""), ("one",))
    made = like(other, 3, 30, 25.0, each=False)  # 2 s at 50 Hz become 50 samples at 25 Hz, of which 30 are kept
    assert made.shape == (3, 3, 30)
    expected = np.sin(2 * np.pi * np.arange(30) / 25.0)
    assert np.corrcoef(made[0, 0].numpy(), expected)[0, 1] > 0.999
    assert torch.equal(made[:, 2], made[:, 0])
    assert np.allclose(made.numpy().std(axis=(0, 2)), 1.0, atol=1e-5)
    with pytest.raises(NotApplicable, match="rows of a table"):
        like(other, 3, 1, 1.0, each=False)
