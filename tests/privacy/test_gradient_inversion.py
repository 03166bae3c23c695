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
from hcqsfl.privacy.inversion.lockstep import minimise
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.privacy.priors import aperiodicity, bend, periods, total_variation
from hcqsfl.quantum import circuits
from hcqsfl.recipes.suites.gradients import matched

RATE, CHANS, TIMES = 0.1, 2, 16


def front() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(CHANS * TIMES, 24), nn.Sigmoid(), nn.Linear(24, 4))


def hybrid() -> nn.Module:
    return trunks.make("hybrid", 4, 6, circuits.make("strongly_entangling", 4, 2), backend="fused")


def classical() -> nn.Module:
    return trunks.make("classical", 4, 6, circuits.make("strongly_entangling", 4, 2))


def head() -> nn.Module:
    return linear_head(6, 3)


def smooth(n: int) -> torch.Tensor:
    t = torch.linspace(0, 6.28, TIMES)
    return torch.sin(t * (1 + torch.rand(n, CHANS, 1)) + 6 * torch.rand(n, CHANS, 1))


def update(
    make_trunk, n: int, epochs: int = 1, n_clients: int = 1
) -> tuple[Observation, Knowledge, torch.Tensor, torch.Tensor]:
    """Plain SGD steps of clients on ``n`` known windows each, as the fed and the main server in one hand see them.

    The windows and labels that come back lead with the clients, unless there is one.
    """
    torch.manual_seed(0)
    x = torch.stack([smooth(n) for _ in range(n_clients)])
    y = (torch.arange(n_clients)[:, None] + torch.arange(n)) % 3
    network = Network(front(), make_trunk(), head())
    names = list(network.state_dict())
    trunk = [name for name in names if name.startswith("trunk.")]
    client = [name for name in names if name not in trunk]
    before = {name: t.clone() for name, t in network.state_dict().items()}
    after = {}
    for who, own_x, own_y in zip("ABCDEFGH", x, y, strict=False):
        network.load_state_dict(before)
        optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
        for _ in range(epochs):
            optimizer.zero_grad()
            network.loss(own_x, own_y).backward()
            optimizer.step()
        after[who] = {name: t.clone() for name, t in network.state_dict().items()}
    seen = Observation(
        "T5",
        False,
        client_states={0: {"": {name: before[name] for name in client}}},
        updates={1: {who: {name: state[name] for name in client} for who, state in after.items()}},
        trunk_states={
            0: {"": {name: before[name] for name in trunk}},
            1: {who: {name: state[name] for name in trunk} for who, state in after.items()},
        },
        examples=dict.fromkeys(after, n),
    )
    aux_x, aux_y = smooth(60), torch.arange(60) % 3
    training = {"optimizer": "sgd", "learning_rate": RATE, "local_epochs": epochs}
    knowledge = Knowledge(aux_x, aux_y, ["Z"] * 60, 3, front, make_trunk, head, training, extra={"parts": ("client",)})
    return (seen, knowledge, x[0], y[0]) if n_clients == 1 else (seen, knowledge, x, y)


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


def test_a_window_leaks_whose_levels_no_auxiliary_window_has() -> None:
    seen, knowledge, x, _ = update(classical, 1)
    level = torch.tensor([0.0, 3.0])[None, :, None]  # what the auxiliary people have beyond the victim
    narrow = knowledge.x * torch.tensor([1.0, 0.1])[None, :, None] + level
    made = attacks.make("inverting_gradients").run(seen, replace(knowledge, x=narrow), Budget(250), 0)
    assert r(made.windows[:, 1:], x[:, 1:]) > 0.9


def test_two_windows_leak_from_several_local_epochs_led_through() -> None:
    seen, knowledge, x, _ = update(classical, 2, epochs=3)
    made = attacks.make("inverting_gradients").run(seen, knowledge, Budget(250), 0)
    assert r(made.windows, x) > 0.8


@pytest.mark.parametrize("make_trunk", [hybrid, classical])
@pytest.mark.parametrize("epochs", [1, 3])
def test_the_true_windows_explain_the_updates_exactly(make_trunk, epochs: int) -> None:
    seen, knowledge, x, y = update(make_trunk, 3, epochs, n_clients=2)
    knowledge = replace(knowledge, extra={"parts": ("client", "trunk")})
    problem = pose(seen, knowledge, Budget(9), 0)
    made = problem.moved(x, nn.functional.one_hot(y, 3).float())
    assert any(name.startswith("trunk.") for name in made)
    assert squared_error(made, problem.movement).max() < 1e-6
    assert cosine_distance(made, problem.movement).max() < 1e-5
    swapped = problem.moved(x.flip(0), nn.functional.one_hot(y.flip(0), 3).float())
    assert cosine_distance(swapped, problem.movement).min() > 1e-3


@pytest.mark.parametrize("epochs", [1, 2])
def test_slopes_through_the_circuit_are_finite_differences(epochs: int) -> None:
    seen, knowledge, x, y = update(hybrid, 1, epochs, n_clients=2)
    problem = pose(seen, knowledge, Budget(9), 0)
    problem = replace(problem, start={name: t.double() for name, t in problem.start.items()})
    movement = {name: m.double() for name, m in problem.movement.items()}
    soft = nn.functional.one_hot(y, 3).double()
    start = (0.7 * x).double().requires_grad_()
    (slopes,) = torch.autograd.grad(squared_error(problem.moved(start, soft), movement).sum(), start)
    for place in ((0, 0, 0, 3), (1, 0, 1, 9)):
        shift = torch.zeros_like(start)
        shift[place] = 1e-5
        ends = [squared_error(problem.moved(start + s * shift, soft), movement)[place[0]].item() for s in (1, -1)]
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(slopes[place]), rel=1e-5)


