"""Evasion of signal classifiers: as strong as the field's own code, never outside the ball, nothing from nothing."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from adversarial.evasion_examples import signals, trained
from hcqsfl.adversarial.evasion import EVASIONS, make
from hcqsfl.adversarial.evasion.ascent import checkpoints
from hcqsfl.adversarial.evasion.attack import Effort
from hcqsfl.adversarial.evasion.goal import Goal, dlr, margin
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Ball, SmoothBall
from hcqsfl.split import codecs
from hcqsfl.split.codecs.pair import Passage

SIGNAL = ("autopgd_ce", "autopgd_dlr", "fgsm", "hop_skip_jump", "noise", "pgd", "smooth", "square")
EPSILON = 0.3


@pytest.fixture(scope="module")
def victim():
    x, y = signals()
    network = trained(x, y)
    right = network(x).argmax(1) == y
    assert right.float().mean() > 0.9
    return network, x[right], y[right]


def robust(victim, name: str, epsilon: float = EPSILON, effort: Effort | None = None, seed: int = 0) -> float:
    """Return the accuracy after an attack, with all that it found inside the ball."""
    network, x, y = victim
    attack = make(name)
    found = attack.run(Oracle(network, attack.access), Ball(x, epsilon), Goal(y), effort or Effort(10, 2, 200), seed)
    inside = (found - x).flatten(1).abs().amax(1) <= epsilon + 1e-5
    if not attack.smallest:
        assert inside.all()
    with torch.no_grad():
        return float(((network(found).argmax(1) == y) | ~inside).float().mean())


def art_accuracy(victim, kind, epsilon: float = EPSILON, **options) -> float:
    from art.estimators.classification import PyTorchClassifier

    network, x, y = victim
    classifier = PyTorchClassifier(network, nn.CrossEntropyLoss(), x.shape[1:], 3, device_type="cpu")
    found = kind(classifier, norm=np.inf, eps=epsilon, **options).generate(x.numpy(), y.numpy())
    with torch.no_grad():
        return float((network(torch.from_numpy(found)).argmax(1) == y).float().mean())


@pytest.mark.parametrize("name", [name for name in SIGNAL if name != "noise"])
def test_every_attack_does_far_worse_to_an_undefended_model_than_noise_of_the_same_norm(victim, name: str) -> None:
    assert robust(victim, "noise", 0.5) > 0.9
    assert robust(victim, name, 0.5, Effort(10, 2, 400)) < 0.75


@pytest.mark.parametrize("name", SIGNAL)
def test_a_ball_without_radius_holds_the_windows_alone(victim, name: str) -> None:
    assert robust(victim, name, epsilon=0.0, effort=Effort(3, 1, 60)) == 1.0


@pytest.mark.parametrize("name", [name for name in SIGNAL if name != "autopgd_dlr"])
def test_nothing_is_found_against_a_model_that_always_says_the_same(name: str) -> None:
    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([1.0, 0.0]).expand(len(x), 2) + 0 * x.sum()

    x, _ = signals(12)
    assert robust((Constant(), x, torch.zeros(12, dtype=torch.long)), name, 5.0, Effort(3, 1, 60)) == 1.0


def test_fgsm_and_pgd_are_arts(victim) -> None:
    """The same steps from the same place: at equal budget the accuracies are within a point."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent

    assert abs(robust(victim, "fgsm") - art_accuracy(victim, FastGradientMethod)) <= 0.01
    found = []
    for epsilon in (0.2, 0.3, 0.4):
        step = epsilon * 2.5 / 10
        theirs = art_accuracy(
            victim, ProjectedGradientDescent, epsilon, eps_step=step, max_iter=10, verbose=False, batch_size=256
        )
        assert abs(robust(victim, "pgd", epsilon, Effort(10, 1)) - theirs) <= 0.01
        found.append(theirs)
    assert 1 > found[0] > found[1] > found[2] > 0  # neither too weak to tell nor all alike


def test_autopgd_is_at_least_as_strong_as_arts(victim) -> None:
    from art.attacks.evasion import AutoProjectedGradientDescent

    theirs = art_accuracy(
        victim, AutoProjectedGradientDescent, eps_step=2 * EPSILON, max_iter=20, nb_random_init=1, verbose=False
    )
    # theirs draws from a generator that no seed reaches
    assert robust(victim, "autopgd_ce", effort=Effort(20, 1)) <= theirs + 0.05


def test_more_steps_and_restarts_are_never_weaker(victim) -> None:
    by_budget = [
        robust(victim, "pgd", EPSILON, Effort(steps, restarts)) for steps, restarts in ((1, 1), (10, 1), (10, 3))
    ]
    assert by_budget == sorted(by_budget, reverse=True)
    assert by_budget[0] > by_budget[-1]
    by_queries = [robust(victim, "square", 0.5, Effort(queries=q)) for q in (5, 50, 200)]
    assert by_queries == sorted(by_queries, reverse=True)


def test_the_same_seed_finds_the_same_windows(victim) -> None:
    network, x, y = victim
    for name in SIGNAL:
        runs = [
            make(name).run(Oracle(network, make(name).access), Ball(x[:9], 0.1), Goal(y[:9]), Effort(3, 2, 60), 5)
            for _ in range(2)
        ]
        assert torch.equal(*runs), name


