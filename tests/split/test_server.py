"""Whatever a client sends, the trunk is trained by a proper step or stays as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn

from hcqsfl.split import (
    Message,
    Metered,
    RemoteError,
    RemoteLoss,
    RemoteTrunk,
    Tap,
    TrunkServer,
    decode,
    encode,
    read_tap,
)


def server(**options) -> TrunkServer:
    torch.manual_seed(0)
    trunk = nn.Linear(4, 3)
    return TrunkServer(trunk, torch.optim.SGD(trunk.parameters(), lr=0.1), **options)


def ask(to: TrunkServer, kind: str, round_: int = 1, step: int = 1, client: str = "a", **tensors: Tensor) -> Message:
    return decode(to(encode(Message(kind, client, round_, step, tensors))))


def weights(of: TrunkServer) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in of.trunk.parameters()])


GOOD = torch.ones(2, 4)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "lacks 'smashed'"),
        ({"smashed": torch.full((2, 4), float("nan"))}, "NaN or infinity"),
        ({"smashed": torch.full((2, 4), float("inf"))}, "NaN or infinity"),
        ({"smashed": torch.ones(2, 5)}, "cannot take smashed data of shape"),
        ({"smashed": torch.ones(4)}, r"of shape \(4,\)"),
        ({"smashed": torch.ones(0, 4)}, r"of shape \(0, 4\)"),
        ({"smashed": torch.ones(2, 4, dtype=torch.int64)}, "floating"),
    ],
)
def test_bad_smashed_data_are_refused(tensors, message: str) -> None:
    to = server()
    before = weights(to)
    answer = ask(to, "forward", **tensors)
    assert answer.kind == "error"
    assert torch.equal(weights(to), before)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(answer.text)


@pytest.mark.parametrize(
    ("gradient", "step", "message"),
    [
        (torch.ones(2, 3), 2, "which is not open"),
        (torch.ones(2, 4), 1, "for features of shape"),
        (torch.full((2, 3), float("nan")), 1, "NaN or infinity"),
    ],
)
def test_a_bad_gradient_leaves_the_trunk_and_the_step_as_they_were(gradient, step: int, message: str) -> None:
    to = server()
    ask(to, "forward", smashed=GOOD)
    before = weights(to)
    answer = ask(to, "backward", step=step, gradient=gradient)
    assert answer.kind == "error"
    assert message in answer.text
    assert torch.equal(weights(to), before)
    assert ask(to, "backward", gradient=torch.ones(2, 3)).kind == "gradient"


def test_a_step_sent_twice_is_taken_once() -> None:
    to = server()
    ask(to, "forward", smashed=GOOD)
    ask(to, "backward", gradient=torch.ones(2, 3))
    before = weights(to)
    assert "not open" in ask(to, "backward", gradient=torch.ones(2, 3)).text
    assert "after round 1, step 1" in ask(to, "forward", smashed=GOOD).text
    assert torch.equal(weights(to), before)


def test_a_gradient_that_overflows_the_trunk_is_refused() -> None:
    to = server()
    before = weights(to)
    ask(to, "forward", smashed=torch.full((2, 4), 3e38))
    assert "overflows" in ask(to, "backward", gradient=torch.full((2, 3), 3e38)).text
    assert torch.equal(weights(to), before)


def test_clients_do_not_disturb_one_anothers_steps() -> None:
    to, alone = server(), server()
    ask(to, "forward", smashed=GOOD)
    ask(to, "forward", client="b", smashed=torch.full((2, 5), 1.0))
    ask(to, "backward", client="b", gradient=torch.ones(2, 3))
    ask(alone, "forward", smashed=GOOD)
    assert torch.equal(
        ask(to, "backward", gradient=torch.ones(2, 3)).tensor("gradient"),
        ask(alone, "backward", gradient=torch.ones(2, 3)).tensor("gradient"),
    )
    assert torch.equal(weights(to), weights(alone))


def test_bytes_that_are_no_message_are_answered_with_an_error() -> None:
    assert decode(server()(b"garbage")).kind == "error"
    assert "does not take features" in ask(server(), "features").text


def test_labels_are_refused_where_none_were_agreed() -> None:
    assert "U-shaped" in ask(server(), "train", smashed=GOOD, labels=torch.tensor([0, 1])).text


@pytest.mark.parametrize("labels", [torch.tensor([0, 3]), torch.tensor([0, -1]), torch.tensor([0]), torch.ones(2)])
def test_labels_that_do_not_fit_are_refused(labels: Tensor) -> None:
    to = server(loss=nn.CrossEntropyLoss())
    before = weights(to)
    assert ask(to, "train", smashed=GOOD, labels=labels).kind == "error"
    assert torch.equal(weights(to), before)
    assert ask(to, "train", smashed=GOOD, labels=torch.tensor([0, 1])).kind == "gradient"


def test_a_second_derivative_is_refused_instead_of_being_zero() -> None:
    remote, x = RemoteTrunk(server(), "a"), torch.ones(2, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(remote(x).sum(), x, create_graph=True)


def test_evaluation_opens_no_step_and_equals_the_trunk() -> None:
    to = server()
    before = weights(to)
    with torch.no_grad():
        assert torch.equal(RemoteTrunk(to, "a")(GOOD), to.trunk(GOOD))
    assert torch.equal(weights(to), before)
    assert "not open" in ask(to, "backward", step=0, gradient=torch.ones(2, 3)).text


def test_the_trunk_learns_though_the_front_is_frozen() -> None:
    to = server()
    before = weights(to)
    RemoteTrunk(to, "a")(GOOD).sum().backward()
    assert not torch.equal(weights(to), before)


def test_a_refusal_reaches_the_client_in_words() -> None:
    with pytest.raises(RemoteError, match=r"the server refused a forward message of client a: .*NaN"):
        RemoteTrunk(server(), "a")(torch.full((2, 4), float("nan")))


def test_a_scaled_shared_loss_is_refused_for_the_server_has_stepped_already() -> None:
    remote = RemoteLoss(server(loss=nn.CrossEntropyLoss()), "a")
    with pytest.raises(RuntimeError, match="multiplied by 2"):
        (2 * remote(GOOD.clone().requires_grad_(), torch.tensor([0, 1]))).backward()


def test_the_tap_keeps_every_byte_that_the_meter_counts(tmp_path) -> None:
    path = tmp_path / "tap.bin"
    with path.open("wb") as file:
        metered = Metered(Tap(server(), file))
        RemoteTrunk(metered, "a")(GOOD).sum().backward()
    frames = list(read_tap(path))
    assert [decode(data).kind for _, data in frames] == ["forward", "features", "backward", "gradient"]
    assert sum(len(data) for direction, data in frames if direction == 0) == metered.bytes_up
    assert sum(len(data) for direction, data in frames if direction == 1) == metered.bytes_down
    assert torch.equal(decode(frames[0][1]).tensor("smashed"), GOOD)


def test_a_tap_cut_off_in_the_middle_gives_what_is_whole(tmp_path) -> None:
    path = tmp_path / "tap.bin"
    with path.open("wb") as file:
        RemoteTrunk(Tap(server(), file), "a")(GOOD)
    path.write_bytes(path.read_bytes()[:-5])
    frames = read_tap(path)
    assert decode(next(frames)[1]).kind == "forward"
    with pytest.raises(ValueError, match="ends inside a message"):
        next(frames)


def test_interleaved_steps_take_the_gradients_of_the_weights_they_started_from() -> None:
    """Two clients' forward passes, then their backward passes: SGD with both gradients at the first weights."""
    trunk = nn.Linear(4, 3)
    start = copy.deepcopy(trunk)
    server = TrunkServer(trunk, torch.optim.SGD(trunk.parameters(), lr=0.1))
    server.interleaved = True
    wires = {name: RemoteTrunk(server, name) for name in ("a", "b")}
    x = {name: torch.randn(5, 4) for name in wires}
    losses = [(wire(x[name]) ** 2).sum() for name, wire in wires.items()]
    for loss in losses:
        loss.backward()
    sum((start(each) ** 2).sum() for each in x.values()).backward()
    for reached, begun in zip(trunk.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(reached.detach(), (begun - 0.1 * begun.grad).detach())


def test_a_step_that_another_clients_overtook_is_refused_and_changes_nothing() -> None:
    trunk = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    server = TrunkServer(trunk, torch.optim.SGD(trunk.parameters(), lr=0.1))
    late, quick = ((RemoteTrunk(server, name)(torch.ones(2, 4)) ** 2).sum() for name in ("late", "quick"))
    quick.backward()
    before = copy.deepcopy(trunk.state_dict())
    with pytest.raises(RemoteError, match="the trunk has moved since step 1 of client late began"):
        late.backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())
