"""DP-SGD through the cut: per-sample gradients are those of a loop, and its noise is what was asked for."""

import math

import pytest
import torch
from torch import nn

from hcqsfl.models.protocols import set_up
from hcqsfl.privacy.dp_sgd import Privatise, keep_samples
from hcqsfl.split import RemoteTrunk, TrunkServer
from models.examples import network, plan, sgd, states, windows

EASY = Privatise(0.0, 1e6, 1e6, 8, 0)


def federation(privatise: Privatise | None, protocol: str = "splitfed_v2", trunk: str = "classical", n: int = 20):
    data = {f"client-{i}": windows(i, n) for i in range(2)}
    return set_up(protocol, network(trunk), data, plan(sgd, privatise=privatise))


@pytest.mark.parametrize("trunk", ["hybrid", "classical"])
def test_per_sample_gradients_of_both_halves_are_those_of_a_loop(trunk: str) -> None:
    whole = network(trunk)
    x, y = windows(0, 5)
    expected = []
    for i in range(5):
        whole.zero_grad()
        nn.functional.cross_entropy(whole(x[i : i + 1]), y[i : i + 1], whole.class_weights, reduction="sum").backward()
        expected.append({name: p.grad.clone() for name, p in whole.named_parameters()})
    whole.zero_grad()
    client = nn.ModuleDict({"front": whole.front, "head": whole.head})
    keep_samples(client)
    keep_samples(whole.trunk)
    server = TrunkServer(whole.trunk, None)
    features = RemoteTrunk(server, "a")(client["front"](x.requires_grad_()))
    nn.functional.cross_entropy(client["head"](features), y, whole.class_weights, reduction="sum").backward()
    for name, parameter in whole.named_parameters():
        for i in range(5):
            torch.testing.assert_close(parameter.grad_sample[i], expected[i][name], rtol=1e-4, atol=1e-6, msg=name)


def test_without_noise_and_clipping_it_is_plain_sgd_on_the_same_windows() -> None:
    private, plain = federation(EASY), federation(EASY)
    for part in plain.federation.parts:
        part.optimizers.update({client: sgd(list(part.modules[client].parameters())) for client in part.modules})
    server = plain.federation.clients[0].wire.transport.transport
    server.optimizer = plain.federation.parts_of("client-0")[-1].optimizers["client-0"]
    private.federation.run_round()
    plain.federation.run_round()
    for name, tensor in states(private)[0].items():
        torch.testing.assert_close(tensor, states(plain)[0][name], rtol=1e-4, atol=1e-6, msg=name)


def test_one_window_moves_a_half_by_its_clip_at_most() -> None:
    whole = federation(Privatise(0.0, 0.01, 0.02, 8, 0))
    start = {name: t.clone() for name, t in states(whole)[0].items()}
    client = whole.federation.clients[0]
    client.x, client.y, client.batch_size = client.x[:1], client.y[:1], 1  # drawn with certainty
    for part in whole.federation.parts_of("client-0"):
        part.hand_out("client-0")
    client.train(whole.federation.parts[0].optimizers["client-0"], 0, 1)
    half, trunk = whole.federation.parts[0].modules["client-0"], whole.federation.parts[-1].modules["client-0"]
    for module, prefix, clip in ((half, "", 0.01), (trunk, "", 0.02)):
        moved = sum((t - start[prefix + name]).square().sum().item() for name, t in module.state_dict().items())
        assert 0 < math.sqrt(moved) <= 0.1 * clip / 8 * 1.001  # learning rate, expected batch size


def test_the_noise_has_the_deviation_that_was_asked_for() -> None:
    whole = federation(Privatise(2.0, 1e-9, 1.0, 8, 0))
    part = whole.federation.parts[0]
    module, optimizer = part.modules["client-0"], part.optimizers["client-0"]
    optimizer.max_grad_norm = 0.5
    for p in module.parameters():
        p.grad_sample = torch.zeros(3, *p.shape)
    optimizer.original_optimizer.param_groups[0]["lr"] = 1.0
    before = torch.cat([p.detach().flatten().clone() for p in module.parameters()])
    optimizer.step()
    moved = torch.cat([p.detach().flatten() for p in module.parameters()]) - before
    assert moved.std().item() == pytest.approx(2.0 * 0.5, rel=0.05)


def test_windows_are_drawn_by_poisson_and_an_empty_step_is_taken_all_the_same() -> None:
    client = federation(EASY, n=40).federation.clients[0]
    sizes = [len(batch) for number in range(200) for batch in client.batches(0, number)]
    assert len(sizes) == 200 * 5
    mean = sum(sizes) / len(sizes)
    assert mean == pytest.approx(8, abs=0.3)
    assert sum((s - mean) ** 2 for s in sizes) / len(sizes) == pytest.approx(40 * 0.2 * 0.8, rel=0.2)
    x, y = client._taken(torch.empty(0, dtype=torch.long))
    loss = client.learner.loss(x, y)
    assert loss.item() == 0.0
    loss.backward()
    assert all(not p.grad_sample.any() for p in client.learner.parameters())


@pytest.mark.parametrize("protocol", ["splitfed_v2", "splitfed_v1", "federated"])
def test_a_resumed_private_training_is_the_uninterrupted_one_bit_for_bit(protocol: str) -> None:
    noisy = Privatise(1.0, 1.0, 1.0, 8, 0)
    whole, first, second = (federation(noisy, protocol, n=10) for _ in range(3))
    whole.federation.run_round()
    whole.federation.run_round()
    first.federation.run_round()
    second.federation.load_tensors(first.federation.tensors())
    second.federation.run_round()
    assert all(torch.equal(t, states(second)[0][name]) for name, t in states(whole)[0].items())


def test_what_cannot_be_private_is_refused_by_name() -> None:
    data = {"a": windows(0, 8)}
    with pytest.raises(ValueError, match="not for label sharing"):
        set_up("splitfed_v2", network("classical"), data, plan(privatise=EASY, label_sharing=True))
    with pytest.raises(ValueError, match="not for a proximal term"):
        set_up("splitfed_v2", network("classical"), data, plan(privatise=EASY, proximal=0.1))
    with pytest.raises(ValueError, match="normalises over the batch"):
        EASY(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), sgd([nn.Parameter(torch.ones(1))]), "client")
    with pytest.raises(ValueError, match="clips above 0"):
        Privatise(1.0, 0.0, 1.0, 8, 0)
