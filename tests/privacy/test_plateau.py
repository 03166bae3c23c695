"""Attacks stop when their loss is flat, and not before."""

import math

import pytest

from hcqsfl.privacy.plateau import GAIN, PATIENCE, SPAN, Plateau


def stopped(losses) -> int | None:
    plateau = Plateau()
    return next((step for step, loss in enumerate(losses, 1) if plateau(loss)), None)


def test_a_constant_loss_is_flat_after_the_first_span_and_as_many_as_patience_says() -> None:
    assert stopped([1.0] * 10_000) == SPAN * (1 + PATIENCE)


def test_a_loss_that_falls_by_more_than_the_gain_from_span_to_span_is_never_flat() -> None:
    assert stopped([math.exp(-1.1 * GAIN * step / SPAN) for step in range(10_000)]) is None


def test_a_loss_that_falls_by_less_is_flat() -> None:
    assert stopped([math.exp(-0.9 * GAIN * step / SPAN) for step in range(10_000)]) == SPAN * (1 + PATIENCE)


def test_a_negative_loss_that_falls_is_not_flat() -> None:
    assert stopped([-1 - 0.02 * step / SPAN for step in range(2_000)]) is None


def test_noise_around_a_falling_loss_does_not_stop_it() -> None:
    assert stopped([math.exp(-step / 1000) * (1 + 0.5 * (-1) ** step) for step in range(2_000)]) is None


@pytest.mark.parametrize("after", [0, 250])
def test_steps_left_out_do_not_count(after: int) -> None:
    plateau = Plateau(after)
    losses = [0.0] * after + [1.0] * 10_000  # a low loss while a weight grows is no best
    assert next(step for step, loss in enumerate(losses, 1) if plateau(loss)) == after + SPAN * (1 + PATIENCE)


def test_a_loss_that_is_measured_rather_than_noted_is_held_against_the_best_look_by_look() -> None:
    plateau = Plateau(span=1, patience=3)
    looks = [1.0, 0.9, 0.8999, 0.8, 0.81, 0.799, 0.7981]  # 0.8 is the last that falls by the gain
    assert [plateau(loss) for loss in looks] == [False] * 6 + [True]


def test_a_loss_that_is_not_a_number_never_falls() -> None:
    plateau = Plateau(span=1, patience=3)
    assert [plateau(math.nan) for _ in range(3)] == [False, False, True]
