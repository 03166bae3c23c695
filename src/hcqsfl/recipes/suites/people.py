"""People: who a row is of, and what it gives away about them that nobody meant to reveal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from hcqsfl import build
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.federated.update import State
from hcqsfl.privacy.attack import Guess
from hcqsfl.privacy.attacks import ATTACKS
from hcqsfl.privacy.metrics.identification import open_set_eer, top_k
from hcqsfl.privacy.metrics.property import balanced_accuracy
from hcqsfl.privacy.observation import NotApplicable, Observation, Target
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites.adversary import as_read, defence_as_known
from hcqsfl.recipes.suites.scoring import constant, guess, mean_of, or_refused, refuse_hidden, score, units_in, units_of
from hcqsfl.recipes.victim import Truth, Victim
from hcqsfl.registry import lookup

AVERAGED, SUBTRACTED = "averaged", "subtracted"
"""What is done with the releases of one window, by whoever can link them."""

MOST_PEOPLE = 20
"""People asked about at most: those with the most windows."""

VIEWS = {"smashed": "T1", "gradient_smashed": "T1", "updates": "T4"}
"""What is read, and the weakest adversary who sees it."""

RECONSTRUCTIONS = {"decoder_inversion": "T2"}
"""Attacks whose reconstructions are matched with raw recordings, and under which threat model."""


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return the attacks on people for one training."""
    asked = _Asked(victim, profile)
    listed = [
        Case(f"{name}/{threat}/{view}", partial(_told_apart, asked, name, view, threat))
        for view, threat in VIEWS.items()
        for name in ("linear_probe", "siamese")
    ]
    listed += [
        Case(f"{name}/raw/windows", partial(_told_apart, asked, name, "windows", "raw"))
        for name in ("linear_probe", "slicing_dtw")
    ]
    listed += [
        Case(f"slicing_dtw/{threat}/{by}", partial(_told_apart, asked, "slicing_dtw", by, threat))
        for by, threat in RECONSTRUCTIONS.items()
        if by in ATTACKS
    ]
    if victim.config.defence.name != "none":  # fresh noise falls to whoever averages it away
        listed += [
            Case(f"{name}/T1/smashed/averaged", partial(_told_apart, asked, name, "smashed", "T1", AVERAGED))
            for name in ("linear_probe", "siamese")
        ]
    if victim.config.defence.name == "memoised_gaussian":  # constant noise to whoever subtracts
        listed += [
            Case(f"{name}/T1/smashed/differences", partial(_told_apart, asked, name, "smashed", "T1", SUBTRACTED))
            for name in ("linear_probe", "siamese")
        ]
    wanted = wanted_property(victim, profile)
    return listed + [
        Case(f"property_probe/{threat}/{wanted}", partial(_property, asked, threat, wanted)) for threat in ("T1", "T2")
    ]


def wanted_property(victim: Victim, profile: Profile) -> str:
    """Return the property that is asked for, or else that of the first channel: its spread, of a table its level."""
    measure = "spread" if victim.windows.n_times > 1 else "level"
    return str(profile.options.get("property", f"{measure}:{victim.windows.channels[0]}"))


class _Asked:
    """Rows asked about, of people with enough windows, half of them enrolled; loaded when the first case runs."""

    def __init__(self, victim: Victim, profile: Profile) -> None:
        self.victim, self.profile = victim, profile

    @cached_property
    def chosen(self) -> tuple[list[Target], Truth, dict[int, str], dict[int, list[Target]]]:
        """Targets, the truth about them, the people of those that are enrolled, and other releases of each."""
        names, counts = np.unique(self.victim.prepared.training.subject, return_counts=True)
        people = names[np.argsort(-counts, kind="stable")][:MOST_PEOPLE].tolist()
        targets, truth, others = self.victim.targets(2 * self.profile.n_targets, people)
        recording = self.victim.prepared.training.recording[truth.index]
        groups = [f"{s}/{c}" for s, c in zip(truth.subject, truth.y.tolist(), strict=True)]
        length = self.victim.windows.n_times
        first, second = enrol(groups, truth.subject, recording, truth.start, length, length)
        both = set(truth.subject[first]) & set(truth.subject[second])
        kept = [int(i) for i in (*first, *second) if truth.subject[i] in both]
        place = {i: n for n, i in enumerate(kept)}
        enrolled = {place[int(i)]: str(truth.subject[i]) for i in first if int(i) in place}
        truth = Truth(truth.x[kept], truth.y[kept], truth.subject[kept], truth.index[kept], truth.start[kept])
        releases = {place[i]: others[i] for i in kept}
        return [targets[i] for i in kept], truth, enrolled, releases


