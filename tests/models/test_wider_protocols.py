"""Cuts inside the front, several servers in a row, several parties, several data sets, and clients that do not wait."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hcqsfl.federated.asynchronous import AsyncFederation
from hcqsfl.federated.clock import Clock
from hcqsfl.federated.guard import NormGuard
from hcqsfl.federated.participation import Participation
from hcqsfl.federated.staleness import polynomial
from hcqsfl.models import fronts
from hcqsfl.models.learner import Network
from hcqsfl.models.parties import PartiesFront
from hcqsfl.models.plan import PROTOCOLS
from hcqsfl.models.protocols import Setup, set_up, set_up_groups
from hcqsfl.randomness import torch_seeded
from hcqsfl.split import Transport
from models.bad_clients import HARM, Harmful
from models.examples import adam, assert_same, network, plan, run, setup, sgd, states, windows


def joined_twin(joined: Network, x: Tensor, y: Tensor, batches: list[Tensor]) -> list[float]:
    optimizer = adam(list(joined.parameters()))
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = joined.loss(x[batch], y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_is_joined(split: Setup, joined: Network, x: Tensor, y: Tensor, seed: int = 0) -> None:
    (client,) = split.federation.clients
    losses = joined_twin(joined, x, y, list(client.batches(seed, 1)))
    assert split.federation.run_round().loss == sum(losses) / len(losses)
    (state,) = states(split)
    assert state.keys() == joined.state_dict().keys()
    for name, tensor in joined.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("cuts", [(1,), (3,), (4,), (5,), (1, 3), (2, 3, 4)], ids=str)
def test_a_cut_anywhere_and_any_number_of_hops_is_the_joined_model(cuts: tuple[int, ...]) -> None:
    joined, (x, y) = network("hybrid"), windows(0, 80)
    split = set_up("sequential", copy.deepcopy(joined), {"only": (x, y)}, plan(cuts=cuts))
    assert len(split.federation.parts) == 1 + len(cuts)
    assert_is_joined(split, joined, x, y)


def test_a_cut_inside_the_front_with_shared_labels_is_the_joined_model() -> None:
    joined, (x, y) = network("classical"), windows(0, 80)
    split = set_up("sequential", copy.deepcopy(joined), {"only": (x, y)}, plan(cuts=(2,), label_sharing=True))
    assert_is_joined(split, joined, x, y)


def test_where_v1_is_cut_makes_no_difference_for_several_clients() -> None:
    """Both halves are averaged, so it does not matter which of them a block belongs to."""
    assert_same(run(setup("splitfed_v1"), 2), run(setup("splitfed_v1", cuts=(2, 4)), 2))


@pytest.mark.parametrize("protocol", ["splitfed_v2", "splitfed_v3", "sequential_own"])
def test_blocks_behind_the_cut_follow_the_trunks_rule(protocol: str) -> None:
    cut = run(setup(protocol, cuts=(2, 4)), 1).federation
    assert {part.name: part.rule for part in cut.parts}["hop1"] == {part.name: part.rule for part in cut.parts}["trunk"]
    assert len({id(module) for module in cut.parts[1].modules.values()}) == (3 if protocol == "splitfed_v3" else 1)


@pytest.mark.parametrize("cuts", [(0,), (6,), (3, 2), (2, 2)], ids=str)
def test_cuts_that_do_not_rise_inside_the_front_are_refused(cuts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must rise and lie between 1 and 5"):
        setup("splitfed_v2", cuts=cuts)


def two_parties() -> Network:
    joined = network("hybrid")
    with torch_seeded(1, "parties"):
        own = {party: fronts.make("conv1d", n, 32, n_smashed=2, width=8) for party, n in (("chest", 2), ("wrist", 1))}
    joined.front = PartiesFront(own, {"chest": [0, 2], "wrist": [1]})
    return joined


def test_the_vertical_split_is_the_joined_model_of_several_branches() -> None:
    joined, (x, y) = two_parties(), windows(0, 80, n_chans=3)
    split = set_up("sequential", copy.deepcopy(joined), {"only": (x, y)}, plan())
    assert sorted(split.meters) == ["only/chest", "only/wrist"]
    assert_is_joined(split, joined, x, y)
    assert all(meter.bytes_up > 0 for meter in split.meters.values())


def test_what_a_party_sends_depends_on_its_own_channels_alone() -> None:
    front, (x, _) = two_parties().front, windows(0, 4, n_chans=3)
    other = x.clone()
    other[:, 1] += 1  # the wrist's channel
    assert torch.equal(front(x)[:, :2], front(other)[:, :2])
    assert not torch.equal(front(x)[:, 2:], front(other)[:, 2:])


def test_a_channel_of_two_parties_is_refused() -> None:
    with pytest.raises(ValueError, match="belongs to two parties"):
        PartiesFront({"a": nn.Identity(), "b": nn.Identity()}, {"a": [0, 1], "b": [1]})


def groups() -> dict:
    first, second = network("classical"), network("classical", n_chans=5, n_classes=4)
    return {
        "wesad": (first, {f"w{i}": windows(i) for i in range(2)}),
        "pamap2": (second, {f"p{i}": windows(9 + i, n_chans=5, n_classes=4) for i in range(3)}),
    }


def test_data_sets_share_a_trunk_and_nothing_else() -> None:
    both = run(set_up_groups("splitfed_v2", groups(), plan()), 2)
    (wesad,), (pamap2,) = states(both, "wesad"), states(both, "pamap2")
    for name, tensor in wesad.items():
        assert torch.equal(tensor, pamap2[name]) == name.startswith("trunk."), name
    assert [n.head[1].out_features for n in both.networks("wesad") + both.networks("pamap2")] == [3, 4]


def test_the_shared_trunk_has_learnt_from_every_data_set() -> None:
    both, alone = groups(), {"wesad": groups()["wesad"]}
    together = states(run(set_up_groups("splitfed_v1", both, plan()), 1), "wesad")[0]
    apart = states(run(set_up_groups("splitfed_v1", alone, plan()), 1), "wesad")[0]
    assert torch.equal(together["front.0.0.weight"], apart["front.0.0.weight"])
    assert not torch.equal(together["trunk.widen.weight"], apart["trunk.widen.weight"])


def test_trunks_of_different_widths_cannot_be_shared() -> None:
    both = groups()
    both["pamap2"][0].trunk.widen = nn.Linear(4, 9)
    with pytest.raises(ValueError, match="the trunk of group pamap2 has another shape"):
        set_up_groups("splitfed_v2", both, plan())


@pytest.mark.parametrize("protocol", ["splitfed_v1", "splitfed_v3", "federated"])
def test_asynchronous_rounds_without_delay_are_synchronous(protocol: str) -> None:
    assert_same(run(setup(protocol), 3), run(setup(protocol, buffer_size=3), 3))


def slow(**options) -> Setup:
    clock = Clock(step_seconds=1.0, spread=1.0, jitter=0.2)
    return setup("splitfed_v1", 5, clock=clock, **({"buffer_size": 2} | options))


def test_slow_clients_really_train_from_the_version_they_started_from() -> None:
    """The first update that is stale equals training written out here from the old state, put on top of the new one."""
    late = slow(discount=polynomial(0.5))
    federation = late.federation
    assert isinstance(federation, AsyncFederation)
    history = [{part.name: dict(part.state) for part in federation.parts}]
    for _ in range(8):
        waiting, turns = dict(federation.flights), dict(federation.turns)
        number = federation.run_round()
        history.append({part.name: dict(part.state) for part in federation.parts})
        stale = [name for name in number.trained if name in waiting and waiting[name].version < federation.round - 1]
        if stale:
            break
    else:
        pytest.fail("no update was ever stale")
    name = stale[0]
    flight = waiting[name]
    again = slow().federation
    for part in again.parts:
        part.state = history[flight.version][part.name]
        part.hand_out(name)
    (client,) = [c for c in again.clients if c.name == name]
    (own,) = [part for part in again.parts if part.name == "client"]
    client.train(own.optimizers[name], 0, turns[name])
    for key, tensor in own.modules[name].state_dict().items():
        torch.testing.assert_close(flight.updates["client"][key], tensor, rtol=0, atol=0)


def test_staleness_counts_versions_and_is_reported() -> None:
    late = slow()
    seen = [late.federation.run_round() for _ in range(10)]
    assert all(len(r.staleness) == 2 for r in seen)
    assert max(max(r.staleness) for r in seen) >= 1
    assert [r.number for r in seen] == list(range(1, 11))
    assert all(a.clock <= b.clock for a, b in pairwise(seen))


def test_an_asynchronous_federation_put_back_goes_on_bit_for_bit() -> None:
    through = run(slow(discount=polynomial(0.5)), 4)
    held = {name: tensor.clone() for name, tensor in through.federation.tensors().items()}
    run(through, 3)
    resumed = slow(discount=polynomial(0.5))
    resumed.federation.load_tensors(held)
    run(resumed, 3)
    assert_same(resumed, through)
    assert resumed.federation.time == through.federation.time


@pytest.mark.parametrize("protocol", ["splitfed_v2", "sequential"])
def test_a_shared_trunk_cannot_be_trained_asynchronously(protocol: str) -> None:
    with pytest.raises(ValueError, match="asynchronous rounds are for parts that are averaged or kept"):
        setup(protocol, buffer_size=2)


def test_clients_are_drawn_and_some_are_away() -> None:
    some = setup("splitfed_v1", 5, participation=Participation(fraction=0.6, dropout=0.4))
    rounds = [some.federation.run_round() for _ in range(8)]
    assert all(len(r.trained) + sum(e.kind == "away" for e in r.events) == 3 for r in rounds)
    assert {name for r in rounds for name in r.trained} == {f"client-{i}" for i in range(5)}
    assert any(e.kind == "away" for r in rounds for e in r.events)


def test_who_comes_after_the_deadline_comes_too_late() -> None:
    clock = Clock(step_seconds=1.0, spread=1.0, deadline=8.0)
    late = setup("splitfed_v1", 6, clock=clock)
    seen = late.federation.run_round()
    kinds = [e.kind for e in seen.events]
    assert 0 < kinds.count("late") < 6
    assert len(seen.trained) + kinds.count("late") == 6
    assert seen.seconds <= 8.0


def test_turns_overlap_unless_clients_wait_for_one_another() -> None:
    clock = Clock(step_seconds=1.0)
    assert setup("splitfed_v1", clock=clock).federation.run_round().seconds == 5.0
    assert setup("splitfed_v2", clock=clock).federation.run_round().seconds == 15.0


class Spoilt(nn.Module):
    """A front that sends NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, :4] * float("nan")


