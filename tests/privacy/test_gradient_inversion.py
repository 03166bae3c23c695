"""Windows reconstructed from updates, through the circuit as well."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hcqsfl.models import trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.gradients import cosine_distance, label_counts, pose, squared_error, weighted_cross_entropy
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.privacy.priors import aperiodicity, bend, periods, total_variation
from hcqsfl.quantum import circuits
from hcqsfl.recipes.suites.gradients import matched

RATE, CHANS, TIMES = 0.1, 2, 16


def front() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(CHANS * TIMES, 24), nn.Sigmoid(), nn.Linear(24, 4))


def hybrid() -> nn.Module:
    return trunks.make("hybrid", 4, 6, circuits.make("strongly_entangling", 4, 1), backend="fused")


def classical() -> nn.Module:
    return trunks.make("classical", 4, 6, circuits.make("strongly_entangling", 4, 1))


def head() -> nn.Module:
    return linear_head(6, 3)


def smooth(n: int) -> torch.Tensor:
    t = torch.linspace(0, 6.28, TIMES)
    return torch.sin(t * (1 + torch.rand(n, CHANS, 1)) + 6 * torch.rand(n, CHANS, 1))


def update(make_trunk, n: int, epochs: int = 1) -> tuple[Observation, Knowledge, torch.Tensor, torch.Tensor]:
    """One client's plain SGD steps on ``n`` known windows, as the fed and the main server in one hand see them."""
    torch.manual_seed(0)
    x, y = smooth(n), torch.arange(n) % 3
    network = Network(front(), make_trunk(), head())
    halves = {
        "client": [name for name in network.state_dict() if not name.startswith("trunk.")],
        "trunk": [name for name in network.state_dict() if name.startswith("trunk.")],
    }
    before = {name: t.clone() for name, t in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    for _ in range(epochs):
        optimizer.zero_grad()
        network.loss(x, y).backward()
        optimizer.step()
    after = network.state_dict()
    seen = Observation(
        "T5",
        False,
        client_states={0: {"": {name: before[name] for name in halves["client"]}}},
        updates={1: {"A": {name: after[name] for name in halves["client"]}}},
        trunk_states={k: {"": {name: s[name] for name in halves["trunk"]}} for k, s in ((0, before), (1, after))},
        examples={"A": n},
    )
    aux_x, aux_y = smooth(60), torch.arange(60) % 3
    training = {"optimizer": "sgd", "learning_rate": RATE, "local_epochs": epochs}
    knowledge = Knowledge(aux_x, aux_y, ["Z"] * 60, 3, front, make_trunk, head, training, extra={"parts": ("client",)})
    return seen, knowledge, x, y


def r(made: torch.Tensor, truth: torch.Tensor) -> float:
    places = matched(made, truth)
    pairs = zip(made[places[0]].flatten(1), truth[places[1]].flatten(1), strict=True)
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))


def random_update(seen: Observation) -> Observation:
    """An update of the same size that has nothing to do with any window."""
    torch.manual_seed(7)
    base, state = seen.client_states[0][""], seen.updates[1]["A"]
    noise = {k: base[k] + torch.randn_like(t) * (state[k] - base[k]).std(correction=0) for k, t in state.items()}
    return replace(seen, updates={1: {"A": noise}})


@pytest.mark.parametrize("make_trunk", [hybrid, classical])
@pytest.mark.parametrize(("name", "evaluations"), [("dlg", 150), ("idlg", 150), ("inverting_gradients", 250)])
def test_a_window_leaks_from_the_gradient_of_the_client_half(name: str, evaluations: int, make_trunk) -> None:
    seen, knowledge, x, _ = update(make_trunk, 1)
    made = attacks.make(name).run(seen, knowledge, Budget(evaluations), 0)
    assert r(made.windows, x) > 0.9
    if make_trunk is classical:
        blind = attacks.make(name).run(random_update(seen), knowledge, Budget(evaluations), 0)
        assert r(blind.windows, x) < 0.6


