"""People told apart by what crossed, and properties of theirs inferred."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dtaidistance import dtw
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import nn

from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.metrics.identification import equal_error_rate, open_set_eer, top_k
from hcqsfl.privacy.metrics.property import balanced_accuracy
from hcqsfl.privacy.observation import NotApplicable, Observation, Target, as_noise
from hcqsfl.privacy.record import Exchange
from hcqsfl.privacy.views import compact, rows
from hcqsfl.recipes.suites.people import enrol, pseudonymous

PEOPLE, EACH = ("A", "B", "C", "D"), 12


def knowledge(**more) -> Knowledge:
    aux = torch.randn(120, 1, 8, generator=torch.Generator().manual_seed(1))
    made = Knowledge(aux, torch.zeros(120), ["Z"] * 120, 2, lambda: Front(), nn.Identity, nn.Identity)
    return replace(made, **more)


class Front(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(8, 3)

    def forward(self, x):
        return self.front(x.flatten(1))


@pytest.fixture(scope="module")
def planted():
    """Rows of four people, each around a place of its own; the first half of each person's rows is enrolled."""
    torch.manual_seed(0)
    person = torch.arange(len(PEOPLE)).repeat_interleave(EACH)
    z = 2 * torch.randn(len(PEOPLE), 6)[person] + torch.randn(len(person), 6)
    t = torch.linspace(0, 6.28, 64)
    x = torch.sin((1 + person[:, None]) * t + 6 * torch.rand(len(person), 1)) + 0.2 * torch.randn(len(person), 64)
    observation = Observation(
        "T1", False, [Exchange("c", 1, 1, z)], [Target(0, i) for i in range(len(z))], asked_x=x[:, None]
    )
    enrolled = {i: PEOPLE[person[i]] for i in range(len(z)) if i % EACH < EACH // 2}
    return observation, enrolled, person.numpy()


def rate(name: str, observation: Observation, enrolled: dict[int, str], person: np.ndarray, view: str) -> float:
    known = knowledge(enrolled=enrolled, extra={"view": view})
    made = attacks.make(name).run(observation, known, Budget(200), 0)
    assert made.candidates == PEOPLE
    asked = [i for i in range(len(person)) if i not in enrolled]
    return float(top_k(made.identity.numpy()[asked], person[asked], 1).mean())


@pytest.mark.parametrize(
    ("name", "view"), [("linear_probe", "smashed"), ("siamese", "smashed"), ("slicing_dtw", "windows")]
)
def test_people_are_told_apart_where_they_differ_and_not_from_noise(name: str, view: str, planted) -> None:
    observation, enrolled, person = planted
    assert rate(name, observation, enrolled, person, view) > 0.8
    noise = replace(as_noise(observation, 0), asked_x=torch.randn_like(observation.asked_x))
    assert rate(name, noise, enrolled, person, view) < 0.5  # chance is 0.25


def test_slicing_dtw_is_the_mean_over_slices_of_the_distance_to_the_nearest_slice() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 1, 40))  # A and B enrolled, the third asked about
    known = knowledge(enrolled={0: "A", 1: "B"})
    seen = Observation("T1", False, asked_x=torch.from_numpy(x))
    scores = attacks.make("slicing_dtw").run(seen, known, Budget(9), 0).identity.numpy()[2]
    scaled = (x - x[:2].mean()) / x[:2].std()
    for i, score in enumerate(scores):
        slow = [
            min(dtw.distance(scaled[2, 0, a : a + 10], scaled[i, 0, b : b + 10], window=1) for b in range(0, 40, 10))
            for a in range(0, 40, 10)
        ]
        assert -score == pytest.approx(np.mean(slow))


@pytest.mark.parametrize("name", ["linear_probe", "siamese", "slicing_dtw"])
def test_one_person_alone_cannot_be_told_apart(name: str, planted) -> None:
    with pytest.raises(ValueError, match="needs at least 2"):
        attacks.make(name).run(planted[0], knowledge(enrolled={0: "A"}), Budget(5), 0)


def test_nothing_to_read_is_told() -> None:
    with pytest.raises(NotApplicable, match="sees no updates"):
        rows(Observation("T4", False), "updates")
    with pytest.raises(ValueError, match="an attack can read smashed"):
        rows(Observation("T1", False), "smashd")


def test_a_tie_counts_against_the_attack() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [0.9, 0.5, 0.1]])
    assert top_k(scores, np.array([0, 0]), 1).tolist() == [0.0, 1.0]
    assert top_k(scores, np.array([0, 2]), 2).tolist() == [1.0, 0.0]


