"""Distance correlation and mutual information beside what attacks found: whether the one puts defences in their order.

Source: Vepakomma et al. (2020), NoPeek, for distance correlation as a measure of leakage; that it does not order
defences as attacks do is what this table is there to show, or to refute, on the run at hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from hcqsfl.evaluation.attack_rows import DEPENDENCE, Row
from hcqsfl.evaluation.privacy_curve import points

LEAST = 0.02
"""Leaks that are nearer than this count as equal: they are in no order."""


@dataclass(frozen=True)
class Beside:
    """One defence at one strength with one trunk.

    Attributes:
        defence, strength, arm: which.
        correlation, floor, p: squared distance correlation, what independent data of this size reach, and its p-value.
        information, by_chance: mutual information in nats, and the same of windows exchanged; ``None`` where smashed
            data are too wide for it.
        leak: the most that any reconstruction found, from 0 to 1.
        by: which one.
    """

    defence: str
    strength: str
    arm: str
    correlation: float
    floor: float
    p: float
    information: float | None
    by_chance: float | None
    leak: float
    by: str


def beside(rows: Sequence[Row], metric: str) -> list[Beside]:
    """Return what was measured and what was found, for each setting of ``rows`` that has both.

    Args:
        rows: of attacks, of the task and of dependence, ``defence`` being ``name: strength``.
        metric: of the task.
    """
    told = {(row.defence, row.arm, row.metric): row for row in rows if row.attack == DEPENDENCE}
    found = []
    for point in points(rows, metric, "windows"):
        defence = f"{point.defence}: {point.strength}"
        correlation = told.get((defence, point.arm, "distance correlation"))
        if correlation is None or correlation.score is None:
            continue
        information = told.get((defence, point.arm, "mutual information"))
        found.append(
            Beside(
                point.defence,
                point.strength,
                point.arm,
                correlation.score,
                float(correlation.baseline or 0.0),
                float(correlation.facts.get("p", 1.0)),
                None if information is None else information.score,
                None if information is None else information.baseline,
                point.leak,
                point.by or f"none of {point.n_attacks}",
            )
        )
    return found


def misordered(held: Sequence[Beside]) -> tuple[int, int]:
    """Return how many pairs of settings of one trunk the correlation puts the wrong way round, and of how many."""
    wrong = pairs = 0
    for a, b in combinations(held, 2):
        if a.arm == b.arm and abs(a.leak - b.leak) >= LEAST and a.correlation != b.correlation:
            pairs += 1
            wrong += (a.leak - b.leak) * (a.correlation - b.correlation) < 0
    return wrong, pairs


def sentence(held: Sequence[Beside]) -> str:
    """Say what the table shows; nothing where there are no two settings to compare."""
    wrong, pairs = misordered(held)
    if not pairs:
        return ""
    return (
        f"distance correlation puts {wrong} of {pairs} pairs of settings the other way round than the best "
        "reconstruction does: it is no measure of privacy"
        if wrong
        else f"distance correlation puts all {pairs} pairs of settings in the order of the best reconstruction here"
    )


def markdown(held: Sequence[Beside]) -> str:
    """Return the table in Markdown, from the lowest distance correlation, the safest by its own claim, to the highest.

    Where leaks do not rise from row to row, the order is wrong.
    """
    lines = [
        "| Defence | Strength | Trunk | Distance correlation (independent data) "
        "| Mutual information (windows exchanged) | Leak of windows | Found by |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in sorted(held, key=lambda b: (b.arm, b.correlation)):
        told = "–" if each.information is None else f"{each.information:.2f} ({each.by_chance or 0.0:.2f})"
        lines.append(
            f"| {each.defence} | {each.strength} | {each.arm} | {each.correlation:.3f} ({each.floor:.3f}) | {told} "
            f"| {each.leak:.2f} | {each.by} |"
        )
    said = sentence(held)
    return "\n".join([*lines, "", *([f"{said[0].upper()}{said[1:]}.", ""] if said else [])]) if held else ""
