from collections.abc import Sequence

import numpy as np
import pytest
import torch

from hcqsfl.adversarial.detection import make
from hcqsfl.adversarial.detection.clients import ClientMonitor, Moments, client_rates, core, features
from hcqsfl.adversarial.detection.clients import Verdict as ClientVerdict
from hcqsfl.federated.aggregation import make as aggregator
from hcqsfl.federated.update import State, Update

CLIENTS = tuple(f"c{i}" for i in range(10))
TRUE = torch.linspace(-1, 1, 12)


def local_training(
    state: State, client: int, seed: int, number: int, *, poisoned: bool = False
) -> tuple[Update, torch.Tensor]:
    """Five steps of linear regression on a client's own rows; a poisoned client's labels are turned around."""
    generator = torch.Generator().manual_seed(1000 * seed + client)
    x = torch.randn(60, 12, generator=generator) * (0.9 + 0.02 * client)
    noise = torch.Generator().manual_seed(100_000 * seed + 100 * number + client)
    x = x[torch.randperm(60, generator=noise)[:40]]
    y = (x @ TRUE) * (-3 if poisoned else 1)
    w = state["w"].clone()
    for _ in range(5):
        w = w - 0.05 * 2 * x.T @ (x @ w - y) / len(x)
    return Update(f"c{client}", {"w": w}, number, 60), x[:, :4] + (2.0 if poisoned else 0.0)


def run(
    monitor: ClientMonitor | None, seed: int, n_rounds: int, attackers: Sequence[int] = (), record: bool = False
) -> float:
    """Return the distance from the truth after some rounds of aggregation by the monitor's trust."""
    state: State = {"w": torch.zeros(12)}
    trust = (lambda s, u: dict.fromkeys(CLIENTS, 1.0)) if monitor is None else monitor.record if record else monitor
    rule = aggregator("trust_weighted", trust=trust)
    for number in range(1, n_rounds + 1):
        updates = []
        for client in range(len(CLIENTS)):
            update, smashed = local_training(state, client, seed, number, poisoned=client in attackers)
            updates.append(update)
            if monitor is not None:
                monitor.see(update.client, smashed)
        state = rule(state, updates)
    return float((state["w"] - TRUE).norm())


def calibrated(name: str = "quantum_ocsvm", **options: object) -> ClientMonitor:
    monitor = ClientMonitor(make(name), **({"false_alarms": 0.02} | options))
    for seed in (1, 2):
        run(monitor, seed, 10, record=True)
    monitor.calibrate(monitor.recorded)
    return monitor


@pytest.mark.parametrize("name", ["quantum_ocsvm", "reference_state", "mahalanobis"])
def test_poisoners_are_flagged_from_the_first_round_quarantined_and_kept_out(name: str) -> None:
    torch.set_num_threads(1)
    monitor = calibrated(name)
    error = run(monitor, 7, 8, attackers=(2, 5, 8))
    rates = client_rates(monitor.verdicts, {"c2", "c5", "c8"})
    assert rates.n_rounds == 8
    assert rates.detection.total == 24
    assert rates.false_positives.total == 56
    assert rates.detection.low > 0.8
    assert rates.false_positives.value < 0.1
    assert {"c2", "c5", "c8"} <= monitor.verdicts[0].flagged
    assert {"c2", "c5", "c8"} <= monitor.verdicts[-1].quarantined
    assert error < run(None, 7, 8, attackers=(2, 5, 8)) / 2


def test_an_honest_federation_has_few_false_positives_and_loses_nothing() -> None:
    monitor = calibrated()
    error = run(monitor, 11, 10)
    rates = client_rates(monitor.verdicts, ())
    assert rates.detection.value is None
    assert rates.false_positives.total == 100
    assert rates.false_positives.low < 0.02 + 0.05
    assert error < 1.5 * run(None, 11, 10)