def test_two_windows_leak_from_several_local_epochs_led_through() -> None:
    seen, knowledge, x, _ = update(classical, 2, epochs=3)
    made = attacks.make("inverting_gradients").run(seen, knowledge, Budget(250), 0)
    assert r(made.windows, x) > 0.8


@pytest.mark.parametrize("make_trunk", [hybrid, classical])
@pytest.mark.parametrize("epochs", [1, 3])
def test_the_true_windows_explain_the_update_exactly(make_trunk, epochs: int) -> None:
    seen, knowledge, x, y = update(make_trunk, 3, epochs)
    knowledge = replace(knowledge, extra={"parts": ("client", "trunk")})
    problem = pose(seen, knowledge, Budget(9), 0)
    made = problem.moved(x, nn.functional.one_hot(y, 3).float())
    assert any(name.startswith("trunk.") for name in made)
    assert squared_error(made, problem.movement).item() < 1e-6
    assert cosine_distance(made, problem.movement).item() < 1e-5


def test_slopes_through_the_circuit_are_finite_differences() -> None:
    seen, knowledge, x, y = update(hybrid, 1)
    problem = pose(seen, knowledge, Budget(9), 0)
    problem.network.double()
    movement = {name: m.double() for name, m in problem.movement.items()}
    soft = nn.functional.one_hot(y, 3).double()
    start = (0.7 * x).double().requires_grad_()
    (slope,) = torch.autograd.grad(squared_error(problem.moved(start, soft), movement), start)
    for place in ((0, 0, 3), (0, 1, 9)):
        shift = torch.zeros_like(start)
        shift[place] = 1e-3
        ends = [squared_error(problem.moved(start + s * shift, soft), movement).item() for s in (1, -1)]
        assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(float(slope[place]), rel=0.05)


def test_labels_are_read_off_the_bias_of_the_last_layer() -> None:
    for n in (1, 6):
        seen, knowledge, _, y = update(classical, n)
        assert label_counts(pose(seen, knowledge, Budget(9), 0), knowledge).tolist() == sorted(y.tolist())


def test_a_fed_server_without_the_trunk_fits_one_and_says_so() -> None:
    seen, knowledge, _, _ = update(classical, 1)
    alone = replace(seen, threat="T4", trunk_states={})
    made = attacks.make("inverting_gradients").run(alone, knowledge, Budget(40), 0)
    assert made.facts["guessed_trunk"]
    with pytest.raises(NotApplicable, match="T4 does not see the trunk"):
        pose(alone, replace(knowledge, extra={"parts": ("client", "trunk")}), Budget(9), 0)


def test_no_update_is_told_by_name() -> None:
    _, knowledge, _, _ = update(classical, 1)
    with pytest.raises(NotApplicable, match="T4 sees no updates"):
        attacks.make("dlg").run(Observation("T4", False), knowledge, Budget(9), 0)


def test_soft_cross_entropy_of_hard_labels_is_torchs() -> None:
    logits, y, weights = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0]), torch.tensor([0.5, 1.0, 2.0])
    soft = nn.functional.one_hot(y, 3).float()
    torch.testing.assert_close(
        weighted_cross_entropy(logits, soft, weights), nn.functional.cross_entropy(logits, y, weight=weights)
    )


def test_priors_know_a_period_a_step_and_a_bend() -> None:
    t = torch.arange(64.0)
    pulse = torch.sin(2 * torch.pi * t / 8).repeat(3, 1, 1)
    assert periods(torch.cat([pulse, t.repeat(3, 1, 1)], dim=1)) == [8, 0]
    assert aperiodicity(pulse, [8]) < 1e-5 < aperiodicity(pulse, [5])
    assert aperiodicity(pulse, [0]) == 0
    assert total_variation(torch.tensor([[[0.0, 1.0, 3.0]]])) == 1.5
    assert bend(t.repeat(1, 1, 1)) < 1e-4 < bend((t**2).repeat(1, 1, 1))
    row = torch.randn(2, 5, 1)  # a row of a table has neither
    assert total_variation(row) == bend(row) == 0
