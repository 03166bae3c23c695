"""One row for several trainings: the mean over folds and seeds, with an interval over subjects.

A subject may be in many folds, so that trainings are not independent. Each row tells what each subject contributes to
its gain (the jackknife's influence values); a subject's contributions are added up over the trainings before they are
squared, whatever the metric is.

Source: Efron & Tibshirani (1993), An introduction to the bootstrap, section 11.2 (jackknife); Cameron, Gelbach & Miller
(2011), Robust inference with multiway clustering, section 2.1, for adding up within clusters before squaring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.stats import t

from hcqsfl.evaluation.attack_rows import DEPENDENCE, Row
from hcqsfl.evaluation.clustered import Comparison

POOLED = "pooled"
"""The fact that lists the trainings of a pooled row."""
INFLUENCE = "influence"
"""The fact that lists what each unit contributes to a row's gain."""
OF_SCORE = "influence on the score"
"""The fact that lists what each unit contributes to a row's score, where that is told."""
RATES = ("accuracy", "auc", "tpr", "fpr", "top-1", "top-5", "eer", "f1", "evasion rate", "success", "recovered")
"""Words in the name of a metric that lies between 0 and 1, where an interval of it ends."""


def contributions(found: Comparison) -> dict[str, dict[str, float]]:
    """Return the two facts that tell what each unit contributes, to six digits."""
    return {
        name: {unit: float(f"{value:.6g}") for unit, value in each.items()}
        for name, each in ((INFLUENCE, found.influence), (OF_SCORE, found.own))
    }


@dataclass(frozen=True)
class Difference:
    """How far the score of an arm lies from that of another under the same attack, on the same folds and seeds.

    The interval is over subjects, not over trainings. Arms that were asked about other rows of a fold, such as the
    flows that each of them catches, are paired in those that they share.

    Attributes:
        attack, threat, knowledge, metric: of the rows.
        better: which score is the better attack's: ``higher`` or ``lower``.
        arm, control: score of the first minus that of the second.
        scores: of the two, mean over the trainings that both have.
        value, low, high: mean over those trainings, with its 95 % interval over subjects.
        n_trainings, n_units: of each arm, and subjects.
        p_value: two-sided, of no difference, by the same Student's t as the interval.
    """

    attack: str
    threat: str
    knowledge: str
    metric: str
    better: str
    arm: str
    control: str
    scores: tuple[float, float]
    value: float
    low: float
    high: float
    n_trainings: int
    n_units: int
    p_value: float

    def __str__(self) -> str:
        told = f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]".replace("-", "−")
        return (
            f"{self.attack}, {self.threat}, {self.knowledge}: {self.metric} of {self.arm} minus {self.control} {told} "
            f"({self.n_trainings} training(s) each, {self.n_units} subjects or flows)"
        )


def differences(rows: Sequence[Row], arm: str, control: str) -> list[Difference]:
    """Compare two arms wherever both were attacked in the same way on the same folds and seeds.

    A subject's contributions are added up over trainings and arms before they are squared, so that the interval is
    that of the paired difference. Settings of which a row does not tell its contributions are left out.
    """
    of: dict[tuple[str, ...], dict[str, dict[tuple[str, int], Row]]] = {}
    for row in rows:
        if row.arm in (arm, control) and row.score is not None and row.facts.get(OF_SCORE):
            setting = (row.attack, row.threat, row.knowledge, row.metric, row.better, row.defence)
            of.setdefault(setting, {}).setdefault(row.arm, {})[row.fold, row.seed] = row
    found = []
    for (attack, threat, knowledge, metric, better, _), arms in of.items():
        one, other = arms.get(arm, {}), arms.get(control, {})
        both = [key for key in one if key in other]
        if not both:
            continue
        n = len(both)
        opposite = [{unit: -own for unit, own in other[key].facts[OF_SCORE].items()} for key in both]
        influence = added([*(one[key].facts[OF_SCORE] for key in both), *opposite])
        ours, theirs = (sum(held[key].score or 0.0 for key in both) / n for held in (one, other))
        value = ours - theirs
        reach = _reach(influence, n)
        found.append(
            Difference(
                attack,
                threat,
                knowledge,
                metric,
                better,
                arm,
                control,
                (ours, theirs),
                value,
                value - reach,
                value + reach,
                n,
                len(influence),
                _p_value(value, influence, n),
            )
        )
    return found


