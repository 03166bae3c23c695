"""Clients that train as one batch reach what they reach in turns, up to the rounding of sums in another order."""

import pytest
import torch
from torch import nn

from hcqsfl.federated.participation import Participation
from hcqsfl.models import fronts, trunks
from hcqsfl.models.defence import Defence
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.models.protocols import Setup, set_up
from hcqsfl.quantum import circuits
from hcqsfl.randomness import torch_seeded
from hcqsfl.split import codecs, decode
from hcqsfl.split.codecs.pair import CutCodec
from models.bad_clients import HARM, Ear, Harmful
from models.examples import CLASSES, adam, assert_same, network, plan, run, sgd, states, windows

UNEVEN = {"a": 40, "b": 19, "c": 3, "d": 26}
CLOSE = {"rtol": 1e-3, "atol": 1e-5}


def momentum(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3)


def tabular(trunk: str, backend: str = "auto") -> Network:
    with torch_seeded(0, "test network"):
        return Network(
            fronts.make("tabular", 2, 32, n_smashed=4, width=8),
            trunks.make(trunk, 4, 8, circuits.make("strongly_entangling", 4, 2), backend=backend),
            linear_head(8, CLASSES),
            torch.linspace(0.5, 2, CLASSES),
        )


def pair(protocol: str, net: Network, make_optimizer=sgd, rounds: int = 2, **options) -> tuple[Setup, Setup]:
    data = {name: windows(i, n) for i, (name, n) in enumerate(UNEVEN.items())}
    return tuple(  # type: ignore[return-value]
        run(set_up(protocol, net, data, plan(make_optimizer, batched=batched, **options)), rounds)
        for batched in (True, False)
    )


def assert_equal_but_for_rounding(batched: Setup, turns: Setup) -> None:
    assert_same(batched, turns, **CLOSE)
    for name in UNEVEN:
        if name in batched.meters:
            one, other = batched.meters[name], turns.meters[name]
            assert (one.bytes_up, one.bytes_down, one.messages) == (other.bytes_up, other.bytes_down, other.messages)


@pytest.mark.parametrize("make_optimizer", [sgd, adam, momentum])
@pytest.mark.parametrize("protocol", ["federated", "splitfed_v3"])
def test_a_batch_of_uneven_clients_is_the_clients_in_turn(protocol: str, make_optimizer) -> None:
    assert_equal_but_for_rounding(*pair(protocol, network("classical"), make_optimizer, local_epochs=2))


def test_clients_that_keep_their_networks_go_on_with_their_own_moments() -> None:
    batched, turns = pair("local_only", tabular("classical"), adam, 3, participation=Participation(fraction=0.5))
    assert_equal_but_for_rounding(batched, turns)
    for name in UNEVEN:
        one, other = (a.federation.parts[0].optimizers[name].state_dict()["state"] for a in (batched, turns))
        assert {i: s["step"].item() for i, s in one.items()} == {i: s["step"].item() for i, s in other.items()}


@pytest.mark.parametrize("trunk", ["hybrid", "frozen", "fourier"])
@pytest.mark.parametrize("label_sharing", [False, True], ids=["u-shaped", "label-sharing"])
def test_every_trunk_is_the_same_in_a_batch(trunk: str, label_sharing: bool) -> None:
    assert_equal_but_for_rounding(*pair("splitfed_v1", tabular(trunk), label_sharing=label_sharing))


@pytest.mark.parametrize("backend", ["compiled", "fused"])
def test_every_backend_of_the_circuit_is_the_same_in_a_batch(backend: str) -> None:
    assert_equal_but_for_rounding(*pair("federated", tabular("hybrid", backend)))


def test_a_cut_inside_the_front_a_codec_and_a_proximal_term_are_the_same_in_a_batch() -> None:
    assert_equal_but_for_rounding(*pair("splitfed_v1", network("classical"), cuts=(2,), proximal=0.1))
    coded = {"make_codec": lambda client, end: CutCodec(codecs.make("bfloat16"))}
    batched, turns = pair("splitfed_v1", tabular("classical"), rounds=1, local_steps=1, **coded)
    assert_equal_but_for_rounding(batched, turns)


def test_a_module_that_no_rule_knows_is_the_same_in_a_batch() -> None:
    class Squared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x.square()

    net = tabular("classical")
    net.front.append(Squared())
    assert_equal_but_for_rounding(*pair("federated", net))


def test_a_batched_federation_put_back_goes_on_bit_for_bit() -> None:
    data = {name: windows(i, n) for i, (name, n) in enumerate(UNEVEN.items())}
    whole, first, second = (
        set_up("splitfed_v3", tabular("classical"), data, plan(adam, batched=True, seed=3)) for _ in range(3)
    )
    run(whole, 4)
    run(first, 2)
    second.federation.load_tensors({k: t.clone() for k, t in first.federation.tensors().items()})
    assert_same(whole, run(second, 2))


