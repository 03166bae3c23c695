"""Whether a window was in the training, from outputs and from smashed data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from hcqsfl.evaluation.figures import membership_roc, to_png
from hcqsfl.models.learner import Network
from hcqsfl.models.predict import predict
from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.attacks.lira import offline_score, online_score
from hcqsfl.privacy.attacks.rmia import rmia_score, with_members
from hcqsfl.privacy.metrics.membership import clopper_pearson, enough, roc, tpr_at_fpr
from hcqsfl.privacy.metrics.ranking import auc
from hcqsfl.privacy.observation import NotApplicable, Observation, Target, as_noise
from hcqsfl.privacy.record import Exchange
from hcqsfl.privacy.references import confidence, train_references

N, WIDTH, CLASSES = 80, 12, 3


def front() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 48), nn.GELU(), nn.Linear(48, 16))


def trunk() -> nn.Module:
    return nn.Sequential(nn.GELU(), nn.Linear(16, 16))


def head() -> nn.Module:
    return nn.Sequential(nn.GELU(), nn.Linear(16, CLASSES))


@pytest.fixture(scope="module")
def memorised():
    """A network that learnt noisy labels by heart, half of the windows asked about, and windows of the attacker's."""
    torch.manual_seed(0)
    x, y = torch.randn(2 * N, 1, WIDTH), torch.randint(CLASSES, (2 * N,))
    known_x, known_y = torch.randn(2 * N, 1, WIDTH), torch.randint(CLASSES, (2 * N,))
    network = Network(front(), trunk(), head())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        network.loss(x[:N], y[:N]).backward()
        optimizer.step()
    training = {"batch_size": N, "rounds": 100, "learning_rate": 0.01, "optimizer": "adam"}
    knowledge = Knowledge(known_x, known_y, ["Z"] * (2 * N), CLASSES, front, trunk, head, training)
    with torch.no_grad():
        z = network.front(x)
    states = {f"trunk.{k}": t for k, t in network.trunk.state_dict().items()}
    states |= {f"head.{k}": t for k, t in network.head.state_dict().items()}
    observation = Observation(
        "T1",
        True,
        [Exchange("c", 1, 1, z, labels=y)],
        [Target(0, i) for i in range(2 * N)],
        trunk_states={1: {"": states}},
        asked_x=x,
        asked_y=y,
        query=lambda asked: predict(network, asked),
    )
    return observation, knowledge, np.arange(2 * N) < N


@pytest.mark.parametrize("name", ["loss_threshold", "lira", "lira online", "rmia", "cut_membership"])
def test_what_was_learnt_by_heart_is_told_and_what_was_not_is_not(name: str, memorised) -> None:
    observation, knowledge, member = memorised
    name, _, online = name.partition(" ")
    if online:
        knowledge = replace(knowledge, extra={"online": True})

    def area(seen: Observation) -> float:
        made = attacks.make(name).run(seen, knowledge, Budget(2000), 0)
        return auc(made.membership, member)

    assert area(observation) > 0.8
    torch.manual_seed(1)
    untrained = Network(front(), trunk(), head())
    blind = replace(as_noise(observation, 0), query=lambda asked: predict(untrained, asked))
    if name == "cut_membership":  # labels that cross are no noise, but nothing of the windows is left
        assert abs(area(blind) - 0.5) < 0.15
    else:
        assert abs(area(blind) - 0.5) < 0.12


def test_lira_is_the_ratio_of_scipys_normal_densities() -> None:
    rng = np.random.default_rng(0)
    theirs, seen = rng.normal(size=(70, 9)), rng.normal(size=9)
    included = rng.random((70, 9)) < 0.5
    expected = [
        stats.norm.logpdf(seen[i], *_moments(theirs[included[:, i], i]))
        - stats.norm.logpdf(seen[i], *_moments(theirs[~included[:, i], i]))
        for i in range(9)
    ]
    made = online_score(torch.from_numpy(seen), torch.from_numpy(theirs), torch.from_numpy(included))
    np.testing.assert_allclose(made.numpy(), expected)
    tail = [stats.norm.logsf(seen[i], *_moments(theirs[:, i])) for i in range(9)]
    offline = offline_score(torch.from_numpy(seen), torch.from_numpy(theirs)).numpy()
    np.testing.assert_allclose(stats.norm.logsf(offline), tail)


def test_few_reference_models_share_one_deviation() -> None:
    theirs = torch.tensor([[0.0, 10.0], [2.0, 14.0]], dtype=torch.float64)
    # deviations from the windows' own means are 1 and 2: together sqrt((1 + 1 + 4 + 4) / 4)
    made = offline_score(torch.tensor([2.0, 12.0], dtype=torch.float64), theirs)
    np.testing.assert_allclose(made, [1 / np.sqrt(2.5), 0.0])


def _moments(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std())


