"""Labels that clients kept: how many of them the server infers."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.metrics.labels import leak_auc, majority, top_1
from hcqsfl.privacy.observation import Observation, Target, as_noise
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites.adversary import as_read, defence_as_known
from hcqsfl.recipes.suites.scoring import constant, guess, mean_of, not_applicable, or_refused, score, units_in
from hcqsfl.recipes.victim import Truth, Victim

LABELLED = {"smoke": (1, 5), "paper": (1, 5, 40)}
"""Profile to how many windows of each class the attacker knows the labels of."""

NOISY = ("max_norm", "marvell")
"""Defences that change the gradient anew at each release."""

FEW = {
    "label_norm": ("",),
    "label_direction": ("",),
    "label_clusters": ("gradient_features", "gradient_smashed", "smashed"),
    "label_matching": ("",),
    "model_completion": ("features", "smashed+features+gradient_features"),
}
"""Attacks that begin with a few labels, and what each of them reads."""


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return the label attacks on one training."""
    asked = _Asked(victim, profile)
    listed = [
        Case("label_norm/T1/gradient_features/0", partial(_scored, asked, "label_norm", "", 0)),
        Case("label_norm/T7", partial(_curious, asked)),
    ]
    if victim.config.defence.name == "randomised_response":
        listed += [
            Case(f"label_denoising/T1/smashed+gradient_features/{n}", partial(_scored, asked, "label_denoising", "", n))
            for n in LABELLED.get(profile.name, (1, 5))
        ]
    if victim.config.defence.name in NOISY:  # drawn anew for each release: falls to whoever averages it away
        listed += [
            Case(f"{name}/T1/gradient_features/{n}/averaged", partial(_scored, asked, name, "", n, averages=True))
            for name in ("label_norm", "label_direction", "label_clusters")
            for n in LABELLED.get(profile.name, (1, 5))
        ]
    return listed + [
        Case(f"{name}/T1/{view or 'gradient_features'}/{n}", partial(_scored, asked, name, view, n))
        for name, views in FEW.items()
        for view in views
        for n in LABELLED.get(profile.name, (1, 5))
    ]


class _Asked:
    """The rows asked about, loaded when the first case runs."""

    def __init__(self, victim: Victim, profile: Profile) -> None:
        self.victim, self.profile = victim, profile

    @cached_property
    def chosen(self) -> tuple[list[Target], Truth, dict[int, list[Target]]]:
        n_labelled = max(LABELLED.get(self.profile.name, (5,))) * len(self.victim.windows.classes)
        return self.victim.targets(self.profile.n_targets + n_labelled)

    @cached_property
    def everything(self) -> Observation:
        return as_read(self.victim, self.victim.observe("T1", self.chosen[0]))

    @cached_property
    def seen(self) -> Observation:
        return self.everything.targets_alone()


def draw_labelled(y: np.ndarray, n: int, n_outputs: int, seed: int) -> dict[int, int]:
    """Return places of up to ``n`` rows of each class, at most half of a class's rows, with their labels."""
    generator = numpy_generator(seed, "labelled", n)
    found: dict[int, int] = {}
    for c in range(n_outputs):
        rows = generator.permutation(np.flatnonzero(y == c))
        found |= {int(i): c for i in rows[: min(n, max(1, len(rows) // 2))]}
    return found


def _scored(asked: _Asked, name: str, view: str, n: int, *, averages: bool = False) -> Sequence[Row]:
    knows = f"{n} labels a class" if n else "class shares"
    knows += ", which rows are one window" if averages else ""
    knows += f"; reads {view or 'gradient_features'}"
    return or_refused(asked.victim, name, "T1", knows, "leak AUC", lambda: _rows(asked, name, view, n, knows, averages))


def _rows(asked: _Asked, name: str, view: str, n: int, knows: str, averages: bool) -> Sequence[Row]:
    victim, profile = asked.victim, asked.profile
    observation, truth = asked.everything if averages else asked.seen, asked.chosen[1]
    y = truth.y.numpy()
    n_outputs = len(victim.windows.classes)
    labelled = draw_labelled(y, n, n_outputs, victim.seed) if n else {}
    extra: Mapping[str, object] = {"view": view} if view else {}
    releases = asked.chosen[2] if averages else {}
    defence = defence_as_known(victim)
    knowledge: Knowledge = victim.knowledge(labelled=labelled, extra=extra, releases=releases, defence=defence)
    made, spent = guess(name, observation, knowledge, profile.evaluations, profile.trials, victim.seed)
    asked_rows = np.array([i for i in range(len(y)) if i not in labelled])
    y_asked = y[asked_rows]
    scores = _array(made.labels)[asked_rows]
    units = units_in(victim, truth, asked_rows)
    facts = {"view": view or "gradient_features", "n_labelled": len(labelled), **made.facts}

    def row(metric: str, statistic, baselines) -> Row:  # type: ignore[no-untyped-def]
        return score(
            victim, name, "T1", knows, metric, statistic, baselines, units,
            evaluations=spent, facts=facts, n_resamples=profile.n_resamples,
        )  # fmt: skip

    rows = [row("leak AUC", lambda i: leak_auc(scores[i], y_asked[i]), {"chance": constant(0.5)})]
    if n:
        blind, _ = guess(
            name, as_noise(observation, victim.seed), knowledge, profile.evaluations, profile.trials, victim.seed
        )
        rows.append(
            row(
                "label top-1",
                mean_of(top_1(scores, y_asked)),
                {
                    "majority": mean_of(top_1(majority(y_asked, n_outputs), y_asked)),
                    "same labels, nothing seen": mean_of(top_1(_array(blind.labels)[asked_rows], y_asked)),
                },
            )
        )
    return rows


def _curious(asked: _Asked) -> Sequence[Row]:
    reason = (
        "a curious client sees its own rows and the global halves, but no row of another client: there is no gradient "
        "of anybody else's to infer a label from"
    )
    return [not_applicable(asked.victim, "label_norm", "T7", "own rows", "leak AUC", reason)]


def _array(scores: object) -> np.ndarray:
    if scores is None:
        raise ValueError("the attack guessed no labels")
    return np.asarray(scores)