@pytest.mark.parametrize("protocol", ["splitfed_v1", "splitfed_v2", "splitfed_v3", "sequential_own", "sequential"])
def test_the_round_goes_on_without_a_client_that_sends_nan(protocol: str) -> None:
    """What comes out is what the others would have reached without it."""
    spoilt, without = setup(protocol), setup(protocol)
    spoilt.federation.clients[1].learner.front = Spoilt()
    draw = Participation.draw

    class WithoutOne(Participation):
        def draw(self, clients, seed, number):
            present, away = draw(self, clients, seed, number)
            return [c for c in present if c != "client-1"], [*away, "client-1"]

    without.federation.participation = WithoutOne()
    for _ in range(2):
        seen = spoilt.federation.run_round()
        without.federation.run_round()
        assert [(e.kind, e.client) for e in seen.events] == [("failed", "client-1")]
        assert "NaN" in seen.events[0].what
    trunk = next(part for part in spoilt.federation.parts if part.name == "trunk")
    other = next(part for part in without.federation.parts if part.name == "trunk")
    for a, b in zip(trunk.final_states().values(), other.final_states().values(), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("protocol", ["splitfed_v1", "splitfed_v2", "sequential_own"])
def test_whatever_a_client_sends_the_trunk_is_as_if_it_had_sent_nothing(protocol: str, harm: str) -> None:
    reached = []
    for instead in (HARM[harm], HARM["nothing"]):

        def wear(client: str, transport: Transport, instead=instead) -> Transport:
            return Harmful(transport, instead) if client == "client-1" else transport

        federation = setup(protocol, make_optimizer=sgd, wear=wear).federation
        told = federation.run_round()
        assert [(event.kind, event.client) for event in told.events] == [("failed", "client-1")]
        assert sorted(told.trained) == ["client-0", "client-2"]
        (trunk,) = (part for part in federation.parts if part.name == "trunk")
        reached.append(trunk.final_states()[""])
    for name, tensor in reached[1].items():
        assert torch.equal(reached[0][name], tensor), name


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "federated"])
def test_with_one_client_every_protocol_is_the_joined_model(protocol: str) -> None:
    # under the name that the client of the centralised protocol has, since the batches are drawn by it
    joined, other = (
        set_up(name, network("classical"), {"all": windows(0)}, plan()).federation for name in ("federated", protocol)
    )
    assert joined.run_round().loss == other.run_round().loss
    ((whole,), (parts,)) = (each.final_states() for each in (joined, other))
    cut = {name: tensor for state in parts.values() for name, tensor in state.items()}
    for name, tensor in whole["client"].items():
        assert torch.equal(cut[name], tensor), name


