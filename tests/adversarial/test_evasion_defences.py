"""Training against evasion: it crosses the cut, costs what it says, and makes attacks weaker."""

from pathlib import Path

import pytest
import torch
from torch import nn

from adversarial.evasion_examples import signals
from hcqsfl import build
from hcqsfl import config as settings
from hcqsfl.adversarial.evasion import make
from hcqsfl.adversarial.evasion.attack import Effort
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Ball
from hcqsfl.models.fronts.conv1d import Conv1dFront
from hcqsfl.models.learner import Network
from hcqsfl.models.protocols import set_up
from hcqsfl.models.trunks.classical import ClassicalMiddle
from hcqsfl.models.trunks.frame import Trunk
from hcqsfl.privacy import defences
from hcqsfl.recipes.victim import Victim
from models.examples import plan
from privacy.made_run import made_run, victim_of

EPSILON = 0.3
CONFIGS = Path(__file__).parents[2] / "configs"


def network() -> Network:
    torch.manual_seed(0)
    trunk = Trunk(4, 4, ClassicalMiddle((1, 4, 3), 4, 4), 4, 8)
    return Network(Conv1dFront(2, 64, 4, width=8, n_layers=2), trunk, nn.Linear(8, 3))


def federation(name: str, options: dict, *, sharing: bool = False):
    x, y = signals(30)
    make_it = None if name == "none" else lambda client: defences.make(name, 0, client, **options)
    return set_up("splitfed_v2", network(), {"a": (x, y)}, plan(make_defence=make_it, label_sharing=sharing))


def robust(name: str, options: dict, steps: int = 50) -> tuple[float, float]:
    """Return the accuracies before and after PGD of a network that was trained with a defence."""
    model, (x, y) = network(), signals(90)
    if name != "none":
        model.defend(defences.make(name, 0, "a", **options))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optimizer.step()
    x, y = signals(90, seed=1)
    found = make("pgd").run(Oracle(model), Ball(x, EPSILON), Goal(y), Effort(10, 1), 0)
    with torch.no_grad():
        return tuple(float((model(each).argmax(1) == y).float().mean()) for each in (x, found))


def test_both_defences_make_pgd_weaker() -> None:
    clean, undefended = robust("none", {})
    assert clean > 0.8
    assert undefended < 0.5
    for name, options in (("adversarial_training", {"epsilon": EPSILON}), ("lipschitz", {"strength": 0.03})):
        kept, defended = robust(name, options)
        assert kept > 0.7, name
        assert defended > undefended + 0.1, name


@pytest.mark.parametrize("sharing", [False, True])
def test_each_step_of_the_search_is_one_more_round_trip(sharing: bool) -> None:
    messages = []
    for name, options in (("none", {}), ("adversarial_training", {"steps": 2})):
        setup = federation(name, options, sharing=sharing)
        setup.federation.run_round()
        messages.append(sum(meter.messages for meter in setup.meters.values()))
    assert messages[1] == 3 * messages[0]
    assert defences.make("adversarial_training", 0, "a", steps=2).passes == 3


def test_the_search_stays_in_its_ball_its_columns_and_its_classes() -> None:
    defence = defences.make("adversarial_training", 0, "a", epsilon=0.5, columns=[1], upward=True, spare=0)
    x, y = signals(30)
    moved = defence.windows(x, y, lambda u: (u * torch.linspace(-1, 1, 64)).sum())
    assert torch.equal(moved[:, 0], x[:, 0])
    assert torch.equal(moved[y == 0], x[y == 0])
    change = (moved - x)[y != 0][:, 1]
    assert change.min() >= -1e-6
    assert change.max() == pytest.approx(0.5, abs=1e-5)
    assert (change[:, 40:] > 0.49).all()  # where the loss rises
    assert (change[:, :20] < 0.01).all()


def test_the_jacobian_is_estimated_without_bias() -> None:
    """Of a linear front the squared norm of the Jacobian is that of its matrix."""
    front = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    defence = defences.make("lipschitz", 0, "a", strength=1.0)
    defence.stand_behind(front)
    x = torch.randn(4000, 3, 4)
    estimate = defence.penalty(x, front(x)).item()
    assert estimate == pytest.approx(front[1].weight.square().sum().item(), rel=0.05)


def test_the_windows_that_crossed_are_still_found_where_a_step_has_several_passes(tmp_path, monkeypatch) -> None:
    options = ("defence.name=adversarial_training", "defence.options={epsilon = 0.01, steps = 1}")
    victim: Victim = victim_of(made_run(tmp_path, monkeypatch, *options, "federation.rounds=1"))
    targets, truth, _ = victim.targets(20)
    seen = victim.observe("T2", targets)
    # the last pass of a batch, a hair from the window: its smashed data are near the window's own
    front = victim.knowledge().make_front()
    front.load_state_dict({k.removeprefix("front."): v for k, v in seen.client_states[0][""].items() if "front" in k})
    first = next(i for i, e in enumerate(seen.exchanges) if (e.round, e.step) == (1, 1))
    for place in (first, first + 1):
        index = victim._released[place]
        with torch.no_grad():
            made = front(victim.truth(index).x)
        assert torch.allclose(made, seen.exchanges[place].smashed, atol=0.1)
    assert len(truth.y) == 20


def test_clients_train_on_flows_in_their_own_units(tmp_path, monkeypatch) -> None:
    """On TON_IoT's format: what is trained on differs in what a sender can raise, and crosses once a step more."""
    monkeypatch.setenv("HCQSFL_DATA", str(tmp_path))
    asked = ("data.synthetic=tiny", "trunk.n_qubits=2", "model.n_smashed=2", "federation.local_steps=2",
             "federation.n_clients=2", "defence.name=flow_training", "defence.options={epsilon = 1.0, steps = 1}",
             "split.allow_leaks=[]")  # fmt: skip
    config = settings.load(CONFIGS / "ton_iot_network.toml", asked)
    windows = build.windows(config, tmp_path / "cache")
    prepared = build.prepare(config, windows, build.make_folds(config, windows)[0])
    arm = next(arm for arm in build.arms(config) if arm.name == "classical")
    setup = build.setup(config, arm, 0, prepared)
    setup.federation.run_round()
    assert {meter.messages for meter in setup.meters.values()} == {2 * 2 * 2}
    for client in setup.federation.clients:
        defence = client.defence
        assert defence.region.shown > 0 == defence.region.broken
        moved = defence.windows(client.x[:64], client.y[:64], lambda u: u.sum())
        changed = (moved != client.x[:64]).any(dim=2)
        assert changed[client.y[:64] != 0].any()
        assert not changed[client.y[:64] == 0].any()
    alone = defences.make("flow_training", 0, "a")
    with pytest.raises(ValueError, match="needs the flows themselves"):
        alone.windows(client.x[:4], client.y[:4], lambda u: u.sum())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adversarial_training", {"epsilon": -1.0}, "epsilon must be 0 or more"),
        ("adversarial_training", {"steps": 0}, "at least 1 step"),
        ("flow_training", {"steps": 0}, "at least 1 step"),
        ("lipschitz", {"strength": -0.1}, "must be 0 or more"),
    ],
)
def test_strengths_that_cannot_be_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        defences.make(name, 0, "a", **options)
