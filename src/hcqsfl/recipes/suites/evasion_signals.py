"""Evasion of signals (A13) and of circuits on imperfect machines (A15)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from hcqsfl.adversarial import evasion
from hcqsfl.adversarial.evasion.attack import Effort
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.region import Ball
from hcqsfl.adversarial.evasion.standardised import Standardised
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.clustered import Statistic
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites import evasion_checks, evasion_quantum
from hcqsfl.recipes.suites.evasion_sweep import ACCURACY, TPR, Found, Sweep, chosen, false_alarms, units
from hcqsfl.recipes.suites.scoring import not_applicable
from hcqsfl.recipes.victim import Victim

ATTACKS = ("fgsm", "pgd", "autopgd_ce", "autopgd_dlr", "smooth", "square", "hop_skip_jump")
KNOWLEDGE = {"gradients": "white box", "scores": "black box, scores", "decisions": "black box, decisions"}
EPSILONS = {"smoke": (0.02, 0.05, 0.1, 0.2), "paper": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)}


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return the cases of one training on signals."""
    sweep = sweep_of(victim, profile)
    listed = [Case(f"{name}/T9", partial(_rows, sweep, name)) for name in ATTACKS]
    listed += [
        Case(f"pgd/T9/transfer from {arm}", partial(_transfer, sweep, arm))
        for arm in victim.twins()
        if arm in profile.arms
    ]
    listed.append(Case("gradient_masking/T9", partial(evasion_checks.rows, sweep)))
    return listed + evasion_quantum.cases(sweep, "pgd", (ACCURACY, *sweep.statistics()[ACCURACY]))


def sweep_of(victim: Victim, profile: Profile) -> Sweep:
    """Return a model and some of its test windows, to be attacked at the profile's radii."""
    test = victim.prepared.test
    index = chosen(victim, np.arange(len(test)), profile.n_targets)
    x, y = victim.prepared.x["test"][index], victim.prepared.y["test"][index]
    network = as_attacked(victim).to(profile.device)
    epsilons = EPSILONS.get(profile.name, EPSILONS["paper"])
    return Sweep(
        victim,
        profile,
        network,
        x,
        y,
        units(victim, index),
        Goal(y),
        lambda epsilon, rows: Ball(x[rows], epsilon),
        epsilons,
    )


def as_attacked(victim: Victim) -> nn.Module:
    """Return the model as an attacker of the signal meets it: with the scaling of single windows in front."""
    observed = victim.observe("T9").network
    if observed is None:
        raise ValueError("the attacker at inference does not see the model")
    return Standardised(observed) if victim.config.model.scaling == "window" else observed


def physical(victim: Victim, epsilon: float) -> str:
    """Return a radius in the units of the recording, channel by channel."""
    test, scaler = victim.prepared.test, victim.prepared.scaler
    if scaler.method == "standard":
        scale = dict(zip(scaler.numeric.tolist(), scaler.scale.tolist(), strict=True))
    elif scaler.method == "window":
        scale = dict(enumerate(np.median(test.x.std(axis=2), axis=0).tolist()))
    else:
        return "no one size: the scale is not linear"
    of = "median deviation of a window" if scaler.method == "window" else "deviation in training"
    sizes = [f"{test.channels[i]} {epsilon * size:.3g} {test.units[i]}" for i, size in scale.items()]
    return f"{', '.join(sizes)} ({epsilon:g} of the {of})"


def _rows(sweep: Sweep, name: str) -> Sequence[Row]:
    victim, attack = sweep.victim, evasion.make(name)
    knowledge = KNOWLEDGE[attack.access]
    if name == "autopgd_dlr" and (n := len(victim.windows.classes)) < 3:
        reason = f"the difference of logits ratio needs three classes; there are {n}"
        row = not_applicable(victim, "label_norm", "T9", knowledge, "robust balanced accuracy", reason)
        return [replace(row, suite="evasion", attack=name, id=attack.id, better="lower")]
    rows = scored(sweep, name, sweep.curve(name), knowledge)
    if name == "pgd" and len(victim.windows.classes) == 2:
        rows += _ranked(sweep)
    return rows


def scored(sweep: Sweep, name: str, curve: Sequence[Found], knowledge: str, **facts: Any) -> list[Row]:
    """Return the rows of the metrics of classes at every radius, beside no change and noise of the same norm."""
    rows = []
    for found, noise in zip(curve, sweep.curve("noise"), strict=True):
        trivial = {"no change": sweep.clean().logits, "noise of the same norm": noise.logits}
        told = {"physical": physical(sweep.victim, found.epsilon), **facts}
        for metric, (statistic, higher) in sweep.statistics().items():
            rows.append(sweep.row(name, found, knowledge, metric, statistic, trivial, higher=higher, facts=told))
    return rows


def _ranked(sweep: Sweep) -> list[Row]:
    """Score how far a threshold must fall to keep its detections: PGD that goes on until the model is sure."""
    y = sweep.y.numpy()
    clean = sweep.clean().logits

    def statistic(logits: Tensor) -> Statistic:
        scores = np.where(y == 1, (logits[:, 1] - logits[:, 0]).numpy(), (clean[:, 1] - clean[:, 0]).numpy())
        return lambda rows: false_alarms(scores[rows][y[rows] == 1], scores[rows][y[rows] == 0])

    effort = Effort(sweep.effort.steps, 1, 1)
    rows = []
    curve = sweep.curve("pgd", "sure", stop=False, effort=effort)
    for found, noise in zip(curve, sweep.curve("noise"), strict=True):
        trivial = {"no change": clean, "noise of the same norm": noise.logits}
        metric = f"FPR at {TPR:.0%} TPR, positives attacked"
        rows.append(sweep.row("pgd", found, "white box", metric, statistic, trivial, higher=True))
    return rows


def _transfer(sweep: Sweep, arm: str) -> Sequence[Row]:
    twin = as_attacked(sweep.victim.twin(arm)).to(sweep.profile.device)
    effort = Effort(sweep.effort.steps, 1, 1)
    curve = sweep.curve("pgd", f"from {arm}", network=twin, stop=False, effort=effort)
    return scored(sweep, "pgd", curve, f"transfer from {arm}")
