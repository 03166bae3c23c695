"""Defences: what they send, what they draw, and that switched off they change nothing."""

import dcor
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from hcqsfl.models.protocols import set_up
from hcqsfl.privacy import defences
from hcqsfl.privacy.defences import dfil
from hcqsfl.privacy.defences.dfil import squared_jacobian
from hcqsfl.privacy.defences.marvell import sum_kl, variances
from hcqsfl.privacy.defences.nopeek import distance_correlation
from hcqsfl.privacy.defences.two_pi import without_turns
from hcqsfl.quantum import circuits
from hcqsfl.quantum.layer import QuantumLayer
from models.examples import network, plan, states, windows

OFF = {
    "adversarial_training": {"epsilon": 0.0},
    "lipschitz": {"strength": 0.0},
    "dfil": {"bound": float("inf")},
    "gaussian": {"noise_multiplier": 0.0, "clip": float("inf")},
    "memoised_gaussian": {"noise_multiplier": 0.0, "clip": float("inf")},
    "nopeek": {"alpha": 0.0},
    "randomised_response": {"epsilon": float("inf")},
}
OFF_KEPT = {"max_norm": {"strength": 0.0}, "marvell": {"strength": 0.0}}
ON = {
    "adversarial_training": {"epsilon": 0.2, "steps": 2},
    "lipschitz": {"strength": 0.1},
    "dfil": {"bound": 1.0},
    "gaussian": {"noise_multiplier": 0.3, "clip": 1.0},
    "memoised_gaussian": {"noise_multiplier": 0.3, "clip": 1.0},
    "nopeek": {"alpha": 0.5},
    "randomised_response": {"epsilon": 0.5},
}
ON_KEPT = {"max_norm": {"strength": 1.0}, "marvell": {"strength": 1.0}}


def trained(name: str, options: dict, rounds: int = 1, sharing: bool = False):
    n_classes = 2 if name == "marvell" else 3
    data = {f"client-{i}": windows(i, 8, n_classes=n_classes) for i in range(2)}
    make = None if name == "none" else lambda client: defences.make(name, 0, client, n_classes, **options)
    joined = network("classical", n_classes=n_classes)
    return set_up("splitfed_v2", joined, data, plan(make_defence=make, label_sharing=sharing)), rounds


def after(setup, rounds: int):
    for _ in range(rounds):
        setup.federation.run_round()
    return states(setup)[0]


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("sharing", [False, True])
@pytest.mark.parametrize("name", sorted(OFF))
def test_a_defence_of_no_strength_is_no_defence_bit_for_bit(name: str, sharing: bool) -> None:
    plain = after(*trained("none", {}, sharing=sharing))
    assert same(plain, after(*trained(name, OFF[name], sharing=sharing)))
    assert not same(plain, after(*trained(name, ON[name], sharing=sharing)))


@pytest.mark.parametrize("name", ["max_norm", "marvell"])
def test_a_defence_of_gradients_of_no_strength_is_none_and_is_refused_where_labels_are_shared(name: str) -> None:
    plain = after(*trained(name, OFF_KEPT[name]))
    assert not same(plain, after(*trained(name, ON_KEPT[name])))
    if name == "max_norm":
        assert same(plain, after(*trained("none", {})))
    with pytest.raises(ValueError, match="labels themselves are sent"):
        trained(name, ON_KEPT[name], sharing=True)


@pytest.mark.parametrize("name", sorted(ON | ON_KEPT))
def test_a_resumed_training_draws_what_an_uninterrupted_one_draws(name: str) -> None:
    options = (ON | ON_KEPT)[name]
    whole, _ = trained(name, options)
    first, _ = trained(name, options)
    first.federation.run_round()
    held = first.federation.tensors()
    second, _ = trained(name, options)
    second.federation.load_tensors(held)
    second.federation.run_round()
    assert same(after(whole, 2), states(second)[0])