def test_features_are_the_sums_on_paper() -> None:
    state = {"w": torch.zeros(2)}
    steps = [[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]
    updates = [Update(f"c{i}", {"w": torch.tensor(step)}, 0, 1) for i, step in enumerate(steps)]
    clients, rows = features(state, updates[::-1])
    assert clients == ("c0", "c1", "c2")
    # the core is c0 and c1, whose mean is (1, 0); c2 has twice their size and stands at a right angle to them
    np.testing.assert_allclose(rows[:, 0], [0, 0, np.log(2)], atol=1e-12)
    np.testing.assert_allclose(rows[:, 1], [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rows[:, 3], [1, 1, 0], atol=1e-12)
    assert rows[2, 2] > rows[0, 2]


def test_the_core_is_honest_while_the_majority_is() -> None:
    generator = torch.Generator().manual_seed(0)
    honest = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    # five that agree to the last digit are still no majority
    assert set(core(torch.cat([honest, torch.full((5, 4), 9.0).double()])).tolist()) <= set(range(6))


def test_moments_are_numpys_whatever_the_batches() -> None:
    x = torch.randn(30, 3)
    moments = Moments(3)
    for part in x.split(7):
        moments.add(part)
    np.testing.assert_allclose(moments.mean.numpy(), x.double().numpy().mean(0), atol=1e-9)
    np.testing.assert_allclose(moments.covariance.numpy(), np.cov(x.double().numpy().T, bias=True), atol=1e-9)


def test_smashed_data_alone_give_an_attacker_away() -> None:
    state = {"w": torch.zeros(3)}
    updates = [Update(f"c{i}", {"w": torch.tensor([1.0, i * 0.01, 0])}, 0, 1) for i in range(5)]
    moments = {}
    for i in range(5):
        moments[f"c{i}"] = Moments(4)
        moments[f"c{i}"].add(torch.randn(200, 4, generator=torch.Generator().manual_seed(i)) + (3 if i == 4 else 0))
    _, rows = features(state, updates, moments)
    assert rows.shape == (5, 7)
    assert rows[4, 4] > 5 * rows[:4, 4].max()
    del moments["c3"]
    with pytest.raises(ValueError, match="no smashed data of client c3"):
        features(state, updates, moments)


def constant_monitor(scores: dict[str, float], **options: object) -> ClientMonitor:
    """A monitor whose detector says what it is told to."""

    class Told:
        def fit(self, x: np.ndarray) -> "Told":
            return self

        def scores(self, x: np.ndarray) -> np.ndarray:
            return np.array([scores[name] for name in sorted(scores)]) if len(x) == len(scores) else np.zeros(len(x))

    monitor = ClientMonitor(Told(), false_alarms=0.5, **options)
    monitor.calibrate([np.zeros((3, 4)), np.zeros((3, 4))])
    return monitor


def updates_of(n: int) -> list[Update]:
    return [Update(f"c{i}", {"w": torch.ones(2) * (i + 1)}, 0, 1) for i in range(n)]


def test_a_quarantine_takes_strikes_and_leaves_a_majority() -> None:
    monitor = constant_monitor({"c0": 5, "c1": 4, "c2": 3, "c3": -1, "c4": -1}, strikes=2, window=3)
    state = {"w": torch.zeros(2)}
    first = monitor(state, updates_of(5))
    assert first == {"c0": 0, "c1": 0, "c2": 0, "c3": 1, "c4": 1}
    assert not monitor.verdicts[0].quarantined
    monitor(state, updates_of(5))
    # two of five at most, the worst ones
    assert monitor.verdicts[1].quarantined == {"c0", "c1"}
    monitor(state, updates_of(5))
    assert monitor.verdicts[2].quarantined == {"c0", "c1"}
    assert not monitor.verdicts[2].relative


def test_where_all_are_flagged_the_less_suspicious_half_is_trusted_and_it_is_said() -> None:
    monitor = constant_monitor({"c0": 5, "c1": 4, "c2": 3, "c3": 2})
    trust = monitor({"w": torch.zeros(2)}, updates_of(4))
    assert trust == {"c0": 0, "c1": 0, "c2": 1, "c3": 1}
    assert monitor.verdicts[0].relative


def test_rates_count_every_round_and_follow_who_attacks_when() -> None:
    def verdict(number: int, flagged: set[str]) -> ClientVerdict:
        return ClientVerdict(number, dict.fromkeys("abcd", 0.0), frozenset(flagged), frozenset(), {}, False)

    rounds = [verdict(1, set()), verdict(2, {"a"}), verdict(3, {"a", "b"})]
    rates = client_rates(rounds, {"a"})
    assert (rates.detection.count, rates.detection.total) == (2, 3)
    assert (rates.false_positives.count, rates.false_positives.total) == (1, 9)
    assert rates.quarantined_attackers.total == 1
    assert rates.quarantined_honest.total == 3
    later = client_rates(rounds, lambda number: {"a"} if number > 1 else set())
    assert (later.detection.count, later.detection.total) == (2, 2)


def test_runs_are_pooled_and_a_quarantine_is_told_from_the_score() -> None:
    def verdict(number: int, flagged: str, quarantined: str) -> ClientVerdict:
        return ClientVerdict(number, dict.fromkeys("abcd", 0.0), frozenset(flagged), frozenset(quarantined), {}, False)

    runs = [verdict(1, "a", ""), verdict(2, "", "a"), verdict(1, "b", ""), verdict(2, "", "b")]
    rates = client_rates(runs, {"a"})
    assert (rates.detection.count, rates.detection.total) == (2, 4)
    assert (rates.detection_by_score.count, rates.detection_by_score.total) == (1, 4)
    assert (rates.false_positives.count, rates.false_positives_by_score.count) == (2, 1)
    assert (rates.quarantined_attackers.count, rates.quarantined_attackers.total) == (1, 2)
    assert (rates.quarantined_honest.count, rates.quarantined_honest.total) == (1, 6)


def test_impossible_monitors_are_refused() -> None:
    monitor = ClientMonitor(make("mahalanobis"))
    with pytest.raises(ValueError, match="before it was calibrated"):
        monitor({"w": torch.zeros(2)}, updates_of(3))
    with pytest.raises(ValueError, match="at least 2 rounds"):
        monitor.calibrate([np.zeros((5, 4))])
    with pytest.raises(ValueError, match=r"0\.01 cannot be set by 10 client-rounds held out; at least 100"):
        monitor.calibrate([np.zeros((10, 4)), np.zeros((10, 4))])
    with pytest.raises(ValueError, match="1 to 5 strikes in 5 rounds, not 6"):
        ClientMonitor(make("mahalanobis"), strikes=6)
    with pytest.raises(ValueError, match="no majority"):
        features({"w": torch.zeros(2)}, updates_of(2))
    with pytest.raises(ValueError, match="nothing to count"):
        client_rates([], ())
    told = constant_monitor({"c0": 1, "c1": 0, "c2": 0})
    for i in range(3):
        told.see(f"c{i}", torch.randn(4, 2))
    with pytest.raises(ValueError, match="calibrated on 4 features of a client, and this round has 7"):
        told({"w": torch.zeros(2)}, updates_of(3))