def test_asks_are_counted_and_access_is_kept(victim) -> None:
    _, x, _ = victim
    fixed = Goal(torch.zeros(4, dtype=torch.long), towards=2)

    class Sure(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum((1, 2)) * 0 + 1, x.sum((1, 2)) * 0, x.sum((1, 2)) * 0], 1)

    oracle = Oracle(Sure())
    make("pgd").run(oracle, Ball(x[:4], 0.1), fixed, Effort(7, 3), 0)
    assert (oracle.gradients, oracle.queries) == (4 * 7 * 3, 4 * 3)  # one look at the end of each ascent
    oracle = Oracle(Sure(), "scores")
    make("square").run(oracle, Ball(x[:4], 0.1), fixed, Effort(queries=31), 0)
    assert (oracle.gradients, oracle.queries) == (0, 4 * 31)
    with pytest.raises(ValueError, match="access to scores of the model asked for its gradients"):
        oracle.ascend(x[:4], fixed, torch.arange(4), "margin")


def test_the_losses_are_their_definitions() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.5, 0.0], [0.0, 1.0, 5.0, 4.0]])
    y = torch.tensor([0, 1])
    assert torch.allclose(margin(logits, y), torch.tensor([1.0 - 3.0, 5.0 - 1.0]))
    assert torch.allclose(dlr(logits, y), torch.tensor([-2.0 / (3.0 - 0.5), 4.0 / (5.0 - 1.0)]))
    with pytest.raises(ValueError, match="this model has 2 classes"):
        dlr(logits[:, :2], y)
    assert checkpoints(100)[:6] == [0, 22, 41, 57, 70, 80]  # Croce and Hein's, from their recurrence


def test_smoothing_is_its_own_transpose_and_takes_the_square_waves_out() -> None:
    torch.manual_seed(0)
    ball = SmoothBall(torch.zeros(1, 1, 80), 0.1)
    a, b = torch.randn(2, 1, 1, 80)
    assert torch.allclose((ball.smooth(a) * b).sum(), (a * ball.smooth(b)).sum(), atol=1e-4)
    assert ball.kernel.sum() == pytest.approx(1.0)
    kernels = []
    for taps, deviation in ((5, 1.0), (7, 3.0), (11, 5.0), (15, 7.0), (19, 10.0)):
        k = np.exp(-0.5 * ((np.arange(taps) - taps // 2) / deviation) ** 2)
        kernels.append(np.convolve(a[0, 0].numpy(), k / k.sum(), mode="same"))
    np.testing.assert_allclose(ball.smooth(a)[0, 0].numpy(), np.mean(kernels, axis=0), atol=1e-5)
    signs = torch.randn(1, 1, 80).sign() * 0.1
    assert ball.smooth(signs).diff().abs().mean() < 0.3 * signs.diff().abs().mean()


def test_an_average_over_draws_finds_its_way_through_noise() -> None:
    """A model whose gradient drowns in noise: one draw loses its way where the mean of many does not."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.Generator().manual_seed(0)
            self.slope = torch.linspace(-1, 1, 40)

        def forward(self, x):
            noise = 8 * torch.randn(x.shape, generator=self.generator)
            score = (x[:, 0] * (self.slope + noise[:, 0])).sum(1)
            return torch.stack([score, -score], 1)

    x = torch.zeros(1, 1, 40)
    goal, rows = Goal(torch.zeros(1, dtype=torch.long)), torch.arange(1)
    truth = -torch.linspace(-1, 1, 40)
    agreement = []
    for draws in (1, 300):
        _, slope, _ = Oracle(Noisy(), draws=draws).ascend(x, goal, rows, "margin")
        agreement.append(float(torch.cosine_similarity(slope[0, 0], truth, dim=0)))
    assert agreement[0] < 0.4
    assert agreement[1] > 0.6


def test_a_codec_at_the_cut_hides_no_gradient() -> None:
    """Four bits have no slope; passed straight through, PGD finds nearly what it finds without a codec."""
    x, y = signals()
    network = trained(x, y)
    coded = copy.deepcopy(network).insert(1, Passage(codecs.make("int4"), "smashed"))
    with torch.no_grad():
        kept = (coded(x).argmax(1) == network(x).argmax(1)).float().mean()
    assert kept > 0.9
    held = [robust((each, x, y), "pgd", effort=Effort(10, 1)) for each in (network, coded)]
    assert held[1] == pytest.approx(held[0], abs=0.1)
    leaf = torch.randn(3, 8, requires_grad=True)
    Passage(codecs.make("int4"), "smashed")(leaf).backward(torch.ones(3, 8))
    assert torch.equal(leaf.grad, torch.ones(3, 8))


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: make("pgdd"), "did you mean 'pgd'"),
        (lambda: Effort(steps=0), "give it at least 1"),
        (lambda: Ball(torch.zeros(1, 1, 8), -0.1), "must be 0 or more"),
        (lambda: Oracle(nn.Identity(), "everything"), "no access to the model is called"),
        (lambda: Oracle(nn.Identity(), draws=0), "at least 1 is needed"),
        (
            lambda: make("smooth").run(Oracle(nn.Identity()), Ball(torch.zeros(1, 3, 1), 0.1), None, Effort(), 0),
            "attack flows with capgd",
        ),
        (
            lambda: make("capgd").run(Oracle(nn.Identity()), Ball(torch.zeros(1, 3, 1), 0.1), None, Effort(), 0),
            "attack signals with autopgd_ce",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(make_it, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_it()


def test_every_file_is_registered_and_says_what_it_is() -> None:
    from pathlib import Path

    import hcqsfl.adversarial.evasion.attacks as folder
    from hcqsfl.adversarial.evasion.oracle import ACCESS

    assert set(EVASIONS) == {p.stem for p in Path(folder.__file__).parent.glob("*.py")} - {"__init__"}
    for name in EVASIONS:
        attack = make(name)
        assert attack.access in ACCESS
        assert attack.id in ("A13", "A14")
        assert attack.source.strip()
