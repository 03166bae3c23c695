"""Evasion by flows (A14): attacks that a detector catches, changed as their sender could, until they pass as benign.

And by flows past a circuit on an imperfect machine (A15).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from hcqsfl.adversarial import evasion
from hcqsfl.adversarial.evasion.attack import Effort
from hcqsfl.adversarial.evasion.flow_rules import FREE
from hcqsfl.adversarial.evasion.flows import FlowRegion, region_of
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.clustered import Statistic
from hcqsfl.models.predict import predict
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites import evasion_checks, evasion_quantum
from hcqsfl.recipes.suites.evasion_sweep import TPR, Found, Sweep, chosen, false_alarms, units
from hcqsfl.recipes.victim import Victim

ATTACKS = ("caa", "capgd", "genetic")
KNOWLEDGE = {"gradients": "white box", "scores": "black box, scores"}
EPSILONS = {"smoke": (0.25, 0.5, 1.0, 2.0), "paper": (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)}
EVADED = "evasion rate of flows that were caught"
DETECTION = "robust balanced accuracy, attack or benign"


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return the cases of one training on TON_IoT's network flows.

    Raises:
        ValueError: there is no benign class to pass as.
    """
    if victim.windows.classes[0] != "normal":
        raise ValueError(f"flows evade towards benign traffic, but the classes are {', '.join(victim.windows.classes)}")
    sweep = sweep_of(victim, profile)
    listed = [Case(f"{name}/T9", partial(_rows, sweep, name)) for name in ATTACKS]
    listed += [
        Case(f"capgd/T9/transfer from {arm}", partial(_transfer, sweep, arm))
        for arm in victim.twins()
        if arm in profile.arms
    ]
    listed.append(Case("gradient_masking/T9", partial(evasion_checks.flow_rows, sweep)))
    return listed + evasion_quantum.cases(sweep, "capgd", (EVADED, evaded, True))


def sweep_of(victim: Victim, profile: Profile) -> Sweep:
    """Return a detector and some of the test set's attack flows that it catches.

    Raises:
        ValueError: it catches none.
    """
    network = victim.networks()[0].eval().to(profile.device)
    x, y = victim.prepared.x["test"], victim.prepared.y["test"]
    caught = np.flatnonzero((y.numpy() != 0) & (predict(network, x).argmax(dim=1).numpy() != 0))
    if not len(caught):
        raise ValueError(
            f"{victim.arm.name}, seed {victim.seed} catches none of the test set's attacks: nothing could "
            "evade it; train it for longer"
        )
    index = chosen(victim, caught, profile.n_targets)
    epsilons = EPSILONS.get(profile.name, EPSILONS["paper"])

    most = victim.prepared.training.x[:, :, 0].max(axis=0)

    def region(epsilon: float, rows: np.ndarray) -> FlowRegion:
        return region_of(victim.prepared.test.take(index[rows]), victim.prepared.scaler, most, epsilon)

    return Sweep(
        victim, profile, network, x[index], y[index], units(victim, index), Goal(y[index], towards=0), region, epsilons
    )


def _rows(sweep: Sweep, name: str) -> Sequence[Row]:
    return _scored(sweep, name, sweep.curve(name), KNOWLEDGE[evasion.make(name).access])


def _transfer(sweep: Sweep, arm: str) -> Sequence[Row]:
    twin = sweep.victim.twin(arm).networks()[0].eval().to(sweep.profile.device)
    effort = Effort(sweep.effort.steps, 1, 1)
    curve = sweep.curve("capgd", f"from {arm}", network=twin, stop=False, effort=effort)
    return _scored(sweep, "capgd", curve, f"transfer from {arm}")


def _scored(sweep: Sweep, name: str, curve: Sequence[Found], knowledge: str) -> list[Row]:
    prepared = sweep.victim.prepared
    benign = predict(sweep.network, prepared.x["test"][prepared.y["test"] == 0])
    alarms = alarm(benign)
    false = float((benign.argmax(dim=1) != 0).float().mean())

    def detection(logits: Tensor) -> Statistic:
        caught = logits.argmax(dim=1).numpy() != 0
        return lambda rows: float((caught[rows].mean() + 1 - false) / 2)

    def falsely(logits: Tensor) -> Statistic:
        scores = alarm(logits)
        return lambda rows: false_alarms(scores[rows], alarms)

    rows = []
    for found, by_chance in zip(curve, sweep.curve("noise"), strict=True):
        region = found.region
        if not isinstance(region, FlowRegion) or region.broken:
            raise RuntimeError(f"{name} showed the model flows that break rules: this is a fault of the repair")
        trivial = {"no change": sweep.clean().logits, "random change that can be sent": by_chance.logits}
        facts = {
            "flows shown to the model": region.shown,
            "flows that broke a rule": region.broken,
            "median change of flows that evade": _cost(region, found),
        }
        for metric, statistic, higher in (
            (EVADED, evaded, True),
            (DETECTION, detection, False),
            (f"FPR at {TPR:.0%} TPR, attacks changed", falsely, True),
        ):
            rows.append(sweep.row(name, found, knowledge, metric, statistic, trivial, higher=higher, facts=facts))
    return rows


def evaded(logits: Tensor) -> Statistic:
    """Return what scores flows by the share that passes as benign."""
    passed = logits.argmax(dim=1).numpy() == 0
    return lambda rows: float(passed[rows].mean())


def alarm(logits: Tensor) -> np.ndarray:
    """Return how sure the detector is of an attack ``(n,)``: the best class of attack above benign."""
    scores: np.ndarray = (logits[:, 1:].amax(dim=1) - logits[:, 0]).numpy()
    return scores


def _cost(region: FlowRegion, found: Found) -> dict[str, Any]:
    """Return the median of what evading flows added, in the units of the recording."""
    passed = found.predicted == 0
    added = region.sent - region.raw
    return {
        name: float(np.median(added[passed, region.channels.index(name)])) if passed.any() else None
        for name in (*FREE, "src_ip_bytes")
    }
