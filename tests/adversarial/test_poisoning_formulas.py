"""Each formula of a poisoning attack against a sum in NumPy that a reader can follow."""

import inspect
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

import hcqsfl.adversarial.poisoning as package
from hcqsfl.adversarial.poisoning import ATTACKS, make
from hcqsfl.adversarial.poisoning.attacker import PLACES, Joint, Member, Turn
from hcqsfl.adversarial.poisoning.triggers import TRIGGERS, Trigger
from hcqsfl.federated.aggregation.krum import ranking

BENIGN = np.random.default_rng(1).normal(0.3, 1.0, (7, 12))
OWN = np.random.default_rng(2).normal(0.3, 1.0, (4, 12))
BASE = np.random.default_rng(3).normal(0.0, 2.0, 12)


def member(rank: int = 0, n_attackers: int = 4, n_clients: int = 11, n_classes: int = 5, sfreq: float = 8.0) -> Member:
    return Member(f"c{rank}", rank, n_attackers, n_clients, n_classes, sfreq, 0)


def joint(benign=BENIGN, own=OWN, base=BASE, number: int = 1) -> Joint:
    benign, own, base = map(torch.from_numpy, (benign, own, base))
    return Joint(
        number, base, benign, own, lambda rows: torch.cat([benign, rows]).mean(0), torch.Generator().manual_seed(0)
    )


def handed_in(name: str, **options) -> np.ndarray:
    return make(name, **options).joint(joint()).numpy()


def turned(name: str, number: int = 3, bases=(), updates=(), **options) -> np.ndarray:
    turn = Turn(
        member(),
        number,
        torch.from_numpy(BASE),
        torch.from_numpy(OWN[0]),
        tuple(map(torch.from_numpy, bases)),
        tuple(map(torch.from_numpy, updates)),
        torch.Generator().manual_seed(0),
    )
    return make(name, **options).update(turn).numpy()


def largest_gamma(allowed, high: float = 1e3) -> float:
    """Search for the largest number that is allowed, as the publication does."""
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


def pushes() -> dict[str, np.ndarray]:
    mean = BENIGN.mean(0)
    return {"unit": -mean / np.linalg.norm(mean), "sign": -np.sign(mean), "std": -BENIGN.std(0)}


def test_every_attack_is_registered_says_what_it_is_and_acts_somewhere() -> None:
    folder = Path(inspect.getfile(package)).parent
    helpers = {"__init__", "attacker", "directions", "infiltrate", "triggers"}
    assert set(ATTACKS) == {path.stem for path in folder.glob("*.py")} - helpers
    for name in ATTACKS:
        attack = make(name)
        assert attack.source.strip(), name
        assert attack.goal in ("untargeted", "backdoor"), name
        assert attack.places, name
        assert set(attack.places) <= set(PLACES), name
        assert attack.knowledge, name


def test_the_attackers_own_updates_are_multiples_of_what_they_trained() -> None:
    np.testing.assert_allclose(turned("sign_flip", scale=3.0), -3 * OWN[0])
    np.testing.assert_allclose(turned("update_scaling", factor=0.1), 0.1 * OWN[0])
    np.testing.assert_allclose(turned("model_replacement"), 11 / 4 * OWN[0])
    np.testing.assert_allclose(turned("model_replacement", factor=2.0), 2 * OWN[0])
    np.testing.assert_allclose(turned("backdoor", scale=5.0), 5 * OWN[0])
    np.testing.assert_array_equal(turned("free_rider"), 0 * OWN[0])


def test_noise_has_the_size_asked_for() -> None:
    own = torch.linspace(-1, 1, 20000, dtype=torch.float64)
    turn = Turn(member(), 4, torch.zeros_like(own), own, (), (), torch.Generator().manual_seed(0))
    rms = math.sqrt((own.numpy() ** 2).mean())
    assert make("gaussian", scale=10.0).update(turn).numpy().std() == pytest.approx(10 * rms, rel=0.03)
    assert make("free_rider", sigma=1.0, decay=0.5).update(turn).numpy().std() == pytest.approx(4**-0.5, rel=0.03)


def test_a_replayed_state_is_the_one_of_the_oldest_turn_remembered() -> None:
    bases, updates = (BENIGN[0], BENIGN[1]), (BENIGN[2], BENIGN[3])
    replayed = turned("stale_replay", bases=bases, updates=updates, lag=2)
    np.testing.assert_allclose(BASE + replayed, bases[0] + updates[0])
    np.testing.assert_array_equal(turned("stale_replay"), OWN[0])  # there is nothing yet to replay