def test_the_equal_error_rate_of_two_normals_is_the_tail_where_they_cross() -> None:
    from scipy.stats import norm

    q = np.linspace(0.0005, 0.9995, 1000)
    genuine, impostor = norm.ppf(q, loc=2.0), norm.ppf(q)
    at = brentq(lambda t: norm.cdf(t, loc=2.0) - norm.sf(t), -5, 5)
    assert equal_error_rate(genuine, impostor) == pytest.approx(norm.sf(at), abs=2e-3)
    assert equal_error_rate(np.array([1.0]), np.array([0.0])) == 0.0
    assert open_set_eer(np.array([[3.0, 0], [0, 3], [1, 0]]), np.array([True, True, False])) == 0.0


def test_balanced_accuracy_is_scikit_learns() -> None:
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    truth, guessed = rng.integers(3, size=50), rng.integers(3, size=50)
    assert balanced_accuracy(guessed, truth) == pytest.approx(balanced_accuracy_score(truth, guessed))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 400)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_row_asked_about_is_near_in_time_to_one_that_is_enrolled(drawn) -> None:
    subject, recording, start = (np.array(column) for column in zip(*drawn, strict=True))
    first, second = enrol([str(s) for s in subject], subject, recording, start, 10, 5)
    assert not set(first) & set(second)
    assert len(first)
    for i in second:
        beside = (subject[first] == subject[i]) & (recording[first] == recording[i])
        assert (np.abs(start[first][beside] - start[i]) >= 15).all()


def test_updates_lose_their_names_in_the_second_half_and_keep_their_people() -> None:
    state = {name: {"w": torch.full((1,), float(i))} for i, name in enumerate("abc")}
    seen = Observation(
        "T4",
        False,
        updates=dict.fromkeys((1, 2, 3, 4), state),
        client_states={n: {"": {"w": torch.zeros(1)}} for n in range(5)},
    )
    hidden, people, enrolled = pseudonymous(seen, {"a": "A", "b": "B", "c": "C"}, 0)
    assert sorted(hidden.updates[1]) == ["a", "b", "c"]
    assert sorted(hidden.updates[3]) == ["update 0000", "update 0001", "update 0002"]
    assert [enrolled[i] for i in range(6)] == ["A", "B", "C"] * 2
    assert ["ABC"[int(value)] for value in rows(hidden, "updates")[:, 0]] == people.tolist()


def test_a_property_of_the_windows_is_inferred_by_a_colluding_client_and_not_from_noise() -> None:
    torch.manual_seed(3)
    front = Front()
    x = torch.randn(80, 1, 8)
    with torch.no_grad():
        z = front(x)
    w = front.front.weight[0].detach()
    value = (x.flatten(1) @ w > 0).numpy()
    known = knowledge()
    auxiliary = (known.x.flatten(1) @ w > 0).numpy().astype(str)
    states = {0: {"": {f"front.{k}": t for k, t in front.state_dict().items()}}}
    seen = Observation("T2", False, [Exchange("c", 1, 1, z)], [Target(0, i) for i in range(80)], client_states=states)

    def accuracy(observation: Observation, **more) -> float:
        made = attacks.make("property_probe").run(observation, replace(known, **more), Budget(9), 0)
        return balanced_accuracy(np.array(made.candidates)[made.property.argmax(dim=1)], value.astype(str))

    assert accuracy(seen, extra={"values": auxiliary}) > 0.8
    assert accuracy(as_noise(seen, 0), extra={"values": auxiliary}) < 0.7
    alone = replace(seen, client_states={})  # the main server without a colluding client
    assert accuracy(alone, enrolled={i: str(value[i]) for i in range(40)}) > 0.75


def test_who_averages_releases_sees_through_fresh_noise() -> None:
    torch.manual_seed(0)
    person = torch.arange(4).repeat_interleave(EACH)
    z = 2 * torch.randn(4, 6)[person]
    exchanges = [Exchange("c", r, 1, z + 4 * torch.randn_like(z)) for r in range(1, 31)]
    n = len(z)
    seen = Observation("T1", False, exchanges, [Target(29, i) for i in range(n)])
    enrolled = {i: PEOPLE[person[i]] for i in range(n) if i % EACH < EACH // 2}
    asked = [i for i in range(n) if i not in enrolled]
    releases = {i: [Target(r, i) for r in range(29)] for i in range(n)}

    def found(**more) -> float:
        made = attacks.make("linear_probe").run(seen, knowledge(enrolled=enrolled, **more), Budget(9), 0)
        return float(top_k(made.identity.numpy()[asked], person.numpy()[asked], 1).mean())

    assert found() < 0.6 < 0.9 < found(releases=releases)


def test_rows_wider_than_many_keep_their_distances_in_their_own_span() -> None:
    x = torch.randn(5, 40)
    made = compact(x)
    assert made.shape == (5, 5)
    torch.testing.assert_close(torch.cdist(made, made), torch.cdist(x, x), rtol=1e-4, atol=1e-4)
