"""Labels that stayed with the client, inferred from what the server sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.metrics.labels import leak_auc, majority, top_1
from hcqsfl.privacy.observation import NotApplicable, Observation, Target, as_noise
from hcqsfl.privacy.record import Exchange
from hcqsfl.recipes.suites.labels import draw_labelled

NAMES = ("label_norm", "label_direction", "label_clusters", "label_matching", "model_completion")
N, WIDTH, CLASSES = 240, 6, 3


def head() -> nn.Module:
    return nn.Sequential(nn.GELU(), nn.Linear(WIDTH, CLASSES))


@pytest.fixture(scope="module")
def planted():
    """A U-shaped run's messages for three classes, one of them rare, whose gradients are those of a real head."""
    torch.manual_seed(0)
    y = torch.tensor([0] * 120 + [1] * 96 + [2] * 24)[torch.randperm(N)]
    features = (torch.randn(CLASSES, WIDTH)[y] + 0.7 * torch.randn(N, WIDTH)).requires_grad_()
    trained = head()
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(features.detach()), y).backward()
        optimizer.step()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(trained(features), y, reduction="sum"), features)
    exchanges = [
        Exchange("A", 1, s + 1, f, f, g / len(g), g / len(g))
        for s, (f, g) in enumerate(zip(features.detach().split(24), gradient.split(24), strict=True))
    ]
    targets = [Target(i, row) for i in range(len(exchanges)) for row in range(24)]
    labelled = draw_labelled(y.numpy(), 5, CLASSES, 0)
    knowledge = Knowledge(
        torch.zeros(N, 1, 1), y, ["B"] * N, CLASSES, nn.Identity, nn.Identity, head, labelled=labelled
    )
    return Observation("T1", False, exchanges, targets), knowledge, y.numpy()


def scored(name: str, observation: Observation, knowledge: Knowledge, y: np.ndarray) -> tuple[float, float]:
    made = attacks.make(name).run(observation, knowledge, Budget(250), 0)
    asked = [i for i in range(len(y)) if i not in knowledge.labelled]
    scores = made.labels.numpy()[asked]
    return leak_auc(scores, y[asked]), float(top_1(scores, y[asked]).mean())


@pytest.mark.parametrize("name", NAMES)
def test_labels_leak_without_a_defence_and_not_from_noise(name: str, planted) -> None:
    observation, knowledge, y = planted
    area, top = scored(name, observation, knowledge, y)
    blind, blind_top = scored(name, as_noise(observation, 0), knowledge, y)
    assert abs(blind - 0.5) < 0.12
    if name == "label_norm":
        assert area > 0.6  # of three classes it can tell the rare one alone
    else:
        assert area > 0.9
        assert top > 0.75 > 0.6 > blind_top


def test_the_norm_tells_a_rare_class_from_a_frequent_one(planted) -> None:
    observation, knowledge, y = planted
    unlabelled = replace(knowledge, labelled={})
    norm = attacks.make("label_norm").run(observation, unlabelled, Budget(1), 0).labels[:, 2].numpy()
    assert roc_auc_score(y == 2, norm) > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_shared_labels_are_refused_as_leaked_by_design(name: str, planted) -> None:
    observation, knowledge, _ = planted
    with pytest.raises(NotApplicable, match="100 % of them leak by design"):
        attacks.make(name).run(replace(observation, label_sharing=True), knowledge, Budget(5), 0)


def test_labels_of_one_class_alone_are_refused(planted) -> None:
    observation, knowledge, _ = planted
    few = replace(knowledge, labelled={i: c for i, c in knowledge.labelled.items() if c == 1})
    with pytest.raises(ValueError, match="those given are of 1"):
        attacks.make("label_direction").run(observation, few, Budget(5), 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_nobody_knows_a_row_of_is_never_named(name: str, planted) -> None:
    observation, knowledge, _ = planted
    few = replace(knowledge, labelled={i: c for i, c in knowledge.labelled.items() if c != 1})
    made = attacks.make(name).run(observation, few, Budget(60), 0).labels
    assert made.isfinite().all()
    if name not in ("label_matching", "model_completion"):  # these may learn of it from class shares, or at random
        assert (made.argmax(dim=1) != 1).all()


def test_leak_auc_is_scikit_learns_mean_over_classes() -> None:
    rng = np.random.default_rng(0)
    y, scores = rng.integers(3, size=60), rng.random((60, 3)).round(1)  # with ties
    assert leak_auc(scores, y) == pytest.approx(np.mean([roc_auc_score(y == c, scores[:, c]) for c in range(3)]))
    assert leak_auc(scores[:, :2], y % 2) == pytest.approx(roc_auc_score(y % 2, scores[:, 1]))
    assert np.isnan(leak_auc(scores, np.zeros(60, int)))


def test_the_majority_is_right_as_often_as_its_class_is_there() -> None:
    y = np.array([0, 1, 1, 1])
    assert top_1(majority(y, 2), y).mean() == 0.75


def test_at_most_half_of_a_class_is_given_away() -> None:
    y = np.array([0] * 20 + [1] * 4)
    given = draw_labelled(y, 5, 2, 0)
    assert sorted(np.bincount(list(given.values())).tolist()) == [2, 5]
    assert all(y[i] == c for i, c in given.items())


def test_steps_without_a_target_are_left_out_and_the_rest_is_as_it_was(planted) -> None:
    observation, _, _ = planted
    few = replace(observation, targets=[Target(7, 3), Target(2, 5), Target(7, 0)])
    alone = few.targets_alone()
    assert len(alone.exchanges) == 2
    assert torch.equal(alone.stacked("gradient_features"), few.stacked("gradient_features"))
