"""From an attack's scores and those of trivial guesses to one row of the table."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.clustered import Statistic, compare, time_blocks
from hcqsfl.evaluation.pooled import contributions
from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget, Guess, Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.recipes.victim import Truth, Victim


def mean_of(values: np.ndarray) -> Statistic:
    """Return the statistic that is the mean of ``values (n,)`` over rows."""
    values = np.asarray(values, dtype=np.float64)
    return lambda rows: float(values[rows].mean())


def constant(value: float) -> Statistic:
    """Return the statistic that is the same on any rows: chance, say."""
    return lambda rows: value


ROW = "row "
"""How a unit begins that is a single row, and so is no unit of another training."""


def units_of(subject: Sequence[str] | np.ndarray) -> list[str]:
    """Return what is resampled: subjects, or single rows where there is but one subject."""
    names = [str(name) for name in subject]
    return names if len(set(names)) > 1 else [f"{ROW}{i}" for i in range(len(names))]


def units_in(victim: Victim, truth: Truth, rows: np.ndarray | Sequence[int] | None = None) -> list[str]:
    """Return what is resampled of the rows of a truth: subjects or, where the split is by time, stretches of time.

    Source hosts are no subjects: one of them may send nearly all traffic, in bursts of flows that are alike.
    """
    kept = np.arange(len(truth.index)) if rows is None else np.asarray(rows, dtype=np.int64)
    if victim.fold.by == "subject":
        return units_of(truth.subject[kept])
    recording = victim.prepared.training.recording[truth.index[kept]]
    return time_blocks(recording, truth.start[kept])


def score(
    victim: Victim,
    attack: str,
    threat: str,
    knowledge: str,
    metric: str,
    statistic: Statistic,
    baselines: Mapping[str, Statistic],
    units: Sequence[str],
    *,
    higher: bool = True,
    evaluations: int = 0,
    facts: Mapping[str, Any] | None = None,
    n_resamples: int = 500,
) -> Row:
    """Return a row: the attack beside the best of the trivial guesses.

    Args:
        victim: what was attacked.
        attack: its name.
        threat, knowledge: of the adversary.
        metric: what is scored.
        statistic: scores the attack on some rows.
        baselines: name to what scores a trivial guess on the same rows; the best one on all rows is what the attack has
            to beat.
        units: whose each row is.
        higher: whether a higher score is a better attack.
        evaluations: spent.
        facts: whatever else a reader should know.
        n_resamples: of the bootstrap.
    """
    everything = np.arange(len(units))
    trivial = {name: each(everything) for name, each in baselines.items()}
    if not np.isfinite([statistic(everything), *trivial.values()]).all():
        reason = f"{metric} is not defined on the {len(units)} rows asked about: they are all of one kind"
        return not_applicable(victim, attack, threat, knowledge, metric, reason)
    best = (max if higher else min)(trivial, key=lambda name: trivial[name])
    found = compare(statistic, baselines[best], units, victim.seed, n_resamples, higher=higher)
    named = attacks.make(attack)
    return Row(
        "privacy",
        attack,
        named.id,
        threat,
        knowledge,
        defence_of(victim),
        victim.arm.name,
        victim.fold.name,
        victim.seed,
        metric,
        "higher" if higher else "lower",
        found.score.value,
        found.baseline,
        best,
        found.score.low,
        found.score.high,
        found.gain.value,
        found.gain.low,
        found.gain.high,
        len(units),
        found.score.n_units,
        evaluations,
        facts={
            **(facts or {}),
            "baselines": trivial,
            **{name: _own(each, victim) for name, each in contributions(found).items()},
        },
    )


def _own(influence: Mapping[str, float], victim: Victim) -> dict[str, float]:
    """Return contributions by unit, single rows under a name that no other training has."""
    where = f"{victim.fold.name}, seed {victim.seed}, "
    return {f"{where}{unit}" if unit.startswith(ROW) else unit: value for unit, value in influence.items()}


def not_applicable(victim: Victim, attack: str, threat: str, knowledge: str, metric: str, reason: str) -> Row:
    """Return the row of an attack that has nothing to attack here, with the reason."""
    return Row(
        "privacy",
        attack,
        attacks.make(attack).id,
        threat,
        knowledge,
        defence_of(victim),
        victim.arm.name,
        victim.fold.name,
        victim.seed,
        metric,
        "higher",
        None,
        None,
        "",
        facts={"not_applicable": reason},
    )


def guess(
    name: str, observation: Observation, knowledge: Knowledge, evaluations: int, trials: int, seed: int
) -> tuple[Guess, int]:
    """Run an attack; return what it concluded and how many evaluations it spent."""
    budget = Budget(evaluations, trials)
    return attacks.make(name).run(observation, knowledge, budget, seed), budget.spent


def defence_of(victim: Victim) -> str:
    """Return the run's defence with its strength, in words."""
    d = victim.config.defence
    options = ", ".join(f"{key}={value}" for key, value in d.options.items())
    return f"{d.name}({options})" if options else d.name


def refuse_hidden(victim: Victim) -> None:
    """Refuse an attack on single updates where nobody sees one.

    Raises:
        NotApplicable: updates are aggregated securely.
    """
    scheme = victim.config.federation.secure_aggregation
    if scheme != "none":
        raise NotApplicable(
            f"under secure aggregation ({scheme}) the fed server sees no client's update, only "
            + ("ciphertexts" if scheme == "ckks" else "means of groups")
        )


def or_refused(
    victim: Victim, attack: str, threat: str, knowledge: str, metric: str, rows: Callable[[], Sequence[Row]]
) -> Sequence[Row]:
    """Return the rows, or one that tells why the attack was refused.

    Only ``NotApplicable`` counts as a refusal: anything else is a fault, and stops the suite.
    """
    try:
        return rows()
    except NotApplicable as refusal:
        return [not_applicable(victim, attack, threat, knowledge, metric, str(refusal))]
