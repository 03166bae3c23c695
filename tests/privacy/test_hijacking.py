"""Hijacked training: what the server reads in the end, and whether clients notice."""

import numpy as np
import pytest

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
    held = hijack(victim, tmp_path_factory.mktemp("taken"), 4, hijacker=Hijacker(knowledge, None, 0))
    calm = hijack(victim, tmp_path_factory.mktemp("calm"), 2, hijacker=None)
    assert held.rate("splitguard") > calm.rate("splitguard") == 0
    assert held.first_round("splitguard") is not None
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
    assert {e.round for e in held.victim.record.exchanges} == {1, 2, 3, 4}


def test_an_honest_training_cannot_be_read_by_a_hijackers_decoder(victim) -> None:
    targets, _, _ = victim.targets(4)
    with pytest.raises(NotApplicable, match="a training that its server hijacked"):
        attacks.make("fsha").run(victim.observe("T3", targets), victim.knowledge(), Budget(1), 0)


def test_splitguard_tells_a_server_that_cares_for_labels_from_one_that_does_not() -> None:
    direction = RNG.normal(size=6)
    honest, hijacker = SplitGuard(), SplitGuard()
    raised = []
    for i in range(40):
        wrong = i % 8 == 7
        noise = 0.1 * RNG.normal(size=6)
        honest_alarm = honest.add((-3 * direction if wrong else direction) + noise, wrong)
        raised.append((honest_alarm, hijacker.add(direction + noise, wrong)))
    assert honest.score() > 0.99  # angle pi, lengths 3 to 1: sigmoid(7 pi)
    assert hijacker.score() < 0.7
    assert not any(a for a, _ in raised)
    assert any(b for _, b in raised)


def test_outliers_raise_an_alarm_when_most_of_a_window_are() -> None:
    detector = GradientOutliers(RNG.normal(size=(60, 5)))
    assert not any(detector.add(RNG.normal(size=5)) for _ in range(30))
    assert [detector.add(np.full(5, 9.0)) for _ in range(6)] == [False] * 5 + [True]
    with pytest.raises(ValueError, match="at least 3 honest gradients; there are 2"):
        GradientOutliers(np.zeros((2, 5)))
