"""Hijacked training: what the server reads in the end, and whether clients notice."""

import numpy as np
import pytest
import torch

from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget
from hcqsfl.privacy.hijacking.detectors import GradientOutliers, SplitGuard
from hcqsfl.privacy.hijacking.server import Hijacker
from hcqsfl.privacy.metrics.reconstruction import lagged_correlation
from hcqsfl.privacy.observation import NotApplicable, as_noise
from hcqsfl.recipes.hijack import hijack
from privacy.made_run import made_run, victim_of

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """Cut after the first convolution."""
    alone = ("evaluation.without_control=true", "evaluation.controls=[]", "federation.rounds=1")
    with pytest.MonkeyPatch.context() as patch:
        yield victim_of(made_run(tmp_path_factory.mktemp("run"), patch, "model.cuts=[1]", *alone))


def test_a_hijacked_front_can_be_read_and_the_hijacker_is_noticed(victim, tmp_path_factory) -> None:
    knowledge = victim.knowledge()
    held = hijack(victim, tmp_path_factory.mktemp("taken"), 10, hijacker=Hijacker(knowledge, None, 0))
    calm = hijack(victim, tmp_path_factory.mktemp("calm"), 10, hijacker=None, seed=1)
    assert held.rate("splitguard, voting") > calm.rate("splitguard, voting") == 0
    assert held.first_round("splitguard, fast") < held.first_round("splitguard, voting")
    assert calm.first_round("splitguard, voting") is None
    never = calm.lowest()
    assert held.rate("splitout", never) > calm.rate("splitout", never) == 0
    assert calm.rate("splitout", never + 1e-6) > 0
    with pytest.raises(ValueError, match="only splitout takes a threshold"):
        calm.rate("splitguard, fast", 0.5)
    targets, truth, _ = held.victim.targets(48)
    seen = held.victim.observe("T3", targets)
    knows = victim.knowledge(extra={"decoder": held.decoder()})
    pulse = truth.x.numpy()[:, 1:]

    def read(observation) -> np.ndarray:
        made = attacks.make("fsha").run(observation, knows, Budget(1), 0).windows.numpy()[:, 1:]
        return lagged_correlation(pulse, made, 8).mean()

    assert read(seen) > 0.45 > 0.35 > read(as_noise(seen, 0))
    early = held.until(1)
    assert {e.round for e in early.record.exchanges} == {1}
    assert {e.round for e in held.victim.record.exchanges} == set(range(1, 11))


def test_an_honest_training_cannot_be_read_by_a_hijackers_decoder(victim) -> None:
    targets, _, _ = victim.targets(4)
    with pytest.raises(NotApplicable, match="a training that its server hijacked"):
        attacks.make("fsha").run(victim.observe("T3", targets), victim.knowledge(), Budget(1), 0)


def scored(honest: bool, seed: int, n: int = 240) -> SplitGuard:
    """Return a detector after batches of a server that answers wrong labels by three times the opposite, or alike."""
    rng, guard = np.random.default_rng(seed), SplitGuard(torch.Generator().manual_seed(seed))
    direction = rng.normal(size=6)
    for i in range(n):
        wrong = i % 10 == 9
        guard.add((-3 * direction if wrong and honest else direction) + 0.1 * rng.normal(size=6), wrong)
    return guard


def test_splitguard_tells_a_server_that_cares_for_labels_from_one_that_does_not() -> None:
    honest, hijacker = scored(True, 0), scored(False, 0)
    assert len(honest.scores) == 22  # two of the 24 wrong batches are among the 20 that are waited for
    assert (honest.fast(), honest.voting()) == (False, False)
    assert (hijacker.fast(), hijacker.voting()) == (True, True)


def test_the_splitguard_score_is_its_formula() -> None:
    guard = SplitGuard(torch.Generator().manual_seed(0), wait=0)
    guard.halves = ([np.array([1.0, 0.0])], [np.array([0.0, 2.0]), np.array([0.0, 4.0])])
    guard.wrong = [np.array([-4.0, 0.0])]
    # means (1, 0) and (0, 3), so R = (0.5, 1.5), of mean length 2; F = (-4, 0) of length 4
    theta = np.arccos(-0.5 / np.hypot(0.5, 1.5))
    raw = (theta * 2 - np.pi / 2 * 2) / (2 + 2)
    assert guard.score() == pytest.approx((1 / (1 + np.exp(-5 * raw))) ** 2)


def test_groups_of_five_scores_vote() -> None:
    guard = SplitGuard(torch.Generator())
    guard.scores = [0.1] * 4
    assert (guard.fast(), guard.voting()) == (True, False)
    guard.scores = [0.1] * 5 + [1.0] * 5
    assert (guard.fast(), guard.voting()) == (False, False)  # one group of two
    guard.scores += [0.1] * 5
    assert guard.voting()


def test_outliers_raise_an_alarm_when_most_of_a_window_are() -> None:
    detector = GradientOutliers(RNG.normal(size=(60, 5)))
    assert not any(detector.add(RNG.normal(size=5)) for _ in range(30))
    assert [detector.add(np.full(5, 9.0)) for _ in range(6)] == [False] * 5 + [True]
    with pytest.raises(ValueError, match="at least 3 honest gradients; there are 2"):
        GradientOutliers(np.zeros((2, 5)))
