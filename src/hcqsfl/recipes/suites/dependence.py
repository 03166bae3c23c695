"""Dependence: how much smashed data hang on the windows, set beside what attacks make of them.

No attack, and no measure of privacy: a row here counts for no leak. It is here so that both can be read side by side,
since the literature reports distance correlation as if it were one.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from hcqsfl.evaluation.attack_rows import DEPENDENCE, Row
from hcqsfl.privacy.metrics.dependence import MAX_DIMENSIONS, distance_correlation, mutual_information
from hcqsfl.privacy.observation import NotApplicable
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites.scoring import defence_of
from hcqsfl.recipes.victim import Victim

ROWS = {"smoke": 256, "paper": 1024}
"""Profile to windows that are compared at most."""


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return the measures of dependence on one training."""
    return [Case(f"{DEPENDENCE}/T1", partial(measured, victim, profile))]


def measured(victim: Victim, profile: Profile) -> Sequence[Row]:
    """Return distance correlation and, for a few smashed values, mutual information, beside what independence reads."""
    targets, truth, _ = victim.targets(ROWS.get(profile.name, 256))
    try:
        smashed = victim.observe("T1", targets).stacked().flatten(1).numpy()
    except NotApplicable as refusal:
        return [_row(victim, "distance correlation", None, None, "", 0, str(refusal))]
    x = truth.x.flatten(1).numpy()
    if len(x) < 16:
        return [_row(victim, "distance correlation", None, None, "", len(x), "fewer than 16 windows crossed")]
    found = distance_correlation(x, smashed, victim.seed)
    facts = {"p": found.p, "floor": found.floor, "estimator": "squared, unbiased"}
    rows = [_row(victim, "distance correlation", found.value, found.floor, "95 % of permutations", len(x), "", facts)]
    if smashed.shape[1] <= MAX_DIMENSIONS:
        first = principal(x)
        told = mutual_information(first, smashed)
        order = numpy_generator(victim.seed, "exchanged").permutation(len(x))
        chance = mutual_information(first, smashed[order])
        facts = {"of": "the windows' first principal component", "unit": "nats"}
        rows.append(_row(victim, "mutual information", told, chance, "windows exchanged", len(x), "", facts))
    return rows


def principal(x: np.ndarray) -> np.ndarray:
    """Return the first principal component ``(n,)`` of rows ``x (n, m)``."""
    centred = x - x.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    component: np.ndarray = left[:, 0] * sizes[0]
    return component


def _row(
    victim: Victim,
    metric: str,
    value: float | None,
    floor: float | None,
    floor_name: str,
    n: int,
    reason: str,
    facts: dict[str, object] | None = None,
) -> Row:
    return Row(
        "privacy",
        DEPENDENCE,
        "–",
        "T1",
        "the windows themselves: a measure, no attack",
        defence_of(victim),
        victim.arm.name,
        victim.fold.name,
        victim.seed,
        metric,
        "higher",
        value,
        floor,
        floor_name,
        gain=None if value is None or floor is None else value - floor,
        n_rows=n,
        n_units=n,
        facts={"not_applicable": reason} if reason else dict(facts or {}),
    )
