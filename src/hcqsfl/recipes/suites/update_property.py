"""Clients: what the updates that they hand in give away about their windows."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from hcqsfl import build
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.privacy.metrics.property import balanced_accuracy
from hcqsfl.privacy.observation import NotApplicable
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites.people import property_values, wanted_property
from hcqsfl.recipes.suites.scoring import constant, guess, or_refused, refuse_hidden, score
from hcqsfl.recipes.victim import Victim

NAME, THREAT, KNOWS = "update_property", "T5", "auxiliary windows"


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return property inference from the updates of one training."""
    wanted = wanted_property(victim, profile)
    return [Case(f"{NAME}/{THREAT}/{wanted}", partial(_scored, victim, profile, wanted))]


def _scored(victim: Victim, profile: Profile, wanted: str) -> Sequence[Row]:
    metric = f"balanced accuracy of clients' {wanted}"
    return or_refused(victim, NAME, THREAT, KNOWS, metric, lambda: _rows(victim, profile, wanted, metric))


def _rows(victim: Victim, profile: Profile, wanted: str, metric: str) -> Sequence[Row]:
    refuse_hidden(victim)
    observation = victim.observe(THREAT)
    if not observation.updates:
        raise NotApplicable(f"no client half is handed in under {victim.arm.protocol}")
    clients = sorted({client for given in observation.updates.values() for client in given})
    dealt = build.dealt(victim.config, victim.prepared)
    own, auxiliary = [], np.array([])
    for client in clients:
        values, auxiliary = property_values(victim, dealt[client], wanted)
        names, counts = np.unique(values, return_counts=True)
        own.append(str(names[counts.argmax()]))
    truth = np.array(own)
    if len(set(own)) < 2 or len(set(auxiliary.tolist())) < 2:
        raise NotApplicable(f"{wanted} is mostly the same for all {len(clients)} clients, or for all auxiliary windows")
    knowledge = victim.knowledge(extra={"values": auxiliary})
    made, spent = guess(NAME, observation, knowledge, profile.evaluations, profile.trials, victim.seed)
    assert made.property is not None
    guessed = np.array(made.candidates)[made.property.numpy().argmax(axis=1)]
    trivial = constant(1 / len(set(own)))
    return [
        score(
            victim, NAME, THREAT, KNOWS, metric, lambda i: balanced_accuracy(guessed[i], truth[i]),
            {"chance": trivial}, clients, evaluations=spent, n_resamples=profile.n_resamples,
            facts={"property": wanted, "clients": len(clients), **made.facts},
        )
    ]  # fmt: skip
