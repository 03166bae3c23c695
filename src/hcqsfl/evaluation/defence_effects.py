"""What a defence takes from the strongest attacker: paired by subject with no defence, corrected for all settings.

The strongest attack is chosen for each setting by itself, adaptive ones included: who is kept from reading plainly
reads another way. Since more attacks are made where there is a defence, a difference upwards may be the best of more
draws; one downwards is found in spite of that. Differences are of scores, in the metric's own units; an interval is
over subjects, and what another training would change is not in it.

Source: Holm (1979), A simple sequentially rejective multiple test procedure, for the correction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.attack_tables import number
from hcqsfl.evaluation.pooled import OF_SCORE, POOLED, Difference, differences, mean_score, pool
from hcqsfl.evaluation.privacy_curve import counts, panel, panels
from hcqsfl.evaluation.significance import holm

UNDEFENDED = "none: none"
"""The setting that all others are compared with."""

LEVEL = 0.05
"""The chance of any false finding within one panel, measure and trunk."""

Tried = Mapping[str, Mapping[tuple[str, str, str], Sequence[Row]]]
"""Setting to attack, threat and knowledge to the rows of its trainings."""


@dataclass(frozen=True)
class Effect:
    """A setting beside no defence, by one measure, with one trunk.

    Attributes:
        panel: what attackers are after, and where they read.
        arm: the trunk.
        difference: the score of the strongest attack with the defence minus that of the strongest without one.
        p_holm: adjusted over all settings of this panel, metric and trunk.
    """

    panel: str
    arm: str
    difference: Difference
    p_holm: float

    @property
    def defence(self) -> str:
        """``name: strength``."""
        return self.difference.arm

    @property
    def metric(self) -> str:
        """What is scored."""
        return self.difference.metric

    @property
    def lowers(self) -> bool:
        """Whether less is found than without a defence, beyond doubt."""
        return self.p_holm < LEVEL and (self.difference.value < 0) == (self.difference.better == "higher")

    @property
    def raises(self) -> bool:
        """Whether more is found than without a defence, beyond doubt."""
        return self.p_holm < LEVEL and not self.lowers


def effects(rows: Sequence[Row]) -> list[Effect]:
    """Compare every setting with no defence, wherever there is a leak without one.

    Args:
        rows: of attacks, ``defence`` being ``name: strength``; rows that do not tell their subjects' contributions are
            left out, and so is everything where no defence was not tried.
    """
    told: dict[tuple[str, str, str], dict[str, dict[tuple[str, str, str], list[Row]]]] = {}
    for row in rows:
        if counts(row) and POOLED not in row.facts and row.facts.get(OF_SCORE):
            tried = told.setdefault((panel(row), row.metric, row.arm), {}).setdefault(row.defence, {})
            tried.setdefault((row.attack, row.threat, row.knowledge), []).append(row)
    found = []
    for name in panels(rows):
        for (where, _, arm), by_defence in told.items():
            if where == name:
                found += _beside_none(name, arm, by_defence)
    return found


def _beside_none(name: str, arm: str, tried: Tried) -> list[Effect]:
    if UNDEFENDED not in tried:
        return []
    without = _strongest(tried[UNDEFENDED])
    if not (pool(without) or without)[0].leaks:
        return []
    compared: list[Difference] = []
    for defence, attacks in tried.items():
        if defence != UNDEFENDED:
            sides = _as(without, UNDEFENDED) + _as(_strongest(attacks), defence)
            compared += differences(sides, defence, UNDEFENDED)
    adjusted = holm([each.p_value for each in compared])
    return [Effect(name, arm, each, 1.0 if p is None else p) for each, p in zip(compared, adjusted, strict=True)]


def _strongest(attacks: Mapping[tuple[str, str, str], Sequence[Row]]) -> Sequence[Row]:
    """Return the rows of the attack that finds most, as a mean over its trainings."""
    sign = 1 if next(iter(attacks.values()))[0].better == "higher" else -1
    return max(attacks.values(), key=lambda rows: sign * mean_score(rows)[0])


def _as(rows: Sequence[Row], side: str) -> list[Row]:
    """Return rows as those of one attack, so that differing ones are paired."""
    return [replace(row, arm=side, attack="the strongest", threat="", knowledge="", defence="") for row in rows]


def sentences(held: Sequence[Effect]) -> list[str]:
    """Say, for the first measure of each panel, which settings leave less than no defence does, and which more."""
    said = []
    first = dict(reversed([(each.panel, each.metric) for each in held]))
    for name, arm in dict.fromkeys((each.panel, each.arm) for each in held):
        mine = [each for each in held if (each.panel, each.arm, each.metric) == (name, arm, first[name])]
        if not mine:  # with this trunk nothing leaked by that measure
            continue
        less, more = [e.defence for e in mine if e.lowers], [e.defence for e in mine if e.raises]
        told = f"{name}, {arm} trunk, {first[name]}: {len(less)} of {len(mine)} settings leave the strongest attacker "
        told += "less than no defence does, after Holm's correction"
        told += f" ({', '.join(less)})" if less else ""
        said.append(told + (f"; more is found with {', '.join(more)}, where more was tried" if more else ""))
    return said


def markdown(held: Sequence[Effect]) -> str:
    """Return a table for each panel and measure: a line a setting, a column a trunk; nothing where nothing leaked."""
    said = []
    for name, metric in dict.fromkeys((each.panel, each.metric) for each in held):
        mine = [each for each in held if (each.panel, each.metric) == (name, metric)]
        arms = list(dict.fromkeys(each.arm for each in mine))
        found = {(each.defence, each.arm): each for each in mine}
        said += [
            f"## Beside no defence: {name}, {metric}",
            "",
            f"What the strongest attacker finds (with no defence: {', '.join(_without(mine, arm) for arm in arms)}), "
            "the difference from no defence with its 95 % interval over subjects, and p after Holm's correction over "
            f"the settings of a trunk; bold below {LEVEL}.",
            "",
            f"| Defence | Strength | {' | '.join(arms)} |",
            f"|---|---|{'---|' * len(arms)}",
        ]
        for setting in dict.fromkeys(each.defence for each in mine):
            defence, _, strength = setting.partition(": ")
            cells = [_cell(found.get((setting, arm))) for arm in arms]
            said.append(f"| {defence} | {strength} | {' | '.join(cells)} |")
        said.append("")
    return "\n".join(said)


def _without(held: Sequence[Effect], arm: str) -> str:
    scores = [each.difference.scores[1] for each in held if each.arm == arm]
    return f"{arm} {number(scores[0])}"


def _cell(effect: Effect | None) -> str:
    if effect is None:
        return "–"
    d = effect.difference
    told = f"{d.value:+.3f} [{d.low:+.2f}, {d.high:+.2f}]".replace("-", "−")
    told = f"**{told}**" if effect.lowers or effect.raises else told
    p = "p < 0.001" if effect.p_holm < 0.001 else f"p {effect.p_holm:.3f}"
    return f"{number(d.scores[0])}, {told}, {p}"