def test_fresh_noise_is_new_each_time_and_has_the_deviation_that_was_asked_for() -> None:
    made = defences.make("gaussian", 0, "a", noise_multiplier=0.5, clip=2.0)
    made.begin_round(1)
    smashed = torch.zeros(20_000, 4)
    first, second = made(smashed), made(smashed)
    assert not torch.equal(first, second)
    assert first.std().item() == pytest.approx(0.5 * 2 * 2.0, rel=0.02)
    made.begin_round(1)
    assert torch.equal(made(smashed), first)


def test_memoised_noise_belongs_to_the_window_whatever_the_round_the_order_or_the_batch() -> None:
    made = defences.make("memoised_gaussian", 0, "a", noise_multiplier=0.5, clip=2.0)
    x, smashed = torch.randn(5, 2, 8), torch.zeros(5, 4)
    made.begin_round(1)
    first = made(smashed, x)
    made.begin_round(7)
    order = torch.tensor([3, 0, 4])
    assert torch.equal(made(smashed[order], x[order]), first[order])
    assert len({tuple(row.tolist()) for row in first}) == 5
    other = defences.make("memoised_gaussian", 0, "b", noise_multiplier=0.5, clip=2.0)
    assert not torch.equal(other(smashed, x), first)


def test_rows_are_clipped_one_by_one() -> None:
    made = defences.make("gaussian", 0, "a", noise_multiplier=0.0, clip=5.0)
    sent = made(torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]]))
    torch.testing.assert_close(sent, torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]]))
    inside_the_front = torch.tensor([[[3.0], [4.0]], [[6.0], [8.0]]])  # (b, c, t)
    torch.testing.assert_close(made(inside_the_front), torch.tensor([[[3.0], [4.0]], [[3.0], [4.0]]]))


def test_distance_correlation_is_that_of_dcor_and_differentiable() -> None:
    x = torch.randn(20, 2, 16, dtype=torch.float64)
    z = (x.flatten(1)[:, :3] ** 2 + 0.3 * torch.randn(20, 3, dtype=torch.float64)).requires_grad_()
    found = distance_correlation(x, z)
    expected = dcor.distance_correlation(x.flatten(1).numpy(), z.detach().numpy())
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda z: distance_correlation(x[:6], z[:6]), (z,))


def test_rows_that_are_equal_leave_a_finite_gradient() -> None:
    z = torch.zeros(4, 3, requires_grad=True)
    distance_correlation(torch.randn(4, 5), z).backward()
    assert np.isfinite(z.grad.numpy()).all()


def test_options_out_of_range_are_refused_by_name() -> None:
    for name, options, message in [
        ("gaussian", {"noise_multiplier": -1.0}, "must be 0 or more"),
        ("gaussian", {"clip": float("inf")}, "without a finite clip"),
        ("nopeek", {"alpha": 1.0}, "below 1"),
        ("nopeek", {"alhpa": 0.5}, "did you mean 'alpha'"),
        ("nopek", {}, "did you mean 'nopeek'"),
    ]:
        with pytest.raises(ValueError, match=message):
            defences.make(name, 0, "a", **options)


def test_noise_is_calibrated_to_the_most_exposed_window() -> None:
    front = nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=False))  # J is the weight itself: tr(J'J) = |W|^2
    made = defences.make("dfil", 0, "a", bound=0.5)
    made.stand_behind(front)
    made.begin_round(1)
    x = torch.randn(5000, 2, 3)
    sent = made(front(x), x)
    expected = (front[1].weight.square().sum() / 6 / 0.5).sqrt().item()
    assert made.deviation == pytest.approx(expected, rel=1e-5)
    assert (sent - front(x)).std().item() == pytest.approx(expected, rel=0.05)


