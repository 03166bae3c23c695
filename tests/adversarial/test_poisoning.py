"""Malicious clients in a federation: they hurt an undefended mean, and nobody else; rules and guards withstand some."""

from functools import cache

import pytest
import torch

from adversarial.poisoned_federation import BAD, CLIENTS, draw, federation, judged, poisoned
from hcqsfl.adversarial.poisoning import make
from hcqsfl.adversarial.poisoning.attacker import Joint, PoisoningAttack
from hcqsfl.adversarial.poisoning.infiltrate import Conspiracy, infiltrate
from hcqsfl.adversarial.poisoning.infiltrate import draw as draw_malicious
from hcqsfl.adversarial.poisoning.triggers import Trigger
from hcqsfl.federated.guard import NormGuard
from hcqsfl.federated.rounds import take_turn
from hcqsfl.federated.turn_guard import TurnGuard
from hcqsfl.federated.update import Update
from hcqsfl.models.batched import BatchedTurns

HARDER = {"local_epochs": 3}
"""Federated averaging is slower than a shared trunk; with three epochs it learns the task in six rounds."""


def sgd(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


@cache
def clean(protocol: str, alone: bool = False):
    without = BAD if alone else ()
    return judged(poisoned(federation(protocol, without=without, **(HARDER if protocol == "federated" else {})), ""))


@pytest.mark.parametrize("protocol", ["federated", "splitfed_v1", "splitfed_v2", "sequential"])
def test_without_attackers_the_run_is_the_honest_one_bit_for_bit(protocol: str) -> None:
    attack = "label_flip" if protocol == "sequential" else "two_sided" if protocol != "federated" else "min_max"
    honest, nobody = federation(protocol), federation(protocol)
    infiltrate(nobody, make(attack), (), n_classes=2, seed=0)
    for setup in (honest, nobody):
        for _ in range(2):
            setup.federation.run_round()
    for a, b in zip(honest.networks(), nobody.networks(), strict=True):
        for name, tensor in a.state_dict().items():
            assert torch.equal(tensor, b.state_dict()[name]), name


UPDATES = {
    "sign_flip": {"scale": 3.0},
    "gaussian": {},
    "free_rider": {},
    "stale_replay": {},
    "update_scaling": {"factor": 0.1},
    "inner_product": {"epsilon": 100.0},
    "alie": {"z": 2.0},
    "min_max": {"direction": "unit"},
    "min_sum": {"direction": "unit"},
    "fang_krum": {},
    "fang_trimmed_mean": {},
    "agr_tailored": {},
    "model_replacement": {},
    "label_flip": {},
    "sensor_spoofing": {},
}


@pytest.mark.parametrize("name", sorted(UPDATES))
def test_every_attack_on_updates_or_data_hurts_an_undefended_mean_at_forty_percent(name: str) -> None:
    lost, _, _ = judged(poisoned(federation("federated", **HARDER), name, **UPDATES[name]))
    # beyond losing the four clients
    assert lost > 1.2 * clean("federated", alone=True)[0]


@pytest.mark.parametrize("protocol", ["splitfed_v2", "sequential"])
@pytest.mark.parametrize("name", ["smashed_poisoning", "gradient_reversal", "label_flip"])
def test_what_is_sent_at_the_cut_ruins_a_shared_trunk(protocol: str, name: str) -> None:
    lost, accuracy, _ = judged(poisoned(federation(protocol), name))
    assert lost > 2 * clean(protocol, alone=True)[0]
    assert accuracy < clean(protocol, alone=True)[1] - 0.05


def test_a_two_sided_attack_does_more_than_its_updates_alone() -> None:
    both = judged(poisoned(federation("splitfed_v2"), "two_sided"))
    updates = judged(poisoned(federation("splitfed_v2"), "min_max"))
    assert both[0] > 1.5 * updates[0]


@pytest.mark.parametrize("name", ["backdoor", "distributed_backdoor", "durable_backdoor"])
@pytest.mark.parametrize("kind", ["patch", "sinusoid"])
def test_a_backdoor_opens_to_its_trigger_and_a_clean_network_does_not(name: str, kind: str) -> None:
    trigger = Trigger(kind, cycles=6.0)
    x, y = draw(400, 99)
    other = y != 0
    options = {"target": 0, "trigger": kind, "options": {"cycles": 6.0}}
    setup = poisoned(federation("splitfed_v2"), name, **options)
    success = float((judged(setup, trigger(x))[2][other] == 0).float().mean())
    lone = poisoned(federation("splitfed_v2", without=BAD), "")
    by_chance = float((judged(lone, trigger(x))[2][other] == 0).float().mean())
    # each attacker of a distributed one marks a few values only
    assert success > (by_chance + 0.1 if name == "distributed_backdoor" else 0.7)
    assert judged(setup)[1] > 0.8


def test_a_robust_rule_withstands_what_ruins_the_mean() -> None:
    honest = clean("federated")[0]
    for name, options in (("inner_product", {"epsilon": 100.0}), ("sign_flip", {"scale": 5.0})):
        bad = BAD[:3]
        ruined = judged(poisoned(federation("federated", **HARDER), name, bad, **options))
        kept = judged(poisoned(federation("federated", "median", **HARDER), name, bad, **options))
        assert ruined[0] > 10 * honest
        assert kept[0] < 2 * honest


@pytest.mark.parametrize(("name", "options"), [("fang_krum", {}), ("inner_product", {"epsilon": 0.1})])
def test_attackers_who_know_krum_beat_it_though_it_withstands_a_clumsy_one(name: str, options) -> None:
    def against_krum(attack: str, **chosen):
        setup = federation("federated", "krum", rule_options={"n_attackers": 3}, **HARDER)
        return judged(poisoned(setup, attack, BAD[:3], **chosen))

    assert against_krum("gaussian")[1] > 0.95
    assert against_krum(name, **options)[1] < 0.65


def test_the_tailored_attacker_hurts_a_trimmed_mean_more_than_a_clumsy_one() -> None:
    def against(attack: str):
        setup = federation("federated", "trimmed_mean", rule_options={"n_attackers": 3}, **HARDER)
        return judged(poisoned(setup, attack, BAD[:3]))[0]

    assert against("agr_tailored") > 1.5 * against("gaussian")


def test_guard_and_median_together_withstand_reversed_gradients_that_ruin_the_median_alone() -> None:
    """Under SGD reversed and stretched gradients move the trunk far, which the guard measures."""

    def trained(attack: str, **plan):
        setup = federation("splitfed_v2", "median", make_optimizer=sgd, **HARDER, **plan)
        return judged(poisoned(setup, attack, BAD[:3], **({"scale": 5.0} if attack else {})))

    def guard() -> NormGuard:
        return NormGuard(clip=2.0, rollback=3.0, warm_up=3)

    assert trained("")[1] > 0.95
    assert trained("gradient_reversal")[1] < 0.7
    assert trained("gradient_reversal", make_guard=guard)[1] > 0.85


def test_a_turn_taken_back_leaves_trunk_and_moments_as_they_were_and_the_half_out() -> None:
    class Refusing(TurnGuard):
        def share(self, client, before, after):
            assert any(not torch.equal(after[name], base) for name, base in before.items())
            return 0.0 if client in BAD else 1.0

    setup = poisoned(federation("splitfed_v2", make_guard=Refusing), "", rounds=1)
    part = next(part for part in setup.federation.parts if part.guard is not None)
    client = setup.federation.clients[0]
    assert client.name in BAD
    before = {name: tensor.clone() for name, tensor in part.tensors().items()}
    assert any("exp_avg" in name for name in before)
    result, events = take_turn(client, setup.federation.parts_of(client.name), 0, 2)
    assert result is not None
    assert [event.kind for event in events] == ["rolled_back", "left_out"]
    after = part.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    setup.federation.round = 2
    handed_in = setup.federation.run_round().updates["client"]
    assert {update.client for update in handed_in} == set(CLIENTS) - set(BAD)


def turns_stopped(attack: str, guard, **options) -> tuple[float, list[str]]:
    """Return the accuracy that is left, and whose turns were taken back, of 60 under SGD."""
    setup = federation("splitfed_v2", make_guard=guard, make_optimizer=sgd, **HARDER)
    if attack:
        infiltrate(setup, make(attack, **options), BAD[:3], n_classes=2, seed=0)
    events = [event for _ in range(6) for event in setup.federation.run_round().events]
    return judged(setup)[1], [event.client for event in events if event.kind == "rolled_back"]


def test_a_turn_guard_restores_what_is_ruined_at_the_cut_and_rarely_stops_the_honest() -> None:
    accuracy, stopped = turns_stopped("", TurnGuard)
    assert accuracy > 0.95
    assert len(stopped) <= 6
    for attack, options in (("gradient_reversal", {"scale": 5.0}), ("smashed_poisoning", {})):
        assert turns_stopped(attack, None, **options)[0] < 0.7
        accuracy, stopped = turns_stopped(attack, TurnGuard, **options)
        assert accuracy > 0.85
        assert set(stopped) & set(BAD[:3])


def test_who_knows_the_guard_is_stopped_less_often_and_reverses_all_where_none_is() -> None:
    plain, careful = (
        sum(client in BAD for client in turns_stopped(attack, TurnGuard)[1])
        for attack in ("gradient_reversal", "careful_reversal")
    )
    assert careful < plain
    free = [poisoned(federation("splitfed_v2"), name, rounds=2) for name in ("careful_reversal", "gradient_reversal")]
    for one, other in zip(*(setup.networks() for setup in free), strict=True):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    for levels in ((), (0.5, 1.0), (2.0,)):
        with pytest.raises(ValueError, match="need shares in"):
            make("careful_reversal", levels=levels)


@pytest.mark.parametrize("alike", [True, False])
def test_the_rule_is_handed_what_the_attackers_chose_and_all_else_as_it_was(alike: bool) -> None:
    state = {"w": torch.full((2, 2), 0.1), "n": torch.tensor(3), "b": torch.tensor([0.5, -2.0], dtype=torch.float64)}
    chosen = torch.linspace(-1, 1, 6, dtype=torch.float64).expand(2, -1) / 3
    chosen = chosen if alike else chosen * torch.tensor([[1.0], [-2.0]])

    class Fixed(PoisoningAttack):
        def joint(self, joint: Joint) -> torch.Tensor:
            joint.aggregate(joint.own)  # what is foreseen leaves no trace
            return chosen

    def update(client: str, n: int) -> Update:
        return Update(client, {k: (t + n).to(t.dtype) for k, t in state.items()}, 0, n)

    seen: list[Update] = []

    def rule(state, updates):
        seen[:] = updates
        return state

    honest = [update("a", 1), update("d", 2)]
    Conspiracy(rule, Fixed(), frozenset("bc"), 0)(state, [update("c", 4), *honest, update("b", 3)])
    got = {each.client: each for each in seen}
    assert sorted(got) == list("abcd")
    for each in honest:
        assert all(torch.equal(got[each.client].state[k], t) for k, t in each.state.items())
    for client, n, step in zip("bc", (3, 4), chosen, strict=True):
        assert (got[client].num_examples, got[client].state["n"].item()) == (n, 3 + n)
        assert torch.equal(got[client].state["w"], (state["w"].double() + step[:4].reshape(2, 2)).float())
        assert torch.equal(got[client].state["b"], state["b"] + step[4:])


@pytest.mark.parametrize(
    ("protocol", "name", "why"),
    [
        ("federated", "smashed_poisoning", "nothing crosses a cut"),
        ("federated", "two_sided", "nothing crosses a cut"),
        ("sequential", "alie", "not aggregated here"),
        ("sequential_own", "sign_flip", "nobody takes their updates"),
        ("splitfed_v3", "min_max", "not aggregated here"),
        ("local_only", "sign_flip", "nobody takes their updates"),
    ],
)
def test_an_attack_without_a_place_to_act_is_refused_by_name(protocol: str, name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has no place to act: .*{why}"):
        infiltrate(federation(protocol), make(name), BAD, n_classes=2, seed=0)


def test_with_label_sharing_only_smashed_data_can_be_poisoned_at_the_cut() -> None:
    with pytest.raises(ValueError, match="the server makes the gradients itself"):
        infiltrate(federation("splitfed_v2", label_sharing=True), make("gradient_reversal"), BAD, n_classes=2, seed=0)
    honest, ruined = federation("splitfed_v2", label_sharing=True), federation("splitfed_v2", label_sharing=True)
    assert judged(poisoned(ruined, "smashed_poisoning"))[0] > 2 * judged(poisoned(honest, ""))[0]


def test_attackers_are_drawn_by_the_seed_a_minority_and_more_of_them_include_the_fewer() -> None:
    few, many = draw_malicious(CLIENTS, 0.2, 3), draw_malicious(CLIENTS, 0.4, 3)
    assert (len(few), len(many)) == (2, 4)
    assert many[:2] == few == draw_malicious(CLIENTS, 0.2, 3)
    assert {draw_malicious(CLIENTS, 0.4, seed) for seed in range(5)} != {many}
    assert draw_malicious(CLIENTS, 0.0, 3) == ()
    assert len(draw_malicious(CLIENTS[:6], 0.05, 3)) == 1
    for share in (0.5, -0.1):
        with pytest.raises(ValueError, match="must be in"):
            draw_malicious(CLIENTS, share, 0)
    with pytest.raises(ValueError, match="fewer than half"):
        draw_malicious(CLIENTS[:2], 0.4, 0)
    with pytest.raises(ValueError, match="no client is called 'x'"):
        infiltrate(federation("federated"), make("label_flip"), ["x"], n_classes=2, seed=0)


@pytest.mark.parametrize(
    ("name", "options", "plan"),
    [
        ("smashed_poisoning", {"kind": "reverse"}, {}),
        ("smashed_poisoning", {"kind": "swap"}, {"label_sharing": True}),
        ("smashed_poisoning", {"kind": "noise"}, {}),
        ("gradient_reversal", {"scale": 2.0}, {}),
        ("two_sided", {}, {}),
    ],
)
def test_attackers_at_the_cut_train_in_a_batch_as_they_do_in_turn(name: str, options, plan) -> None:
    batched, turns = (
        poisoned(federation("splitfed_v1", batched=batched, **plan), name, rounds=2, **options)
        for batched in (True, False)
    )
    honest = poisoned(federation("splitfed_v1", batched=True, **plan), "", rounds=2)
    together = batched.federation.together
    assert isinstance(together, BatchedTurns)
    assert not any(together._alone(client) for client in batched.federation.clients)
    told = [dict(each.networks()[0].state_dict()) for each in (batched, turns, honest)]
    for key, tensor in told[0].items():
        torch.testing.assert_close(tensor, told[1][key], rtol=1e-3, atol=1e-4)
    assert max(float((told[0][key] - told[2][key]).abs().max()) for key in told[0]) > 0.01