def test_neurotoxin_keeps_off_what_moved_most() -> None:
    last = BASE + np.arange(12) * np.where(np.arange(12) % 2, 1, -1)
    kept = turned("durable_backdoor", bases=(last,), kept_off=0.25)
    expected = OWN[0].copy()
    expected[[9, 10, 11]] = 0.0
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("epsilon", [0.1, 100.0])
def test_inner_product_manipulation_turns_the_mean_around(epsilon: float) -> None:
    np.testing.assert_allclose(handed_in("inner_product", epsilon=epsilon), np.tile(-epsilon * BENIGN.mean(0), (4, 1)))


def test_alie_moves_the_mean_by_as_many_deviations_as_pass() -> None:
    n, m = 11, 4
    s = n // 2 + 1 - m  # floor(n / 2 + 1) - m
    z = norm.ppf((n - m - s) / (n - m))
    assert z > 0
    np.testing.assert_allclose(handed_in("alie"), np.tile(BENIGN.mean(0) + z * BENIGN.std(0), (4, 1)))


@pytest.mark.parametrize("direction", ["unit", "sign", "std"])
def test_min_max_is_what_the_search_of_the_publication_finds(direction: str) -> None:
    push = pushes()[direction]
    limit = max(np.linalg.norm(a - b) for a in BENIGN for b in BENIGN)
    gamma = largest_gamma(lambda g: max(np.linalg.norm(BENIGN.mean(0) + g * push - row) for row in BENIGN) <= limit)
    np.testing.assert_allclose(handed_in("min_max", direction=direction)[0], BENIGN.mean(0) + gamma * push, rtol=1e-8)


@pytest.mark.parametrize("direction", ["unit", "sign", "std"])
def test_min_sum_is_what_the_search_of_the_publication_finds(direction: str) -> None:
    push = pushes()[direction]
    limit = max(sum(np.sum((a - b) ** 2) for b in BENIGN) for a in BENIGN)
    gamma = largest_gamma(lambda g: sum(np.sum((BENIGN.mean(0) + g * push - row) ** 2) for row in BENIGN) <= limit)
    np.testing.assert_allclose(handed_in("min_sum", direction=direction)[0], BENIGN.mean(0) + gamma * push, rtol=1e-8)


def test_the_attack_on_krum_is_chosen_by_krum_and_goes_against_its_choice() -> None:
    found = handed_in("fang_krum")
    everybody = np.concatenate([BENIGN, OWN])
    honest_choice = everybody[int(ranking(torch.from_numpy(everybody), 4)[0])]
    size = np.abs(found[0, 0])
    np.testing.assert_allclose(found, np.tile(-size * np.sign(honest_choice), (4, 1)))
    assert size > 1e-3
    assert int(ranking(torch.from_numpy(np.concatenate([BENIGN, found])), 4)[0]) >= 7


def test_the_attack_on_the_trimmed_mean_lies_just_beyond_the_benign_models() -> None:
    found = handed_in("fang_trimmed_mean") + BASE
    models = BASE + BENIGN
    grows = np.concatenate([BENIGN, OWN]).mean(0) > 0
    for j in range(12):
        low, high = models[:, j].min(), models[:, j].max()
        if grows[j]:
            ends = (low / 2, low) if low > 0 else (2 * low, low)
        else:
            ends = (high, 2 * high) if high > 0 else (high, high / 2)
        assert (found[:, j] >= ends[0] - 1e-12).all(), j
        assert (found[:, j] <= ends[1] + 1e-12).all(), j


@pytest.mark.parametrize("goal", ["far", "back"])
def test_the_tailored_attack_takes_the_gamma_that_moves_the_rule_most(goal: str) -> None:
    found = handed_in("agr_tailored", direction="unit", n_gammas=10, goal=goal)[0]
    mean, push = BENIGN.mean(0), pushes()["unit"]
    diameter = max(np.linalg.norm(a - b) for a in BENIGN for b in BENIGN)
    # a mean follows the largest step of the grid
    np.testing.assert_allclose(found, mean + 2.0**5 * diameter * push)


def test_the_tailored_attack_goes_back_at_least_as_far_as_in_any_one_direction() -> None:
    mean = torch.from_numpy(BENIGN).mean(0)

    def trusting(rows: torch.Tensor) -> torch.Tensor:  # as FLTrust would: whoever points the mean's way, all as long
        every = torch.cat([torch.from_numpy(BENIGN), rows])
        trust = torch.nn.functional.cosine_similarity(every, mean[None]).clamp(min=0)
        return trust @ (every / every.norm(dim=1, keepdim=True)) / trust.sum()

    seen = replace(joint(), aggregate=trusting)
    far = {
        direction: float(trusting(make("agr_tailored", direction=direction).joint(seen)) @ mean)
        for direction in ("unit", "sign", "std", "any")
    }
    assert far["any"] == min(far.values())
    assert far["any"] < far["unit"] - 0.01  # turned around along the mean, nobody is trusted


