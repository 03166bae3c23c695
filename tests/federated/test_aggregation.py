"""What holds for every aggregation rule."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcqsfl.federated.aggregation import AGGREGATORS, make
from hcqsfl.federated.aggregation.flat import Flattened, Layout
from hcqsfl.federated.update import Aggregator, StatefulAggregator, Update

N = 7
OPTIONS: dict[str, Mapping[str, Any]] = {
    "bucketing": {"rule": "median", "size": 2},
    "bulyan": {"n_attackers": 1},
    "centred_clipping": {},
    "dnc": {"n_attackers": 1, "n_coordinates": 4, "iterations": 2},
    "fedadam": {},
    "fedavg": {},
    "fedavgm": {},
    "fltrust": {
        "root_update": lambda state, version: {k: t + 1 if t.is_floating_point() else t for k, t in state.items()}
    },
    "geometric_median": {},
    "krum": {"n_attackers": 1},
    "median": {},
    "multi_krum": {"n_attackers": 1},
    "norm_clipping": {},
    "trimmed_mean": {"n_attackers": 1},
    "trust_weighted": {"trust": {f"client-{i}": 1.0 + i for i in range(N)}},
}
EVERY = pytest.mark.parametrize("name", sorted(AGGREGATORS))


def rule(name: str) -> Aggregator:
    return make(name, **OPTIONS[name])


def start(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {
        "weight": torch.arange(6, dtype=dtype).reshape(2, 3) / 8,
        "bias": torch.ones(2, dtype=dtype),
        "steps": torch.tensor(5),
        "mask": torch.tensor([True, False]),
    }


def sent(state: Mapping[str, torch.Tensor], steps: torch.Tensor, number: int) -> list[Update]:
    """Updates whose floating values are ``steps (n, 8)`` away from ``state``."""
    layout = Layout.of(state)
    updates = []
    for i, step in enumerate(steps):
        moved = {k: (state[k] + v).to(state[k].dtype) for k, v in layout.unflatten(step.to(torch.float64)).items()}
        moved |= {"steps": state["steps"] + number, "mask": state["mask"].clone()}
        updates.append(Update(f"client-{i}", {k: moved[k] for k in state}, number, 10 + i))
    return updates


def drawn(seed: int, n: int = N) -> torch.Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)) + 0.5


def same_bits(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k].reshape(-1).view(torch.uint8), b[k].reshape(-1).view(torch.uint8))
        for k in a
    )


def test_every_rule_is_tried() -> None:
    assert OPTIONS.keys() == AGGREGATORS.keys()


@EVERY
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(order=st.permutations(range(N)), seed=st.integers(0, 2**20), ties=st.booleans())
def test_the_order_of_submission_changes_no_bit(name: str, order: list[int], seed: int, ties: bool) -> None:
    steps = drawn(seed)
    if ties:
        steps = steps[torch.tensor([0, 0, 1, 1, 2, 2, 0])]
    updates = sent(start(), steps, 3)
    assert same_bits(rule(name)(start(), updates), rule(name)(start(), [updates[i] for i in order]))


@EVERY
def test_updates_flattened_before_change_no_bit(name: str) -> None:
    updates = sent(start(), drawn(5), 3)
    before = [Flattened.of("a test", start(), update) for update in updates]
    assert same_bits(rule(name)(start(), before), rule(name)(start(), updates))
    unfit = Update("client-0", {**updates[0].state, "bias": torch.tensor([float("nan"), 0.0])}, 3, 10)
    with pytest.raises(ValueError, match="client-0: 'bias' holds NaN"):
        Flattened.of("a test", start(), unfit)


@EVERY
def test_a_client_that_comes_twice_changes_no_order(name: str) -> None:
    updates = sent(start(), drawn(1), 3)
    twin = Update("client-0", updates[1].state, 3, updates[0].num_examples)
    updates = [*updates, twin]
    assert same_bits(rule(name)(start(), updates), rule(name)(start(), updates[::-1]))


# these two take the direction of the updates, not their length
@pytest.mark.parametrize("name", sorted(AGGREGATORS.keys() - {"fedadam", "fltrust"}))
def test_identical_updates_are_their_own_aggregate(name: str) -> None:
    step = torch.tensor([0.5, -0.25, 1.0, 0.0, -2.0, 0.125, 0.75, -1.5])
    updates = sent(start(), step.expand(N, 8), 3)
    for key, tensor in rule(name)(start(), updates).items():
        torch.testing.assert_close(tensor, updates[0].state[key], rtol=1e-6, atol=1e-6)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_and_shapes_stay(name: str, dtype: torch.dtype) -> None:
    state = start(dtype)
    after = rule(name)(state, sent(state, drawn(2), 3))
    assert {k: (t.dtype, t.shape) for k, t in after.items()} == {k: (t.dtype, t.shape) for k, t in state.items()}


@EVERY
def test_inputs_are_left_alone(name: str) -> None:
    state, updates = start(), sent(start(), drawn(3), 3)
    rule(name)(state, updates)
    assert same_bits(state, start())
    assert all(same_bits(a.state, b.state) for a, b in zip(updates, sent(start(), drawn(3), 3), strict=True))


@EVERY
def test_without_updates_the_state_stays(name: str) -> None:
    assert same_bits(rule(name)(start(), []), start())


@EVERY
def test_counters_and_masks_take_the_lower_median(name: str) -> None:
    updates = sent(start(), drawn(4), 3)
    lone = {**updates[6].state, "steps": torch.tensor(10**12), "mask": torch.tensor([False, True])}
    after = rule(name)(start(), [*updates[:6], Update("client-6", lone, 3, 10)])
    assert after["steps"] == 8
    assert after["mask"].tolist() == [True, False]


@EVERY
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_is_refused_by_name(name: str, bad: float) -> None:
    updates = sent(start(), drawn(5), 3)
    updates[2].state["bias"][1] = bad
    with pytest.raises(ValueError, match="client client-2: 'bias' holds NaN or infinity"):
        rule(name)(start(), updates)


@EVERY
def test_a_wrong_shape_type_or_name_is_refused_by_name(name: str) -> None:
    whole = sent(start(), drawn(6), 3)
    for changed, says in (
        ({"bias": torch.ones(3)}, r"client client-1: 'bias' is torch.float32 \(3,\) there and torch.float32 \(2,\)"),
        ({"bias": torch.ones(2, dtype=torch.float64)}, "client client-1: 'bias' is torch.float64"),
        ({"more": torch.ones(2)}, "client client-1: it has another tensor, 'more'"),
    ):
        updates = list(whole)
        updates[1] = Update("client-1", {**whole[1].state, **changed}, 3, 10)
        with pytest.raises(ValueError, match=says):
            rule(name)(start(), updates)
    lacking = {k: t for k, t in whole[1].state.items() if k != "bias"}
    with pytest.raises(ValueError, match="client client-1: it lacks 'bias'"):
        rule(name)(start(), [whole[0], Update("client-1", lacking, 3, 10)])
    with pytest.raises(ValueError, match="client client-1: it counts -1 examples"):
        rule(name)(start(), [whole[0], Update("client-1", whole[1].state, 3, -1)])


@EVERY
def test_a_rule_resumed_from_its_tensors_goes_on_bit_for_bit(name: str) -> None:
    straight, first, state = rule(name), rule(name), start()
    for number in range(3):
        state = dict(straight(state, sent(state, drawn(number), number)))
    halfway = start()
    for number in range(2):
        halfway = dict(first(halfway, sent(halfway, drawn(number), number)))
    resumed = rule(name)
    assert isinstance(resumed, StatefulAggregator) == isinstance(first, StatefulAggregator)
    if isinstance(first, StatefulAggregator) and isinstance(resumed, StatefulAggregator):
        resumed.load_tensors(first.tensors())
    assert same_bits(dict(resumed(halfway, sent(halfway, drawn(2), 2))), state)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "centred_clipping"])
def test_what_a_rule_keeps_belongs_to_one_part_and_one_rule(name: str) -> None:
    one = rule(name)
    assert isinstance(one, StatefulAggregator)
    assert one.tensors() == {}
    one(start(), sent(start(), drawn(7), 3))
    held = one.tensors()
    assert held
    assert all(key.split("/")[1] in ("weight", "bias") for key in held)
    other = {"trunk": torch.zeros(3)}
    with pytest.raises(ValueError, match=f"{name} keeps its .* for other tensors"):
        one(other, [Update("a", {"trunk": torch.ones(3)}, 0, 1)])
    with pytest.raises(ValueError, match=f"of another rule than {name}"):
        one.load_tensors({"elsewhere/bias": torch.ones(2)})
    assert same_bits(one.tensors(), held)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "centred_clipping"])
def test_a_refused_round_leaves_what_is_kept_as_it_was(name: str) -> None:
    one = rule(name)
    assert isinstance(one, StatefulAggregator)
    one(start(), sent(start(), drawn(8), 3))
    before = one.tensors()
    bad = sent(start(), drawn(9), 3)
    bad[0].state["bias"][0] = float("nan")
    with pytest.raises(ValueError, match="client-0"):
        one(start(), bad)
    assert same_bits(one.tensors(), before)


def displacement(one: Aggregator, n: int, n_attackers: int, attack: float) -> float:
    """How far the state goes when the first of n clients all send the same large update."""
    steps = drawn(10, n)
    steps[:n_attackers] = attack
    layout = Layout.of(start())
    moved = layout.flatten(one(start(), sent(start(), steps, 3))) - layout.flatten(start())
    return float(moved.abs().max())


@pytest.mark.parametrize(
    ("name", "options", "n", "withstood", "too_many"),
    [
        ("fedavg", {}, 7, 0, 1),
        ("fedavgm", {}, 7, 0, 1),
        ("median", {}, 7, 3, 4),
        ("geometric_median", {}, 7, 3, 4),
        ("norm_clipping", {}, 7, 3, 4),
        ("centred_clipping", {}, 7, 3, 4),
        ("trimmed_mean", {"n_attackers": 1}, 7, 1, 2),
        ("trimmed_mean", {"n_attackers": 3}, 7, 3, 4),
        ("dnc", {"n_attackers": 1}, 7, 1, 2),
        ("dnc", {"n_attackers": 3}, 7, 3, 4),
        # proven for f; by the geometry of this attack Krum's rules fall at the f + 2 that are each other's neighbours
        ("krum", {"n_attackers": 1}, 5, 1, 3),
        ("multi_krum", {"n_attackers": 1}, 5, 1, 3),
        ("bulyan", {"n_attackers": 1}, 7, 1, 4),
        ("bucketing", {"rule": "median", "size": 2}, 10, 2, 9),
    ],
)
@pytest.mark.parametrize("attack", [1e6, 1e12, 1e30])
def test_a_rule_withstands_what_it_says_and_not_any_number(
    name: str, options: Mapping[str, Any], n: int, withstood: int, too_many: int, attack: float
) -> None:
    assert displacement(make(name, **options), n, withstood, attack) < 10
    assert displacement(make(name, **options), n, too_many, attack) > attack / 100


@pytest.mark.parametrize("name", ["norm_clipping", "centred_clipping"])
def test_a_radius_bounds_even_a_majority(name: str) -> None:
    options = {"radius": 2.0} if name == "norm_clipping" else {"radius": 2.0, "iterations": 1}
    assert displacement(make(name, **options), 7, 6, 1e30) <= 2.0


@pytest.mark.parametrize("name", ["fltrust", "trust_weighted"])
def test_who_is_not_trusted_moves_nothing(name: str) -> None:
    steps = drawn(10).abs()
    steps[0] = -1e12
    options = {"trust": dict.fromkeys(OPTIONS["trust_weighted"]["trust"], 1.0) | {"client-0": 0.0}}
    one = make(name, **(options if name == "trust_weighted" else OPTIONS[name]))
    without = one(start(), sent(start(), steps, 3)[1:])
    for key, tensor in one(start(), sent(start(), steps, 3)).items():
        torch.testing.assert_close(tensor, without[key])


def test_an_unknown_rule_or_option_is_refused_with_help() -> None:
    with pytest.raises(ValueError, match="no aggregation rule is called 'krumm'; did you mean 'krum'"):
        make("krumm")
    with pytest.raises(ValueError, match="krum has no option 'attackers'; did you mean 'n_attackers'"):
        make("krum", attackers=1)
    with pytest.raises(ValueError, match="bulyan needs the option n_attackers"):
        make("bulyan")
    with pytest.raises(ValueError, match="bucketing needs another rule"):
        make("bucketing")
    with pytest.raises(ValueError, match="no aggregation rule is called 'median_'; did you mean 'median'"):
        make("bucketing", rule="median_")
