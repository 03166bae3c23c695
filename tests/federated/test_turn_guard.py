"""The guard that compares turns by spectrum and angle: single turns whose verdict a reader can see."""

import math

import pytest
import torch

from hcqsfl.federated.turn_guard import TurnGuard, angle, low_frequencies, oddness


def turns(guard: TurnGuard, steps: list[torch.Tensor]) -> list[float]:
    start = {"w": torch.zeros(4, 6)}
    return [guard.share(f"c{i}", start, {"w": step}) for i, step in enumerate(steps)]


def alike(n: int, scale: float = 0.3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.ones(4, 6) + scale * torch.randn(4, 6, generator=generator) for _ in range(n)]


def test_a_turn_far_from_the_others_or_against_the_last_is_taken_back_and_the_others_stay() -> None:
    assert turns(TurnGuard(memory=8, warm_up=5), alike(12)) == [1.0] * 12
    far, against, spoilt = 4 * torch.ones(4, 6), -torch.ones(4, 6), torch.full((4, 6), math.nan)
    for odd in (far, against, spoilt):
        assert turns(TurnGuard(memory=8, warm_up=5), [*alike(6), odd, *alike(2)]) == [1.0] * 6 + [0.0] + [1.0] * 2
    # of the same length, so that only its direction tells
    turned = torch.cat([torch.ones(4, 3), -torch.ones(4, 3)], dim=1)
    assert turns(TurnGuard(angle=180, memory=8, warm_up=5), [*alike(6, 0.1), turned])[-1] == 0.0
    # before it knows the others it judges nobody
    assert turns(TurnGuard(memory=8, warm_up=5), [far, against, *alike(3)]) == [1.0] * 5


def test_what_the_majority_comes_to_do_stays_in_the_end() -> None:
    guard = TurnGuard(memory=8, warm_up=5)
    later = turns(guard, [*alike(8), *(5 * step for step in alike(8))])[8:]
    assert later[0] == 0.0
    assert later[-3:] == [1.0] * 3


def test_low_frequencies_keep_distances_with_a_share_of_one_and_the_mean_with_the_least() -> None:
    step = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert low_frequencies(step, 1.0).norm().item() == pytest.approx(step.norm().item())
    # of an orthonormal transform the lowest frequency is the sum over the root of the number of values
    assert low_frequencies(step, 0.1).tolist() == pytest.approx([step.sum().item() / math.sqrt(24)])
    assert len(low_frequencies(torch.zeros(2, 8, 3), 0.5)) == 1 * 12
    assert len(low_frequencies(torch.zeros(7), 0.5)) == 4


def test_oddness_is_counted_in_medians_and_the_angle_in_degrees() -> None:
    # on a line at 0, 1, 2 and 10: mean distances to the nearest three are 13/3, 11/3, 11/3 and 9
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0]], dtype=torch.float64)
    assert oddness(line) == pytest.approx(9 / 4)
    assert oddness(torch.ones(4, 1, dtype=torch.float64)) == 1.0
    east, north = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    assert (angle(east, north), angle(east, -east), angle(torch.empty(0), east)) == pytest.approx((90, 180, 0))


def test_a_guard_put_back_judges_as_the_one_it_was_taken_from() -> None:
    one, other = (TurnGuard(distance=1.5, memory=8, warm_up=5) for _ in range(2))
    turns(one, alike(7))
    other.load_tensors({name: tensor.clone() for name, tensor in one.tensors().items()})
    rest = [-torch.ones(4, 6), *alike(3), 4 * torch.ones(4, 6)]
    assert turns(one, rest) == turns(other, rest) == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_options_out_of_range_are_refused() -> None:
    for options in ({"distance": 1.0}, {"angle": 0.0}, {"share": 0.0}):
        with pytest.raises(ValueError, match="need a distance above 1, an angle in"):
            TurnGuard(**options)
    with pytest.raises(ValueError, match="need 3 <= warm-up <= memory"):
        TurnGuard(memory=5, warm_up=6)