def enrol(
    groups: Sequence[str],
    subject: np.ndarray,
    recording: np.ndarray,
    start: np.ndarray,
    length: int,
    gap: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows in time: the earlier half of each group is enrolled, later rows are asked about.

    Args:
        groups: ``(n,)`` what is divided: a person in one class, so that both halves hold the same classes.
        subject, recording, start: ``(n,)`` whose row it is, and where it begins in which recording, in samples.
        length: samples of a window.
        gap: samples that must lie between a row that is asked about and every enrolled row of that person.

    Returns:
        Places of those enrolled, and of those asked about; rows too near to an enrolled one are in neither.
    """
    names = np.asarray(groups)
    first: list[int] = []
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        first += rows[np.lexsort((start[rows], recording[rows]))][: (len(rows) + 1) // 2].tolist()
    held = np.array(sorted(first), dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(names)), held)
    far = [
        i
        for i in rest
        if not (
            (subject[held] == subject[i])
            & (recording[held] == recording[i])
            & (np.abs(start[held] - start[i]) < length + gap)
        ).any()
    ]
    return held, np.array(far, dtype=np.int64)


def _told_apart(asked: _Asked, name: str, view: str, threat: str, linked: str = "") -> Sequence[Row]:
    knows = {
        "updates": "earlier rounds' updates by person",
        "windows": "the recordings themselves" + (": the ceiling" if name == "slicing_dtw" else ""),
    }.get(view, f"earlier rows by person; reads {view}")
    if view in RECONSTRUCTIONS:
        knows = f"earlier raw windows by person; reads what {view} made"
    knows += f", which rows are one window: {linked}" if linked else ""

    def rows() -> Sequence[Row]:
        if view == "updates":
            return _of_updates(asked, name, threat, knows)
        return _of_windows(asked, name, view, threat, knows, linked)

    return or_refused(asked.victim, name, threat, knows, "re-identification top-1", rows)


def _of_windows(asked: _Asked, name: str, view: str, threat: str, knows: str, linked: str) -> Sequence[Row]:
    victim = asked.victim
    targets, truth, enrolled, releases = asked.chosen
    spent_before = 0
    if view == "windows":
        observation = Observation("raw", False, asked_x=truth.x)
    elif view in RECONSTRUCTIONS:
        seen = victim.observe(threat, targets)
        made, spent_before = guess(
            view, seen, victim.knowledge(), asked.profile.evaluations, asked.profile.trials, victim.seed
        )
        observation = replace(seen, asked_x=_mixed(truth.x, _tensor(made.windows), enrolled))
    else:
        observation = victim.observe(threat, targets)
    if view in RECONSTRUCTIONS:
        view = "windows"
    classes = truth.y.numpy()
    if linked:  # by who knows the defence, and takes whole turns off
        observation = as_read(victim, observation)
    links = releases if linked else {}
    extra = {"differences": True} if linked == SUBTRACTED else {}
    return _rows(
        asked, name, threat, knows, view, observation, enrolled, truth.subject, classes, spent_before, links, extra
    )


def _of_updates(asked: _Asked, name: str, threat: str, knows: str) -> Sequence[Row]:
    victim = asked.victim
    refuse_hidden(victim)
    observation, people, enrolled = pseudonymous(victim.observe(threat), _owners(victim), victim.seed)
    return _rows(asked, name, threat, knows, "updates", observation, enrolled, people, np.zeros(len(people), int), 0)


def _owners(victim: Victim) -> dict[str, str]:
    """Return client to the person whose data it holds, or to its own name where it holds several people's."""
    subject = victim.prepared.training.subject
    owners = {}
    for client, index in build.dealt(victim.config, victim.prepared).items():
        names = set(subject[index].tolist())
        owners[client] = names.pop() if len(names) == 1 else client
    return owners


def pseudonymous(
    observation: Observation, owners: Mapping[str, str], seed: int
) -> tuple[Observation, np.ndarray, dict[int, str]]:
    """Hide which client handed in which update from the middle of the training on.

    Returns:
        The observation with clients renamed in later rounds, the person of each update in the order in which
        ``hcqsfl.privacy.views.rows`` lists them, and the people of the earlier ones, by place.

    Raises:
        NotApplicable: there are fewer than two rounds of updates, or a single client.
    """
    numbers = sorted(observation.updates)
    if len(numbers) < 2 or len(owners) < 2:
        raise NotApplicable(
            f"{len(numbers)} rounds of updates of {len(owners)} clients were recorded; linking them needs 2 of each"
        )
    updates: dict[int, Mapping[str, State]] = {}
    people: list[str] = []
    enrolled: dict[int, str] = {}
    for number in numbers:
        given = observation.updates[number]
        clients = sorted(given)
        if number >= numbers[len(numbers) // 2]:
            clients = numpy_generator(seed, "pseudonyms", number).permutation(clients).tolist()
            updates[number] = {f"update {i:04d}": given[client] for i, client in enumerate(clients)}
        else:
            enrolled |= {len(people) + i: owners[client] for i, client in enumerate(clients)}
            updates[number] = given
        people += [owners[client] for client in clients]
    return replace(observation, updates=updates, examples={}), np.array(people), enrolled


def _rows(
    asked: _Asked,
    name: str,
    threat: str,
    knows: str,
    view: str,
    observation: Observation,
    enrolled: Mapping[int, str],
    people: np.ndarray,
    classes: np.ndarray,
    spent_before: int,
    releases: Mapping[int, Sequence[Target]] | None = None,
    extra: Mapping[str, object] | None = None,
) -> Sequence[Row]:
    victim, profile = asked.victim, asked.profile
    if len(set(enrolled.values())) < 2:
        raise NotApplicable(
            f"{len(set(enrolled.values()))} of the people asked about have windows far enough apart in time to be "
            "enrolled and asked about; telling people apart needs at least 2"
        )

    def identify(known: Mapping[int, str]) -> tuple[Guess, int]:
        knowledge = victim.knowledge(enrolled=known, extra={"view": view, **(extra or {})}, releases=releases or {})
        return guess(name, observation, knowledge, profile.evaluations, profile.trials, victim.seed)

    rows = np.array([i for i in range(len(people)) if i not in enrolled and people[i] in set(enrolled.values())])
    made, spent = identify(enrolled)
    scores = _tensor(made.identity).numpy()[rows]
    column = np.array([made.candidates.index(str(person)) for person in people[rows]])
    units = units_of(people[rows])
    facts = {
        "view": view,
        "people": len(made.candidates),
        "clients_named": "a client's name in the messages is not used; where a client is one person, it links its rows",
        **made.facts,
    }

    def row(metric: str, statistic: Callable, baselines: Mapping[str, Callable], **more: bool) -> Row:
        return score(
            victim, name, threat, knows, metric, statistic, baselines, units_of(units),
            evaluations=spent + spent_before, facts=facts, n_resamples=profile.n_resamples, **more,
        )  # fmt: skip

    s = len(made.candidates)
    by_class = _by_class(enrolled, people, classes, rows, made.candidates)
    found = [
        row(
            f"re-identification top-{k}",
            mean_of(top_k(scores, column, k)),
            {
                "chance": constant(min(k / s, 1.0)),
                "person by class": mean_of(top_k(by_class, column, k)),
            },
        )
        for k in ((1, 5) if s > 5 else (1,))
    ]
    if s >= 3:
        strangers = set(made.candidates[2::3])  # every third person is left out of enrolment
        known = {i: person for i, person in enrolled.items() if person not in strangers}
        open_scores = _tensor(identify(known)[0].identity).numpy()[rows]
        member = np.array([person not in strangers for person in people[rows]])
        found.append(
            row(
                "open-set EER",
                lambda i: open_set_eer(open_scores[i], member[i]),
                {"chance": constant(0.5)},
                higher=False,
            )
        )
    return found


def _by_class(
    enrolled: Mapping[int, str], people: np.ndarray, classes: np.ndarray, rows: np.ndarray, candidates: Sequence[str]
) -> np.ndarray:
    """Score people by how many of their enrolled rows are of a row's class: what its label alone would tell."""
    table = {(c, p): 0.0 for c in np.unique(classes).tolist() for p in candidates}
    for place, person in enrolled.items():
        table[classes[place], person] += 1
    spread = 1e-6 * np.arange(len(candidates))  # ties go to one of them
    return np.array([[table[classes[i], p] for p in candidates] for i in rows]) + spread


def _property(asked: _Asked, threat: str, wanted: str) -> Sequence[Row]:
    victim, profile = asked.victim, asked.profile
    knows = "auxiliary windows" if threat == "T2" else "values of earlier rows"
    metric = f"balanced accuracy of {wanted}"

    def rows() -> Sequence[Row]:
        targets, truth, enrolled, _ = asked.chosen
        values, auxiliary = property_values(victim, truth.index, wanted)
        known = {i: str(values[i]) for i in enrolled}
        defence = defence_as_known(victim)
        knowledge = victim.knowledge(enrolled=known, extra={"values": auxiliary}, defence=defence)
        if len(set(known.values())) < 2 or len(set(auxiliary)) < 2:
            raise NotApplicable(f"all windows that the attacker knows have the same value of {wanted}")
        kept = np.array([i for i in range(len(values)) if i not in enrolled])
        if len(set(values[kept])) < 2:
            raise NotApplicable(f"all windows asked about have the same value of {wanted}")
        made, spent = guess(
            "property_probe",
            as_read(victim, victim.observe(threat, targets)),
            knowledge,
            profile.evaluations,
            profile.trials,
            victim.seed,
        )
        guessed = np.array(made.candidates)[_tensor(made.property).numpy().argmax(axis=1)][kept]
        own, n_values = values[kept], len(made.candidates)
        y = truth.y.numpy()
        by_class = _value_by_class(y[list(enrolled)], values[list(enrolled)], y[kept])
        return [
            score(
                victim, "property_probe", threat, knows, metric,
                lambda i: balanced_accuracy(guessed[i], own[i]),
                {
                    "chance": constant(1 / n_values),
                    "value by class": lambda i: balanced_accuracy(by_class[i], own[i]),
                },
                units_in(victim, truth, kept), evaluations=spent, n_resamples=profile.n_resamples,
                facts={"property": wanted, "values": list(made.candidates)},
            )
        ]  # fmt: skip

    return or_refused(victim, "property_probe", threat, knows, metric, rows)


def property_values(victim: Victim, index: np.ndarray, wanted: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the property's value, as text, of the training windows at ``index`` and of the auxiliary windows.

    Args:
        victim: whose windows.
        index: places among the training windows.
        wanted: ``level:CHANNEL`` or ``spread:CHANNEL``: whether a window's mean or deviation, before scaling, lies
            above the median over all people; or ``stratum``.

    Raises:
        ValueError: there is no such property or channel.
    """
    windows = victim.windows
    auxiliary = windows.take(np.concatenate([victim.fold.validation, victim.fold.test]))
    training = victim.prepared.training
    kind, _, channel = wanted.partition(":")
    if kind == "stratum":
        return training.stratum[index].astype(str), auxiliary.stratum.astype(str)
    measure = lookup("property", {"level": _level, "spread": _spread}, kind)
    c = lookup("channel", {name: i for i, name in enumerate(windows.channels)}, channel)
    own, others = measure(training.x[index, c]), measure(auxiliary.x[:, c])
    names = np.array(["low", "high"])
    middle = np.median(np.concatenate([measure(training.x[:, c]), others]))
    return names[(own > middle).astype(int)], names[(others > middle).astype(int)]


def _level(x: np.ndarray) -> np.ndarray:
    means: np.ndarray = x.mean(axis=-1)
    return means


def _spread(x: np.ndarray) -> np.ndarray:
    deviations: np.ndarray = x.std(axis=-1)
    return deviations


def _value_by_class(known_y: np.ndarray, known: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return each row's likeliest value by its class alone, as the known rows have it."""
    common = {c: _commonest(known[known_y == c]) for c in np.unique(known_y).tolist()}
    overall = _commonest(known)
    return np.array([common.get(c, overall) for c in y.tolist()])


def _commonest(values: np.ndarray) -> str:
    names, counts = np.unique(values, return_counts=True)
    return str(names[counts.argmax()])


def _mixed(raw: Tensor, reconstructed: Tensor, enrolled: Mapping[int, str]) -> Tensor:
    """Return reconstructions, with the raw windows of those enrolled in their places."""
    known = torch.tensor([i in enrolled for i in range(len(raw))])
    return torch.where(known[:, None, None], raw, reconstructed)


def _tensor(found: Tensor | None) -> Tensor:
    if found is None:
        raise ValueError("the attack did not guess what it was asked for")
    return found