def test_an_update_with_nan_in_it_is_left_out_and_named() -> None:
    bad = setup("federated")
    train = bad.federation.clients[2].train

    def poison(*arguments):
        result = train(*arguments)
        with torch.no_grad():
            bad.federation.clients[2].learner.head[1].bias[0] = float("nan")
        return result

    bad.federation.clients[2].train = poison
    seen = bad.federation.run_round()
    assert [(e.kind, e.client) for e in seen.events] == [("unfit", "client-2")]
    assert all(tensor.isfinite().all() for tensor in states(bad)[0].values())


def test_a_round_in_which_everybody_fails_is_an_error() -> None:
    bad = setup("splitfed_v2")
    for client in bad.federation.clients:
        client.learner.front = Spoilt()
    with pytest.raises(ValueError, match=r"every client of round 1 failed; the first: .*NaN"):
        bad.federation.run_round()


def test_a_guard_shortens_and_takes_back_what_one_client_does_to_the_trunk() -> None:
    """One client's data are blown up, so that its gradients are too; the guard knows the others' lengths by then."""
    guarded = setup("splitfed_v2", 4, sgd, make_guard=lambda: NormGuard(clip=1.5, rollback=3.0, warm_up=4))
    guarded.federation.run_round()
    head = guarded.federation.clients[0].learner.head[1]
    train = guarded.federation.clients[0].train

    def attack(*arguments):
        with torch.no_grad():
            head.weight.mul_(200)
        return train(*arguments)

    guarded.federation.clients[0].train = attack
    seen = guarded.federation.run_round()
    assert ("rolled_back", "client-0") in [(e.kind, e.client) for e in seen.events]


def test_a_guard_that_lets_everything_pass_changes_nothing() -> None:
    free = run(setup("splitfed_v2"), 2)
    passed = run(setup("splitfed_v2", make_guard=lambda: NormGuard(clip=1e6, rollback=None)), 2)
    assert_same(free, passed)


def test_a_proximal_term_is_its_gradient_written_out() -> None:
    """FedProx adds mu/2 |w - w0|^2 to the loss."""
    held, (x, y) = setup("federated", 1, sgd, proximal=0.3), windows(0)
    reference = network("classical")
    anchors = [p.detach().clone() for p in reference.parameters()]
    optimizer = sgd(list(reference.parameters()))
    for batch in held.federation.clients[0].batches(0, 1):
        optimizer.zero_grad()
        pull = sum(((p - a) ** 2).sum() for p, a in zip(reference.parameters(), anchors, strict=True))
        (reference.loss(x[batch], y[batch]) + 0.15 * pull).backward()
        optimizer.step()
    held.federation.run_round()
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(states(held)[0][name], tensor, rtol=1e-5, atol=1e-6, msg=name)