def test_many_releases_of_one_tensor_are_calibrated_once_and_have_noise_of_their_own(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(dfil, "squared_jacobian", lambda *given: asked.append(given) or squared_jacobian(*given))
    front = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    made = defences.make("dfil", 0, "a", bound=0.5)
    made.stand_behind(front)
    x = torch.randn(5, 2, 3)
    smashed = front(x)
    first, second = made(smashed, x), made(smashed, x)
    assert len(asked) == 1
    assert not torch.equal(first, second)
    made(front(x), x)  # the front may have moved
    made.begin_round(1)
    made(smashed, x)
    made.stand_behind(front)
    made(smashed, x)
    assert len(asked) == 4


def test_the_jacobian_is_torchs_own_and_the_front_is_left_as_it_was() -> None:
    front = nn.Sequential(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Dropout(0.5), nn.Flatten())
    front.append(nn.Linear(24, 3))
    x = torch.randn(4, 2, 8)
    found = squared_jacobian(front, x)
    assert front.training
    front.eval()
    for i in range(4):
        j = torch.func.jacrev(lambda w: front(w[None])[0])(x[i])
        assert found[i].item() == pytest.approx(j.square().sum().item(), rel=1e-4)


def test_whole_turns_change_no_circuit_and_the_remainder_takes_them_off() -> None:
    layer = QuantumLayer(circuits.make("strongly_entangling", 4, 2), backend="fused", dtype=torch.complex128)
    angles = (torch.rand(32, 4, dtype=torch.float64) - 0.5) * 6.28
    made = defences.make("two_pi", 0, "a", turns=5)
    sent = made(angles)
    assert (sent - angles).abs().max() > 6
    assert torch.corrcoef(torch.stack([sent.flatten(), angles.flatten()]))[0, 1] < 0.3
    torch.testing.assert_close(layer(sent), layer(angles), rtol=0, atol=1e-12)
    torch.testing.assert_close(without_turns(sent), angles, rtol=0, atol=1e-12)


def test_randomised_response_lies_as_often_as_epsilon_says_and_once_a_window() -> None:
    made = defences.make("randomised_response", 0, "a", 3, epsilon=1.0)
    x, y = torch.randn(4000, 1, 4), torch.randint(3, (4000,))
    told = made.labels(y, x)
    assert (told == y).float().mean().item() == pytest.approx(np.e / (np.e + 2), abs=0.02)
    assert torch.equal(made.labels(y[:9].flip(0), x[:9].flip(0)), told[:9].flip(0))


def test_max_norm_makes_rows_as_long_as_the_longest_on_average() -> None:
    made = defences.make("max_norm", 0, "a")
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 1.0]])
    sent = torch.stack([made.gradient(rows, torch.zeros(3)) for _ in range(20_000)])
    torch.testing.assert_close(sent.square().sum(dim=2).mean(dim=0), torch.tensor([25.0] * 3), rtol=0.05, atol=0)


def test_marvells_variances_are_the_best_of_a_grid() -> None:
    u, v, p, d, power = 0.3, 0.8, 0.2, 6, 2.0
    found = variances(u, v, p, d, power)
    costs = np.array([1 - p, (1 - p) * (d - 1), p, p * (d - 1)])
    assert costs @ found <= power * (1 + 1e-6)
    axis = np.linspace(0, 1, 21)
    grid = np.stack(np.meshgrid(*[axis] * 4), -1).reshape(-1, 4) * (power / costs)
    feasible = grid[(grid @ costs <= power) & (grid[:, 0] >= grid[:, 1]) & (grid[:, 2] >= grid[:, 3])]
    assert sum_kl(found, u, v, d) <= min(sum_kl(w, u, v, d) for w in feasible) + 1e-6


def test_marvell_keeps_its_power_and_hides_the_length() -> None:
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(400, generator=generator) < 0.2).long()
    rows = 0.1 * torch.randn(400, 5, generator=generator) + y[:, None] * torch.tensor([1.0, 0, 0, 0, 0])
    sent = defences.make("marvell", 0, "a", 2, strength=4.0).gradient(rows, y)
    assert (sent - rows).square().sum(dim=1).mean().item() == pytest.approx(4.0, rel=0.15)

    def auc(r):
        return roc_auc_score(y, r.norm(dim=1))

    assert auc(rows) > 0.95
    assert auc(sent) < 0.75
