"""Defences: what they send, what they draw, and that switched off they change nothing."""

import dcor
import numpy as np
import pytest
import torch

from hcqsfl.models.protocols import set_up
from hcqsfl.privacy import defences
from hcqsfl.privacy.defences.nopeek import distance_correlation
from models.examples import network, plan, states, windows

OFF = {
    "gaussian": {"noise_multiplier": 0.0, "clip": float("inf")},
    "memoised_gaussian": {"noise_multiplier": 0.0, "clip": float("inf")},
    "nopeek": {"alpha": 0.0},
}
ON = {
    "gaussian": {"noise_multiplier": 0.3, "clip": 1.0},
    "memoised_gaussian": {"noise_multiplier": 0.3, "clip": 1.0},
    "nopeek": {"alpha": 0.5},
}


def trained(name: str, options: dict, rounds: int = 2, sharing: bool = False):
    data = {f"client-{i}": windows(i, 12) for i in range(2)}
    make = None if name == "none" else lambda client: defences.make(name, 0, client, **options)
    return set_up("splitfed_v2", network("classical"), data, plan(make_defence=make, label_sharing=sharing)), rounds


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


@pytest.mark.parametrize("name", sorted(ON))
def test_a_resumed_training_draws_what_an_uninterrupted_one_draws(name: str) -> None:
    whole, _ = trained(name, ON[name])
    first, _ = trained(name, ON[name])
    first.federation.run_round()
    held = first.federation.tensors()
    second, _ = trained(name, ON[name])
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
