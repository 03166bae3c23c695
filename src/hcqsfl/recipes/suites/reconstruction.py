"""Windows: how closely they are reconstructed from what crossed the cut."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.models.defence import Defence
from hcqsfl.privacy import attacks, defences
from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.metrics import reconstruction as metrics
from hcqsfl.privacy.observation import Target
from hcqsfl.randomness import derive
from hcqsfl.recipes.attack import Case, Profile
from hcqsfl.recipes.suites.scoring import guess, mean_of, or_refused, score, units_of
from hcqsfl.recipes.victim import Truth, Victim

ATTACKS = {
    "decoder_inversion": ("T2", "T1"),
    "white_box_optimisation": ("T2",),
    "sdar": ("T1",),
    "fora": ("T1",),
    "unsplit": ("T1",),
}
"""Attack to the threat models under which it is run."""

UNAWARE = "auxiliary people"
AWARE = "auxiliary people, the defence"
LINKING = "auxiliary people, the defence, which rows are one window"


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return the reconstruction attacks on one training.

    Where the clients defend themselves, each attack runs as one who does not know, as one who knows, and as one who
    averages releases besides; where they do not, all three are one.
    """
    asked = Asked(victim, profile)
    known = (UNAWARE,) if victim.config.defence.name == "none" else (UNAWARE, AWARE, LINKING)
    return [
        Case(f"{attack}/{threat}/{knows}", partial(_rows, asked, attack, threat, knows))
        for attack, threats in ATTACKS.items()
        for threat in threats
        for knows in (known if attacks.make(attack).adaptive else known[:1])
    ]


class Asked:
    """The windows asked about, chosen when the first case runs."""

    def __init__(self, victim: Victim, profile: Profile) -> None:
        self.victim, self.profile = victim, profile

    @cached_property
    def targets(self) -> tuple[list[Target], Truth, dict[int, list[Target]]]:
        """The targets, the truth about them, and their other releases."""
        return self.victim.targets(self.profile.n_targets)

    def knowledge(self, knows: str) -> Knowledge:
        """Return what an attacker of a kind knows."""
        made: Knowledge = self.victim.knowledge()
        if knows == UNAWARE:
            return replace(made, extra={"match": self.victim.config.defence.name == "none"})
        made = replace(made, defence=defence_as_known(self.victim))
        return replace(made, releases=self.targets[2]) if knows == LINKING else made


def defence_as_known(victim: Victim) -> Defence | None:
    """Return the clients' defence as an attacker runs it: with its settings, and noise of its own."""
    d = victim.config.defence
    if d.name == "none":
        return None
    n_outputs = len(victim.windows.classes)
    return defences.make(d.name, derive(victim.seed, "attacker"), "attacker", n_outputs, **d.options)


def _rows(asked: Asked, attack: str, threat: str, knows: str) -> Sequence[Row]:
    def make() -> Sequence[Row]:
        targets, truth, _ = asked.targets
        observation = asked.victim.observe(threat, targets)
        knowledge, profile, seed = asked.knowledge(knows), asked.profile, asked.victim.seed
        made, spent = guess(attack, observation, knowledge, profile.evaluations, profile.trials, seed)
        assert made.windows is not None
        return scored(asked.victim, attack, threat, knows, made.windows.numpy(), truth, knowledge, spent, made.facts,
                      profile.n_resamples)  # fmt: skip

    return or_refused(asked.victim, attack, threat, knows, "r", make)


def scored(
    victim: Victim,
    attack: str,
    threat: str,
    knows: str,
    windows: np.ndarray,
    truth: Truth,
    knowledge: Knowledge,
    spent: int,
    facts: Mapping[str, Any],
    n_resamples: int,
) -> list[Row]:
    """Return a row for each metric of a reconstruction ``(n, n_chans, n_times)``."""
    found = metrics.score(
        windows,
        truth.x.numpy(),
        truth.y.numpy(),
        knowledge.x.numpy(),
        knowledge.y.numpy(),
        knowledge.n_outputs,
        channels=knowledge.channels if len(knowledge.channels) == windows.shape[1] else (),
        sfreq=knowledge.sfreq,
        seed=victim.seed,
    )
    rows = []
    for each in found:
        places = each.scored
        if len(places):
            rows.append(
                score(
                    victim,
                    attack,
                    threat,
                    knows,
                    each.metric,
                    mean_of(each.own[places]),
                    {name: mean_of(values[places]) for name, values in each.baselines.items()},
                    units_of(truth.subject[places]),
                    higher=each.better == "higher",
                    evaluations=spent,
                    facts={**facts, **each.facts},
                    n_resamples=n_resamples,
                )
            )
    return rows
