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
from hcqsfl.evaluation.clustered import Statistic
from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.few_labels import renamed
from hcqsfl.privacy.hijacking.server import Hijacker
from hcqsfl.privacy.hijacking.watched import DETECTORS
from hcqsfl.privacy.metrics import reconstruction as metrics
from hcqsfl.privacy.metrics.labels import leak_auc, majority, top_1
from hcqsfl.privacy.observation import Target
from hcqsfl.randomness import derive
from hcqsfl.recipes.hijack import Hijacked, hijack
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites.adversary import as_read, defence_as_known
from hcqsfl.recipes.suites.labels import draw_labelled
from hcqsfl.recipes.suites.scoring import constant, guess, mean_of, or_refused, score, units_in, units_of
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
HIJACKED_ROUNDS = {"smoke": 12}
"""Profile to how many rounds a hijacked training goes on at most; as many as the run unless told."""
HIJACKER_STEPS = {"smoke": 1}
"""Profile to how many steps the hijacker takes for each message; 3 unless told."""
HONEST = {"smoke": 1, "paper": 5}
"""Profile to how many honest trainings tell how often detectors of hijacking are wrong; the option ``honest``
overrides it."""

FRESH = ("gaussian", "dfil")
"""Defences whose noise is drawn anew at each release, and falls to who averages them; others change nothing by it."""

