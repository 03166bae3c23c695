"""One row for several trainings: the mean over folds and seeds, with an interval over subjects.

A subject may be in many folds, so that trainings are not independent. Each row tells what each subject contributes to
its gain (the jackknife's influence values); a subject's contributions are added up over the trainings before they are
squared, whatever the metric is.

Source: Efron & Tibshirani (1993), An introduction to the bootstrap, section 11.2 (jackknife); Cameron, Gelbach & Miller
(2011), Robust inference with multiway clustering, section 2.1, for adding up within clusters before squaring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scipy.stats import t

from hcqsfl.evaluation.attack_rows import DEPENDENCE, Row

POOLED = "pooled"
"""The fact that lists the trainings of a pooled row."""
INFLUENCE = "influence"
"""The fact that lists what each unit contributes to a row's gain."""


def pool(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each attack, setting and metric that was scored on several trainings.

    Args:
        rows: of attacks on any number of folds and seeds.

    Returns:
        Rows whose score, baseline and gain are means over trainings. The interval of the gain is by subject; it is left
        out where a row does not tell its subjects' contributions.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if POOLED not in row.facts and row.score is not None:
            groups.setdefault(_setting(row), []).append(row)
    return [_pooled(group) for group in groups.values() if len(group) > 1]


def without_parts(rows: Sequence[Row]) -> list[Row]:
    """Return rows without those that a pooled row stands for."""
    stood_for = {_setting(row) for row in rows if POOLED in row.facts}
    return [row for row in rows if POOLED in row.facts or _setting(row) not in stood_for]


def _setting(row: Row) -> tuple[str, ...]:
    return (row.suite, row.attack, row.threat, row.knowledge, row.defence, row.arm, row.metric)


def _pooled(group: Sequence[Row]) -> Row:
    n, first = len(group), group[0]
    gains = [row.gain for row in group if row.gain is not None]
    gain = sum(gains) / n if len(gains) == n else None
    influence = added([row.facts.get(INFLUENCE) or {} for row in group])
    low = high = None
    if gain is not None and influence and first.attack != DEPENDENCE:
        reach = float(t.ppf(0.975, len(influence) - 1)) * sum(v * v for v in influence.values()) ** 0.5 / n
        low, high = gain - reach, gain + reach
    baselines = [row.baseline for row in group if row.baseline is not None]
    return replace(
        first,
        fold=f"{n} trainings",
        score=sum(row.score or 0.0 for row in group) / n,
        baseline=sum(baselines) / n if len(baselines) == n else None,
        baseline_name=" / ".join(dict.fromkeys(row.baseline_name for row in group)),
        low=None,
        high=None,
        gain=gain,
        gain_low=low,
        gain_high=high,
        n_rows=sum(row.n_rows for row in group),
        n_units=len(influence) or max(row.n_units for row in group),
        evaluations=sum(row.evaluations for row in group),
        seconds=sum(row.seconds for row in group),
        facts={
            POOLED: [f"{row.fold}, seed {row.seed}" for row in group],
            "interval": "jackknife over subjects, whose contributions are added up over trainings",
            **{name: first.facts[name] for name in ("defence",) if name in first.facts},
        },
    )


def added(influences: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Add up contributions by unit; nothing where one training tells none, or there are fewer than two units."""
    if not all(influences):
        return {}
    total: dict[str, float] = {}
    for each in influences:
        for unit, value in each.items():
            total[unit] = total.get(unit, 0.0) + value
    return total if len(total) > 1 else {}
