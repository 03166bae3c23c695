"""Reconstruction attacks: each finds what is there, none finds anything in noise, and knowing more never hurts."""

import pytest

from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget
from hcqsfl.privacy.metrics.reconstruction import score
from hcqsfl.privacy.observation import as_noise
from privacy.made_run import made_run, victim_of


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A training cut after the first convolution, where half of the samples of eight filters cross."""
    with pytest.MonkeyPatch.context() as patch:
        alone = ("evaluation.without_control=true", "evaluation.controls=[]")
        yield victim_of(made_run(tmp_path_factory.mktemp("run"), patch, "model.cuts=[1]", *alone))


def reconstructed(victim, name: str, threat: str, budget: int, *, noise: bool = False, trials: int = 1, **known):
    """Return metric to (score, best trivial score) of the pulse, the second channel."""
    targets, truth, _ = victim.targets(48)
    seen = victim.observe(threat, targets)
    knowledge = victim.knowledge(**known)
    spent = Budget(budget, trials)
    made = attacks.make(name).run(as_noise(seen, 0) if noise else seen, knowledge, spent, 0)
    assert spent.spent <= budget
    assert made.windows.shape == truth.x.shape
    found = score(
        made.windows.numpy()[:, 1:], truth.x.numpy()[:, 1:], truth.y.numpy(), knowledge.x.numpy()[:, 1:],
        knowledge.y.numpy(), knowledge.n_outputs, channels=("PPG",), sfreq=knowledge.sfreq,
    )  # fmt: skip
    best = {"higher": max, "lower": min}
    return {
        s.metric: (float(s.own.mean()), best[s.better](float(b.mean()) for b in s.baselines.values())) for s in found
    }


def test_a_colluding_client_lets_the_server_read_the_pulse(cut) -> None:
    found = reconstructed(cut, "decoder_inversion", "T2", 150)
    assert found["r"][0] > 0.8 > 0.2 > found["r"][1]
    assert found["nmse"][0] < 0.5 * found["nmse"][1]
    assert found["heart_rate_error"][0] < 0.5 * found["heart_rate_error"][1]
    nothing = reconstructed(cut, "decoder_inversion", "T2", 150, noise=True)
    assert abs(nothing["r"][0]) < 0.1
    assert nothing["nmse"][0] > nothing["nmse"][1]
    assert nothing["heart_rate_error"][0] > nothing["heart_rate_error"][1]
