"""Memoised noise falls to who subtracts releases, as long as the front moves, and to nobody who averages them."""

from dataclasses import replace

import pytest
import torch

from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget
from hcqsfl.privacy.defences.gaussian import MemoisedGaussian
from hcqsfl.privacy.metrics.reconstruction import correlation
from hcqsfl.privacy.observation import NotApplicable, Observation, Target, as_noise
from hcqsfl.privacy.record import Exchange
from privacy.test_defences_meet_their_attackers import N, setting, wide

ROUNDS, NOISE = 4, {"noise_multiplier": 1.5, "clip": 8.0}  # deviation 24, where the signal's norm is at most 8


def released(moves: bool):
    """Return windows, what a colluding server sees of four rounds, and what it knows."""
    x, seen, knows = setting(wide, 0.0)
    torch.manual_seed(1)
    first = {k: v.clone() for k, v in seen.client_states[0][""].items()}
    other = {f"front.{k}": v for k, v in wide().state_dict().items()}
    clients = MemoisedGaussian(seed=5, client="A", **NOISE)
    states, exchanges = {}, []
    for number in range(ROUNDS + 1):
        share = number / ROUNDS if moves else 0.0
        states[number] = {"": {k: torch.lerp(v, 4 * other[k], share) for k, v in first.items()}}
    for number in range(1, ROUNDS + 1):
        front = wide()
        middle = {k.removeprefix("front."): (v + states[number][""][k]) / 2 for k, v in states[number - 1][""].items()}
        front.load_state_dict(middle)
        with torch.no_grad():
            exchanges.append(Exchange("A", number, 1, clients(front(x), x)))
    targets = [Target(ROUNDS - 1, i) for i in range(N)]
    links = {i: [Target(k, i) for k in range(ROUNDS - 1)] for i in range(N)}
    defence = MemoisedGaussian(seed=6, client="attacker", **NOISE)
    return (
        x,
        Observation("T2", False, exchanges, targets, client_states=states),
        replace(knows, releases=links, defence=defence),
    )


def found(name, x, seen, knows) -> float:
    made = attacks.make(name).run(seen, knows, Budget(400), 0).windows
    return float(correlation(x.numpy(), made.numpy()).mean())


@pytest.fixture(scope="module")
def moving():
    return released(moves=True)


def test_constant_noise_on_a_moving_front_stands_against_averaging_and_falls_to_differences(moving) -> None:
    averaging, subtracting = (found(name, *moving) for name in ("decoder_inversion", "difference_inversion"))
    assert averaging < 0.4
    assert subtracting > averaging + 0.4


def test_there_is_nothing_to_subtract_while_the_front_stands_still() -> None:
    assert found("difference_inversion", *released(moves=False)) < 0.4


def test_nothing_is_found_in_noise_and_one_round_or_no_front_is_refused(moving) -> None:
    x, seen, knows = moving
    assert found("difference_inversion", x, as_noise(seen, 0), knows) < 0.15
    run = attacks.make("difference_inversion").run
    with pytest.raises(NotApplicable, match="two rounds"):
        run(seen, replace(knows, releases={}), Budget(400), 0)
    with pytest.raises(NotApplicable, match="without the fronts"):
        run(replace(seen, threat="T1", client_states={}), knows, Budget(400), 0)