UNAWARE = "auxiliary people"
AWARE = "auxiliary people, the defence"
LINKING = "auxiliary people, the defence, which rows are one window"


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return the reconstruction attacks on one training.

    Where the clients defend themselves, each attack runs as one who does not know, as one who knows, and as one who
    averages releases besides; where they do not, all three are one. Constant noise meets who subtracts releases too.
    """
    asked = Asked(victim, profile)
    listed = [
        Case(f"{attack}/{threat}/{knows}", partial(_rows, asked, attack, threat, knows))
        for attack, threats in ATTACKS.items()
        for threat in threats
        for knows in _run_as(victim, attack, profile)
    ]
    if victim.config.defence.name == "memoised_gaussian":
        listed.append(
            Case(f"difference_inversion/T2/{LINKING}", partial(_rows, asked, "difference_inversion", "T2", LINKING))
        )
    return listed + [Case(f"fsha/T3/{hiding}", partial(_hijacked, asked, hiding)) for hiding in HIDING]


def _run_as(victim: Victim, attack: str, profile: Profile) -> tuple[str, ...]:
    """Return as whom an attack runs: as all who may know of the defence, or as the one whom it suits worst."""
    if not attacks.make(attack).adaptive:
        return (UNAWARE,)
    if profile.all_knowledge or len(known(victim)) == 1:
        return known(victim)
    return (LINKING,) if victim.config.defence.name in FRESH else (AWARE,)


def known(victim: Victim) -> tuple[str, ...]:
    """Return what attackers of a training may know: nothing of its defence, the defence, which rows are one window."""
    if victim.config.defence.name != "none":
        return (UNAWARE, AWARE, LINKING)
    return (UNAWARE,) if victim.config.federation.codec == "none" else (UNAWARE, AWARE)


class Asked:
    """The windows asked about, chosen when the first case runs."""

    def __init__(self, victim: Victim, profile: Profile) -> None:
        self.victim, self.profile = victim, profile

    @cached_property
    def targets(self) -> tuple[list[Target], Truth, dict[int, list[Target]]]:
        """The targets, the truth about them, and their other releases."""
        return self.victim.targets(self.profile.n_targets)

    @property
    def rounds(self) -> int:
        """Rounds of a training whose clients watch for hijacking."""
        own = self.victim.config.federation.rounds
        return min(own, HIJACKED_ROUNDS.get(self.profile.name, own))

    @cached_property
    def rehearsal(self) -> float:
        """The threshold of ``splitout`` that an honest training of another seed, used for nothing else, asks for.

        Of few clients the lowest level says little, so that it is never stricter than the published one.
        """
        with TemporaryDirectory() as folder:
            held = self.honest(folder, -1)
        return min(held.lowest(), *(watch.outliers.threshold for watch in held.watches.values()))

    @cached_property
    def calm(self) -> list[Hijacked]:
        """Honest trainings of further seeds, whose alarms are false; they are trained once for all hijackers."""
        n = int(self.profile.options.get("honest", HONEST.get(self.profile.name, 1)))
        found = []
        for i in range(n):
            with TemporaryDirectory() as folder:
                found.append(self.honest(folder, i))
        return found

    def honest(self, folder: str, number: int) -> Hijacked:
        """Train once more behind an honest server, by a seed of its own."""
        seed = derive(self.victim.seed, "honest training", number)
        return hijack(self.victim, Path(folder), self.rounds, hijacker=None, seed=seed)

    def knowledge(self, knows: str) -> Knowledge:
        """Return what an attacker of a kind knows."""
        made: Knowledge = self.victim.knowledge()
        if knows == UNAWARE:
            return replace(made, extra={"match": known(self.victim) == (UNAWARE,)})
        made = replace(made, defence=defence_as_known(self.victim))
        return replace(made, releases=self.targets[2]) if knows == LINKING else made


def _hijacked(asked: Asked, hiding: float | None) -> Sequence[Row]:
    """Train behind a hijacking server and behind honest ones; score what the hijacker could read.

    Scored by the end of training, and by the first alarm of a client, after which nobody would go on.
    """
    victim, profile = asked.victim, asked.profile
    knowledge = asked.knowledge(UNAWARE)
    knows = f"{UNAWARE}, the training in hand"
    knows += "" if hiding is None else f", hides behind the task (lambda {hiding:g})"

    def make() -> Sequence[Row]:
        with TemporaryDirectory() as taken:
            steps = HIJACKER_STEPS.get(profile.name, 3)
            hijacker = Hijacker(knowledge, hiding, derive(victim.seed, "hijacker"), steps)
            held = hijack(victim, Path(taken), asked.rounds, hijacker=hijacker)
            detected = _detected(asked, held)
            alarm = min((found["first_round"] for found in detected.values() if found["first_round"]), default=None)
            rows: list[Row] = []
            for number, when in (
                (asked.rounds, "the end"),
                (alarm, "first alarm"),
            ):
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


def _detected(asked: Asked, held: Hijacked) -> dict[str, dict[str, Any]]:
    """Return detector to the share of clients that raised an alarm behind a hijacker and behind honest servers."""
    thresholds: dict[str, tuple[str, float | None]] = {name: (name, None) for name in DETECTORS}
    thresholds["splitout, rehearsed"] = ("splitout", asked.rehearsal)
    return {
        shown: {
            "tpr": held.rate(name, threshold),
            "fpr": float(np.mean([calm.rate(name, threshold) for calm in asked.calm])),
            "first_round": held.first_round(name, threshold),
            "honest_trainings": len(asked.calm),
            **({} if threshold is None else {"threshold": threshold}),
        }
        for shown, (name, threshold) in thresholds.items()
    }


def _rows(asked: Asked, attack: str, threat: str, knows: str) -> Sequence[Row]:
    def make() -> Sequence[Row]:
        return reconstructed(asked, attack, threat, knows, asked.knowledge(knows))

    return or_refused(asked.victim, attack, threat, knows, "r", make)


def reconstructed(
    asked: Asked, attack: str, threat: str, knows: str, knowledge: Knowledge, trivial: Knowledge | None = None
) -> list[Row]:
    """Return the rows of one attack with some knowledge; trivial guesses are made of ``trivial``, or of the same."""
    targets, truth, _ = asked.targets
    observation = asked.victim.observe(threat, targets)
    if knowledge.defence is not None:
        observation = as_read(asked.victim, observation)
    profile, seed = asked.profile, asked.victim.seed
    made, spent = guess(attack, observation, knowledge, profile.evaluations, profile.trials, seed)
    rows = scored(asked.victim, attack, threat, knows, _array(made.windows), truth, trivial or knowledge, spent,
                  made.facts, profile.n_resamples)  # fmt: skip
    if made.labels is not None:
        rows += labelled(asked.victim, attack, threat, knows, made.labels, truth, spent, made.facts,
                         profile.n_resamples)  # fmt: skip
    return rows


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
                    units_in(victim, truth, places),
                    higher=each.better == "higher",
                    evaluations=spent,
                    facts={**facts, **each.facts},
                    n_resamples=n_resamples,
                )
            )
    return rows


def labelled(
    victim: Victim,
    attack: str,
    threat: str,
    knows: str,
    scores: Tensor,
    truth: Truth,
    spent: int,
    facts: Mapping[str, Any],
    n_resamples: int,
) -> list[Row]:
    """Return the rows of labels that an attack on windows infers along the way, from probabilities ``(n, n_outputs)``.

    As inferred, and by one who knows one label a class besides, and so which class is which.
    """
    y = truth.y.numpy()
    rows = []
    for n, more in ((0, knows), (1, f"{knows}, 1 label a class")):
        known = draw_labelled(y, n, scores.shape[1], victim.seed) if n else {}
        asked = np.array([i for i in range(len(y)) if i not in known])
        found = (renamed(scores.log(), known) if n else scores).numpy()[asked]
        rows += _label_rows(victim, attack, threat, more, found, y[asked], truth.subject[asked], spent, facts,
                            n_resamples)  # fmt: skip
    return rows


def _label_rows(
    victim: Victim,
    attack: str,
    threat: str,
    knows: str,
    found: np.ndarray,
    y: np.ndarray,
    subject: np.ndarray,
    spent: int,
    facts: Mapping[str, Any],
    n_resamples: int,
) -> list[Row]:
    most = majority(y, found.shape[1])
    metrics_: list[tuple[str, Statistic, dict[str, Statistic]]] = [
        ("leak AUC", lambda rows: leak_auc(found[rows], y[rows]), {"chance": constant(0.5)}),
        ("label top-1", mean_of(top_1(found, y)), {"majority": mean_of(top_1(most, y))}),
    ]
    return [
        score(
            victim,
            attack,
            threat,
            knows,
            metric,
            statistic,
            trivial,
            units_of(subject),
            evaluations=spent,
            facts=facts,
            n_resamples=n_resamples,
        )
        for metric, statistic, trivial in metrics_
    ]


def _array(windows: Tensor | None) -> np.ndarray:
    if windows is None:
        raise ValueError("the attack reconstructed no windows")
    return windows.numpy()