def test_only_the_labels_are_turned_around() -> None:
    x, y = torch.zeros(3, 1, 4), torch.tensor([0, 1, 4])
    same, flipped = make("label_flip").data(x, y, member())
    assert same is x
    assert flipped.tolist() == [4, 3, 0]
    assert make("label_flip", origin=1, target=2).data(x, y, member())[1].tolist() == [0, 2, 4]


def test_smashed_data_are_swapped_mirrored_or_replaced() -> None:
    z = torch.from_numpy(BENIGN)
    generator = torch.Generator().manual_seed(0)
    swapped = make("smashed_poisoning", kind="swap").smashed(z, member(), generator).numpy()
    assert not np.array_equal(swapped, BENIGN)
    np.testing.assert_array_equal(np.sort(swapped, axis=0), np.sort(BENIGN, axis=0))
    mirrored = make("smashed_poisoning", kind="reverse", scale=2.0).smashed(z, member(), generator).numpy()
    np.testing.assert_allclose(mirrored, BENIGN.mean(0) - 2 * (BENIGN - BENIGN.mean(0)))
    wide = torch.from_numpy(np.random.default_rng(0).normal(2, 3, (4000, 2)))
    noise = make("smashed_poisoning", kind="noise", scale=2.0).smashed(wide, member(), generator).numpy()
    np.testing.assert_allclose(noise.std(0), 2 * wide.numpy().std(0), rtol=0.05)
    assert make("gradient_reversal", scale=2.0).gradient(z, member()).numpy()[0, 0] == -2 * BENIGN[0, 0]


def test_a_spoofed_pulse_beats_at_the_rate_asked_for_and_a_flat_line_not_at_all() -> None:
    x, y = torch.from_numpy(np.random.default_rng(0).normal(5, 2, (6, 2, 512))).float(), torch.zeros(6).long()
    who = member(sfreq=16.0)
    spoofed, labels = make("sensor_spoofing", kind="pulse", rate=90.0, channels=(1,)).data(x, y, who)
    assert labels is y
    torch.testing.assert_close(spoofed[:, 0], x[:, 0])
    wave = spoofed[:, 1].numpy() - spoofed[:, 1].numpy().mean(1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(wave, axis=1))
    beats = np.fft.rfftfreq(512, 1 / 16.0)[spectrum.argmax(1)] * 60
    np.testing.assert_allclose(beats, 90.0, atol=1.0)
    flat, _ = make("sensor_spoofing", kind="flat").data(x, y, who)
    assert float(flat.std(dim=2).max()) < 1e-6
    with pytest.raises(ValueError, match="windows hold 1 sample"):
        make("sensor_spoofing").data(x[:, :, :1], y, who)


@pytest.mark.parametrize("kind", sorted(TRIGGERS))
def test_a_distributed_trigger_is_the_whole_one_in_parts(kind: str) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 6, 32)))
    trigger = Trigger(kind, cycles=4.0)
    parts = [trigger(x, (i, 4)) != x for i in range(4)]
    assert torch.stack(parts).sum(0).max() <= 1  # no value is in two parts
    together = x.clone()
    for i in range(4):
        together = torch.where(parts[i], trigger(x, (i, 4)), together)
    torch.testing.assert_close(together, trigger(x))


def test_a_backdoor_labels_what_it_marks_and_nothing_else() -> None:
    x, y = torch.zeros(10, 5, 1), torch.full((10,), 3)
    attack = make("backdoor", target=1, share=0.3, trigger="rare_value", options={"level": 7.0, "channels": (2, 4)})
    assert attack.places == ("data",)
    marked, labels = attack.data(x, y, member())
    assert (labels == 1).sum() == 3
    assert ((marked != 0).any(dim=2).any(dim=1) == (labels == 1)).all()
    assert marked[labels == 1][0, :, 0].tolist() == [0, 0, 7, 0, 7]
    with pytest.raises(ValueError, match="target is class 9, but there are 5"):
        make("backdoor", target=9).data(x, y, member())


def test_wrong_options_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'alie'"):
        make("alei")
    with pytest.raises(ValueError, match="no option of attack alie is called 'zz'"):
        make("alie", zz=1)
    for name, options in {
        "sign_flip": {"scale": 0.0},
        "gaussian": {"scale": -1.0},
        "update_scaling": {"factor": -1.0},
        "inner_product": {"epsilon": 0.0},
        "fang_trimmed_mean": {"b": 1.0},
        "stale_replay": {"lag": 0},
        "label_flip": {"origin": 1},
        "backdoor": {"share": 0.0},
        "smashed_poisoning": {"kind": "rotate"},
        "min_max": {"direction": "up"},
    }.items():
        with pytest.raises(ValueError):
            make(name, **options)
