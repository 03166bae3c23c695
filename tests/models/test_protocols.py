"""The keystone: cutting a network changes where it is computed, and nothing else."""

import copy

import pytest
import torch

from hcqsfl.models.plan import PROTOCOLS
from hcqsfl.models.predict import predict
from hcqsfl.models.protocols import set_up
from hcqsfl.models.trunks.fourier import FourierMiddle
from hcqsfl.randomness import torch_generator
from models.examples import CLASSES, adam, assert_same, network, plan, setup, sgd, states, windows


@pytest.mark.parametrize("trunk", ["hybrid", "classical", "frozen", "fourier"])
@pytest.mark.parametrize("label_sharing", [False, True], ids=["u-shaped", "label-sharing"])
def test_the_split_model_is_the_joined_model(trunk: str, label_sharing: bool) -> None:
    """Losses and weights over 20 steps, bit for bit, against the ordinary PyTorch loop written out here."""
    joined = network(trunk)
    x, y = windows(0, 160)
    optimizer = adam([p for p in joined.parameters() if p.requires_grad])
    split = set_up(
        "sequential",
        copy.deepcopy(joined),
        {"only": (x, y)},
        plan(seed=5, label_sharing=label_sharing),
    )
    (client,) = split.federation.clients
    losses = []
    for batch in client.batches(5, 1):
        optimizer.zero_grad()
        loss = joined.loss(x[batch], y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    trained = split.federation.run_round().trained["only"]
    assert trained.steps == len(losses) == 20
    assert trained.loss == sum(losses) / 20
    (state,) = states(split)
    for name, tensor in joined.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("label_sharing", [False, True], ids=["u-shaped", "label-sharing"])
def test_v1_with_one_local_step_of_sgd_is_fedavg(label_sharing: bool) -> None:
    options = {"make_optimizer": sgd, "local_steps": 1, "batch_size": 40}
    v1, federated = setup("splitfed_v1", label_sharing=label_sharing, **options), setup("federated", **options)
    for _ in range(3):
        v1.federation.run_round()
        federated.federation.run_round()
    assert_same(v1, federated, rtol=1e-6, atol=1e-7)


def test_v1_is_fedavg_for_any_number_of_local_steps() -> None:
    v1, federated = setup("splitfed_v1"), setup("federated")
    for _ in range(2):
        v1.federation.run_round()
        federated.federation.run_round()
    assert_same(v1, federated)


def test_v2_with_one_client_is_sequential_split_learning() -> None:
    v2, sequential = setup("splitfed_v2", 1), setup("sequential", 1)
    for _ in range(2):
        v2.federation.run_round()
        sequential.federation.run_round()
    assert_same(v2, sequential)


def test_v2_and_v1_differ_once_there_are_several_clients() -> None:
    v1, v2 = setup("splitfed_v1"), setup("splitfed_v2")
    v1.federation.run_round()
    v2.federation.run_round()
    with pytest.raises(AssertionError):
        assert_same(v1, v2, rtol=1e-3, atol=1e-3)


def test_local_only_clients_never_meet() -> None:
    alone, together = setup("local_only", 1), setup("local_only", 3)
    for _ in range(2):
        alone.federation.run_round()
        together.federation.run_round()
    (one,), (first, *_others) = states(alone), states(together)
    for name in one:
        torch.testing.assert_close(one[name], first[name], rtol=0, atol=0)
    assert len(together.networks()) == 3


def test_fedavg_of_the_joined_model_is_the_mean_that_numpy_takes() -> None:
    setup_ = setup("federated", local_steps=1)
    before = states(setup_)[0]
    setup_.federation.run_round()
    copies = [client.learner.state_dict() for client in setup_.federation.clients]
    for name in before:
        expected = torch.stack([state[name].double() for state in copies]).mean(0)
        torch.testing.assert_close(states(setup_)[0][name].double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
@pytest.mark.parametrize("make_optimizer", [adam, sgd])
def test_a_federation_put_back_goes_on_bit_for_bit(protocol: str, make_optimizer) -> None:
    through = setup(protocol, make_optimizer=make_optimizer)
    for _ in range(2):
        through.federation.run_round()
    held = {name: tensor.clone() for name, tensor in through.federation.tensors().items()}
    through.federation.run_round()

    resumed = setup(protocol, make_optimizer=make_optimizer)
    resumed.federation.load_tensors(held)
    assert resumed.federation.round == 2
    resumed.federation.run_round()
    assert_same(resumed, through)


def test_dropout_is_drawn_again_after_a_resume() -> None:
    net = network("classical")
    net.front.append(torch.nn.Dropout(0.5))
    data = {f"client-{i}": windows(i) for i in range(2)}
    through, resumed = (set_up("splitfed_v2", net, data, plan()) for _ in range(2))
    through.federation.run_round()
    held = {name: tensor.clone() for name, tensor in through.federation.tensors().items()}
    through.federation.run_round()
    torch.manual_seed(1)  # a new process has drawn other numbers before
    resumed.federation.load_tensors(held)
    resumed.federation.run_round()
    assert_same(resumed, through)


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_every_protocol_learns_what_can_be_learnt(protocol: str) -> None:
    """The class is the sign of the first channel's mean: a network that trains at all finds it."""
    generator = torch_generator(1, "easy")
    data = {}
    for client in ("a", "b"):
        x = torch.randn(60, 2, 32, generator=generator)
        y = torch.randint(CLASSES, (60,), generator=generator)
        x[:, 0] += (y.float() * 2 - 2)[:, None]
        data[client] = (x, y)
    learning = set_up(protocol, network("classical"), data, plan(batch_size=20, local_epochs=4))
    for _ in range(6):
        learning.federation.run_round()
    x, y = (torch.cat(both) for both in zip(*data.values(), strict=True))
    right = [(predict(net, x).argmax(1) == y).float().mean().item() for net in learning.networks()]
    assert min(right) > 0.6  # a third by chance


def test_bytes_are_what_was_serialised() -> None:
    """U-shaped, 5 steps of 8 windows: 4 floats of smashed data up, 8 of features down, and their gradients back."""
    metered = setup("splitfed_v2", 1, trunk="classical")
    metered.federation.run_round()
    counts = metered.meters["client-0"].read()
    payload_up = 5 * 8 * (4 + 8) * 4
    assert counts["messages"] == 10
    assert payload_up < counts["bytes_up"] < payload_up + 10 * 300
    assert payload_up < counts["bytes_down"] < payload_up + 10 * 300


def test_sharing_labels_where_nothing_is_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="federated cuts nothing"):
        setup("federated", label_sharing=True)


def test_an_unknown_protocol_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'splitfed_v"):
        setup("splitfed_v")


def test_the_three_trunks_share_frame_and_width_and_the_classical_one_has_as_many_parameters() -> None:
    hybrid, classical, frozen = (network(name).trunk for name in ("hybrid", "classical", "frozen"))
    count = {name: sum(p.numel() for p in t.parameters()) for name, t in (("h", hybrid), ("c", classical))}
    assert count["h"] == count["c"]
    assert not any(p.requires_grad for p in frozen.middle.parameters())
    x = torch.zeros(5, 4)
    assert hybrid(x).shape == classical(x).shape == frozen(x).shape == (5, 8)


def test_random_fourier_features_are_those_of_a_gaussian_kernel_and_nothing_in_them_is_trained() -> None:
    torch.manual_seed(0)
    middle = FourierMiddle(4, 20_000)
    x = torch.rand(6, 4) * 4 - 2
    kernel = torch.exp(-(torch.cdist(x, x) ** 2) / (2 * 4))  # a width of sqrt(4) radians
    assert torch.allclose(2 * middle(x) @ middle(x).T / 20_000, kernel, atol=0.03)
    assert not list(middle.parameters())
    assert {"frequencies", "phases"} == middle.state_dict().keys()  # they travel with the network