def test_labels_are_read_off_the_bias_of_the_last_layer() -> None:
    for n in (1, 6):
        seen, knowledge, _, y = update(classical, n, n_clients=2)
        found = label_counts(pose(seen, knowledge, Budget(9), 0), knowledge)
        assert torch.equal(found, y.sort(dim=1).values)


@pytest.mark.parametrize("make_trunk", [hybrid, classical])
@pytest.mark.parametrize(("name", "epochs"), [("dlg", 1), ("idlg", 1), ("inverting_gradients", 1), ("idlg", 2)])
def test_an_update_is_inverted_among_others_as_alone(name: str, epochs: int, make_trunk) -> None:
    seen, knowledge, _, _ = update(make_trunk, 2, epochs, n_clients=3)
    budget = Budget(3 * 24, trials=2)
    made = attacks.make(name).run(seen, knowledge, budget, 0)
    knowledge = replace(knowledge, extra={**knowledge.extra, "clients": ["B"]})
    alone = attacks.make(name).run(seen, knowledge, Budget(24, trials=2), 0)
    assert made.windows.shape == (6, CHANS, TIMES)
    torch.testing.assert_close(made.windows[2:4], alone.windows, atol=2e-3, rtol=0)
    torch.testing.assert_close(made.labels[2:4], alone.labels, atol=2e-3, rtol=0)
    assert budget.spent <= budget.evaluations


def test_an_update_whose_loss_gains_nothing_is_left() -> None:
    seen, knowledge, _, _ = update(classical, 1, n_clients=2)
    budget = Budget(2 * 1000)
    attacks.make("inverting_gradients").run(seen, knowledge, budget, 0)
    assert budget.spent < budget.evaluations / 2


def test_each_of_several_minimisations_is_torchs_alone() -> None:
    scales = torch.tensor([1.0, 30.0, 1000.0])

    def rosenbrock(scale: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        x, y = points.unbind(-1)
        return (1 - x) ** 2 + scale * (y - x**2) ** 2

    starts = torch.tensor([[-1.2, 1.0], [0.5, -2.0], [2.0, 2.0]])
    calls: list[int] = []
    found = minimise(lambda rows, points: rosenbrock(scales[rows], points), starts, 60, calls.append)
    spent = []
    for scale, start, end in zip(scales, starts, found, strict=True):
        point, n = start.clone().requires_grad_(), [0]
        optimizer = torch.optim.LBFGS([point], max_iter=60, max_eval=60, line_search_fn="strong_wolfe")

        def closure(scale=scale, point=point, n=n, optimizer=optimizer) -> torch.Tensor:
            n[0] += 1
            optimizer.zero_grad()
            loss = rosenbrock(scale, point)
            loss.backward()
            return loss

        optimizer.step(closure)
        spent.append(n[0])
        torch.testing.assert_close(end, point.detach(), atol=1e-4, rtol=0)
    assert sum(calls) == sum(spent)
    assert len(calls) == max(spent)
    assert min(spent) < max(spent)


def test_a_failing_loss_ends_all_minimisations() -> None:
    def fails(rows: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        raise FloatingPointError("no loss")

    with pytest.raises(FloatingPointError, match="no loss"):
        minimise(fails, torch.zeros(3, 2), 5, lambda n: None)


def test_a_fed_server_without_the_trunk_fits_one_and_says_so() -> None:
    seen, knowledge, _, _ = update(classical, 1)
    alone = replace(seen, threat="T4", trunk_states={})
    made = attacks.make("inverting_gradients").run(alone, knowledge, Budget(40), 0)
    assert made.facts["guessed_trunk"]
    with pytest.raises(NotApplicable, match="T4 does not see the trunk"):
        pose(alone, replace(knowledge, extra={"parts": ("client", "trunk")}), Budget(9), 0)


@pytest.mark.parametrize("make_trunk", [hybrid, classical])
def test_a_dense_first_layer_leaks_its_window_by_a_division_whatever_the_trunk(make_trunk) -> None:
    seen, knowledge, x, _ = update(make_trunk, 1, n_clients=2)
    alone = replace(seen, threat="T4", trunk_states={})
    made = attacks.make("first_layer").run(alone, knowledge, Budget(9), 0)
    torch.testing.assert_close(made.windows, x[:, 0], atol=1e-3, rtol=0)


def test_of_several_windows_a_dense_first_layer_leaks_a_mean_and_a_convolution_leaks_none() -> None:
    seen, knowledge, x, _ = update(classical, 2)
    made = attacks.make("first_layer").run(seen, knowledge, Budget(9), 0)
    assert torch.equal(made.windows[0], made.windows[1])
    a, b = x.flatten(1)
    weights = torch.linalg.lstsq(torch.stack([a, b], 1), made.windows[0].flatten()).solution
    torch.testing.assert_close(made.windows[0].flatten(), weights @ x.flatten(1), atol=1e-3, rtol=0)
    convolution = replace(knowledge, make_front=lambda: nn.Sequential(nn.Conv1d(CHANS, 4, 3), nn.Flatten()))
    with pytest.raises(NotApplicable, match="no dense one"):
        attacks.make("first_layer").run(seen, convolution, Budget(9), 0)


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