def test_rmia_is_the_share_of_the_population_that_a_window_outdoes() -> None:
    rng = np.random.default_rng(0)
    p_x, out_x, p_z, mean_z = (rng.uniform(0.05, 0.95, n) for n in (7, 7, 40, 40))
    a, gamma = 0.4, 2.0
    expected = [
        np.mean([(p / (0.5 * ((1 + a) * o + 1 - a))) / (q / m) >= gamma for q, m in zip(p_z, mean_z, strict=True)])
        for p, o in zip(p_x, out_x, strict=True)
    ]
    tensors = [torch.from_numpy(t) for t in (p_x, out_x, p_z, mean_z)]
    made = rmia_score(tensors[0], with_members(tensors[1], a), *tensors[2:], gamma)
    np.testing.assert_allclose(made, expected, atol=1e-8)


def test_confidence_is_the_log_odds_of_the_label() -> None:
    logits = torch.randn(2, 5, 3, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1])
    p = logits.softmax(-1)[:, torch.arange(5), y]
    torch.testing.assert_close(confidence(logits, y), torch.logit(p))
    assert torch.isfinite(confidence(torch.tensor([[200.0, 0.0]]), torch.tensor([0]))).all()


def test_reference_models_are_trained_once_and_charged_each_time(memorised) -> None:
    observation, knowledge, _ = memorised
    own = replace(knowledge, extra={"n_references": 2}, training={"batch_size": 2 * N, "rounds": 2})
    first, second = Budget(50), Budget(50)
    a = train_references(observation, own, first, 0)
    b = train_references(observation, own, second, 0)
    assert a is b
    assert first.spent == second.spent == 2 * a.steps
    assert a.steps == a.recipe == 2  # two rounds of one batch
    assert (a.known_in.sum(dim=0) == 1).all()  # each window in one of the two
    assert not a.asked_in.any()
    with pytest.raises(ValueError, match="1 evaluations do not train 2 reference models"):
        train_references(observation, replace(own), Budget(1), 0)


def test_against_dp_sgd_references_are_trained_with_dp_sgd(memorised) -> None:
    observation, knowledge, _ = memorised
    dp = {"noise_multiplier": 0.0, "client_clip": 0.001, "server_clip": 0.002}
    plain = {"batch_size": N, "rounds": 1, "learning_rate": 1.0, "optimizer": "sgd"}

    def moved(training) -> tuple[float, float]:
        """Return how far one step of one reference went, in the client's half and in the trunk."""
        knows = replace(knowledge, training=training, extra={"n_references": 1})
        (after,) = train_references(observation, knows, Budget(1), 0).networks
        still = replace(knows, training=training | {"learning_rate": 0.0})
        (before,) = train_references(observation, still, Budget(1), 0).networks
        apart = {k.partition(".")[0]: 0.0 for k in after.state_dict()}
        for name, tensor in after.state_dict().items():
            apart[name.partition(".")[0]] += float((tensor - before.state_dict()[name]).square().sum())
        return (apart["front"] + apart["head"]) ** 0.5, apart["trunk"] ** 0.5

    client, server = moved(plain | {"dp_sgd": dp})  # each window moves a half by the clip over the batch at most
    assert 0 < client <= 0.001
    assert 0 < server <= 0.002
    assert min(moved(plain)) > 0.02
    noisy, _ = moved(plain | {"dp_sgd": dp | {"noise_multiplier": 100.0}})
    assert noisy > 10 * client


def test_no_window_to_ask_about_is_told(memorised) -> None:
    _, knowledge, _ = memorised
    with pytest.raises(NotApplicable, match="T10 cannot ask the final model"):
        attacks.make("lira").run(Observation("T10", False), knowledge, Budget(9), 0)


def test_the_rate_at_few_false_alarms_is_the_members_above_them() -> None:
    scores = np.array([0.9, 0.8, 0.3, *np.linspace(0, 0.85, 100)])
    member = np.arange(103) < 3
    assert tpr_at_fpr(scores, member, 0.01) == pytest.approx(1 / 3 if np.linspace(0, 0.85, 100)[-2] >= 0.8 else 2 / 3)
    assert tpr_at_fpr(scores, member, 1.0) == 1.0
    assert tpr_at_fpr(np.zeros(10), np.arange(10) < 5, 0.1) == 0.0  # a tie is no member found


def test_clopper_pearson_is_scipys() -> None:
    for hits, n in ((0, 20), (3, 50), (20, 20)):
        found = stats.binomtest(hits, n).proportion_ci(method="exact")
        assert clopper_pearson(hits, n) == pytest.approx((found.low, found.high))


def test_a_rate_rests_on_ten_false_alarms() -> None:
    assert enough(1000, 0.01)
    assert not enough(999, 0.01)
    assert not enough(1000, 0.001)


def test_the_roc_curve_is_drawn_and_ends_at_everybody() -> None:
    rng = np.random.default_rng(0)
    scores, member = rng.normal(size=400), np.arange(400) < 200
    fpr, tpr = roc(scores, member)
    assert (fpr[-1], tpr[-1]) == (1.0, 1.0)
    assert len(fpr) < 65
    assert to_png(membership_roc({"lira": (fpr, tpr)}, synthetic=True)).startswith("data:image/png")