@pytest.mark.parametrize("label_sharing", [False, True], ids=["u-shaped", "label-sharing"])
def test_the_same_messages_cross_as_in_turns(label_sharing: bool) -> None:
    heard: dict[bool, dict[str, Ear]] = {True: {}, False: {}}
    for batched, ears in heard.items():
        wear = lambda client, transport, ears=ears: ears.setdefault(client, Ear(transport))  # noqa: E731
        data = {name: windows(i, n) for i, (name, n) in enumerate(UNEVEN.items())}
        options = {"batched": batched, "label_sharing": label_sharing, "wear": wear}
        run(set_up("splitfed_v1", tabular("classical"), data, plan(sgd, **options)), 1)
    for client in UNEVEN:
        pairs = zip(heard[True][client].heard, heard[False][client].heard, strict=True)
        for one, other in (pair for both in pairs for pair in zip(*both, strict=True)):
            a, b = decode(one), decode(other)
            assert (a.kind, a.client, a.round, a.step) == (b.kind, b.client, b.round, b.step)
            assert a.tensors.keys() == b.tensors.keys()
            for name in a.tensors:
                torch.testing.assert_close(a.tensors[name], b.tensors[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("harm", HARM)
def test_one_clients_harm_stays_with_that_client(harm: str) -> None:
    def wear(client: str, transport):
        return Harmful(transport, HARM[harm]) if client == "b" else transport

    data = {name: windows(i, n) for i, (name, n) in enumerate(UNEVEN.items())}
    found = []
    for batched in (True, False):
        harmed = set_up("splitfed_v1", tabular("hybrid"), data, plan(sgd, batched=batched, wear=wear))
        told = harmed.federation.run_round()
        assert [(event.kind, event.client) for event in told.events] == [("failed", "b")]
        assert sorted(told.trained) == ["a", "c", "d"]
        found.append((harmed, told))
    (batched, one), (turns, other) = found
    assert_same(batched, turns, **CLOSE)
    for name in one.trained:
        assert one.trained[name].loss == pytest.approx(other.trained[name].loss, rel=1e-4)
    assert one.events[0].what == other.events[0].what or harm == "another shape"


@pytest.mark.parametrize("protocol", ["federated", "splitfed_v1"])
def test_windows_with_nan_fail_their_client_alone(protocol: str) -> None:
    data = {name: windows(i, n) for i, (name, n) in enumerate(UNEVEN.items())}
    data["b"] = (data["b"][0] * float("nan"), data["b"][1])
    harmed = set_up(protocol, tabular("hybrid"), data, plan(sgd, batched=True))
    told = harmed.federation.run_round()
    assert [(event.kind, event.client) for event in told.events] == [("failed", "b")]
    assert all(t.isfinite().all() for state in states(harmed) for t in state.values())


def test_a_client_that_trains_in_a_way_of_its_own_takes_its_turn_beside_the_batch() -> None:
    data = {name: windows(i, n) for i, (name, n) in enumerate(UNEVEN.items())}
    made = []
    for batched in (True, False):
        setup = set_up("splitfed_v1", tabular("hybrid"), data, plan(sgd, batched=batched))
        odd = setup.federation.clients[1]
        odd.defence = defence = Doubled()
        odd.learner.defend(defence)
        made.append(run(setup, 2))
        assert defence.n_batches == 2 * len(list(odd.batches(0, 1)))
    assert_equal_but_for_rounding(*made)


class Doubled(Defence):
    """Sends twice what it should, and counts."""

    n_batches = 0

    def forward(self, smashed: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        self.n_batches += 1
        return 2 * smashed


@pytest.mark.parametrize(
    ("protocol", "options", "says"),
    [
        ("splitfed_v2", {}, "train independently within a round; take one of federated"),
        ("sequential", {}, "in place of sequential"),
        ("centralised", {}, "in place of centralised"),
        ("splitfed_v1", {"buffer_size": 1}, "asynchronous rounds do not"),
        ("splitfed_v1", {"cuts": (1, 2)}, "several hops"),
        ("splitfed_v1", {"privatise": lambda module, optimizer, part: optimizer}, "DP-SGD looks at each window"),
        ("splitfed_v1", {"make_defence": lambda client: Defence()}, "a defence is each client's own"),
    ],
)
def test_what_cannot_be_batched_is_refused_with_the_way_out(protocol: str, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        set_up(protocol, network("classical"), {"a": windows(0)}, plan(batched=True, **options))


def test_dropout_and_other_optimisers_are_refused() -> None:
    net = tabular("classical")
    net.front.append(nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"front\.3 drops 0\.5"):
        set_up("federated", net, {"a": windows(0)}, plan(batched=True))
    rprop = set_up("federated", tabular("classical"), {"a": windows(0)}, plan(torch.optim.Rprop, batched=True))
    with pytest.raises(ValueError, match="Rprop cannot move several clients' weights at once"):
        rprop.federation.run_round()
