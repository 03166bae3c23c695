"""Windows: how closely they are reconstructed from what crossed the cut."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.models.defence import Defence
from hcqsfl.privacy import attacks, defences
from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.hijacking.server import Hijacker
from hcqsfl.privacy.metrics import reconstruction as metrics
from hcqsfl.privacy.observation import Target
from hcqsfl.randomness import derive
from hcqsfl.recipes.attack import Case, Profile
from hcqsfl.recipes.hijack import hijack
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

HIDING = (None, 0.5)
"""How a hijacking server answers: with its own gradient alone, or with the task's plus so much of its own."""
HIJACKED_ROUNDS = {"smoke": 4}
"""Profile to how many rounds a hijacked training goes on; as many as the run unless told."""

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
    ] + [Case(f"fsha/T3/{hiding}", partial(_hijacked, asked, hiding)) for hiding in HIDING]


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


def _hijacked(asked: Asked, hiding: float | None) -> Sequence[Row]:
    """Train once behind an honest server and once behind a hijacking one; score what the latter could read.

    Scored by the end of training, and by the first alarm of a client, after which nobody would go on.
    """
    victim, profile = asked.victim, asked.profile
    knowledge = asked.knowledge(UNAWARE)
    rounds = min(victim.config.federation.rounds, HIJACKED_ROUNDS.get(profile.name, victim.config.federation.rounds))
    knows = f"{UNAWARE}, the training in hand"
    knows += "" if hiding is None else f", hides behind the task (lambda {hiding:g})"

    def make() -> Sequence[Row]:
        with TemporaryDirectory() as honest, TemporaryDirectory() as taken:
            calm = hijack(victim, Path(honest), rounds, hijacker=None)
            hijacker = Hijacker(knowledge, hiding, derive(victim.seed, "hijacker"))
            held = hijack(victim, Path(taken), rounds, hijacker=hijacker)
            detected = {
                name: {"tpr": held.rate(name), "fpr": calm.rate(name), "first_round": held.first_round(name)}
                for name in ("splitguard", "outliers")
            }
            alarms = [held.first_round(name) for name in detected]
            rows: list[Row] = []
            for number, when in ((rounds, "the end"), (min((n for n in alarms if n), default=None), "first alarm")):
                if number is None:
                    continue
                seen = held.until(number)
                targets, truth, _ = seen.targets(profile.n_targets)
                knew = replace(knowledge, extra={"decoder": held.decoder(number)})
                made, _ = guess("fsha", seen.observe("T3", targets), knew, profile.evaluations, 1, victim.seed)
                facts = {"until": when, "round": number, "detectors": detected}
                rows += scored(victim, "fsha", "T3", f"{knows}; until {when}", _array(made.windows), truth, knowledge,
                               hijacker.evaluations, facts, profile.n_resamples)  # fmt: skip
        return rows

    return or_refused(victim, "fsha", "T3", knows, "r", make)


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
        return scored(asked.victim, attack, threat, knows, _array(made.windows), truth, knowledge, spent, made.facts,
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


def _array(windows: Tensor | None) -> np.ndarray:
    if windows is None:
        raise ValueError("the attack reconstructed no windows")
    return windows.numpy()