def apart(rows: Sequence[Row], arm: str, control: str) -> list[str]:
    """Say where two arms differ, and how many of so many intervals would exclude zero by chance."""
    found = differences(rows, arm, control)
    if not found:
        return []
    clear = [each for each in found if each.low > 0 or each.high < 0]
    told = (
        f"{arm} and {control} lie apart in {len(clear)} of {len(found)} settings and measures, by paired 95 % "
        f"intervals over subjects; where there is no difference, about {len(found) / 20:.0f} would. What another seed "
        "would change is not in these intervals"
    )
    return [told, *(str(each) for each in clear)]


def mean_score(rows: Sequence[Row]) -> tuple[float, float | None, float | None]:
    """Return the mean score of rows of trainings, and its 95 % interval over subjects where they tell it.

    A single row that does not tell what each unit contributes (there are too many) has its own interval.
    """
    value = sum(row.score or 0.0 for row in rows) / len(rows)
    influence = added([row.facts.get(OF_SCORE) or {} for row in rows])
    if not influence:
        return (value, rows[0].low, rows[0].high) if len(rows) == 1 else (value, None, None)
    reach = _reach(influence, len(rows))
    low, high = value - reach, value + reach
    if any(word in rows[0].metric.lower() for word in RATES):
        return value, max(low, 0.0), min(high, 1.0)
    return value, low, high


def _reach(influence: Mapping[str, float], n: int) -> float:
    """Return half the width of the interval of a mean over ``n`` trainings."""
    return float(t.ppf(0.975, len(influence) - 1)) * _error(influence, n)


def _p_value(value: float, influence: Mapping[str, float], n: int) -> float:
    """Return the two-sided p-value of a mean over ``n`` trainings; 1 where every unit says that there is nothing."""
    error = _error(influence, n)
    if error == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * t.sf(abs(value) / error, len(influence) - 1))


def _error(influence: Mapping[str, float], n: int) -> float:
    """Return the standard error of a mean over ``n`` trainings."""
    return float(sum(v * v for v in influence.values()) ** 0.5 / n)


def pool(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each attack, setting and metric that was scored on several trainings.

    Args:
        rows: of attacks on any number of folds and seeds.

    Returns:
        Rows whose score, baseline, gain and budget are means over trainings. The interval of the gain is by subject; it
        is left out where a row does not tell its subjects' contributions.

    Raises:
        ValueError: two rows of one training say the same of themselves, so that a mean would mix settings.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if POOLED not in row.facts and row.score is not None:
            groups.setdefault(_setting(row), []).append(row)
    for group in groups.values():
        if len({(row.fold, row.seed) for row in group}) < len(group):
            row = group[0]
            raise ValueError(
                f"several rows of one training are {row.attack}, {row.threat}, {row.knowledge}, {row.metric}: they "
                "were made by an earlier version, or a suite does not tell its settings apart; use --overwrite"
            )
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
        reach = _reach(influence, n)
        low, high = gain - reach, gain + reach
    score, score_low, score_high = mean_score(group)
    baselines = [row.baseline for row in group if row.baseline is not None]
    return replace(
        first,
        fold=f"{n} trainings",
        score=score,
        baseline=sum(baselines) / n if len(baselines) == n else None,
        baseline_name=" / ".join(dict.fromkeys(row.baseline_name for row in group)),
        low=score_low,
        high=score_high,
        gain=gain,
        gain_low=low,
        gain_high=high,
        n_rows=sum(row.n_rows for row in group),
        n_units=len(influence) or max(row.n_units for row in group),
        evaluations=-(-sum(row.evaluations for row in group) // n),
        seconds=sum(row.seconds for row in group) / n,
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
