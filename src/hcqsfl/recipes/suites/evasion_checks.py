"""Is a model robust, or are its gradients hidden? Named checks that a robust accuracy must pass to be believed.

Source: Athalye, Carlini & Wagner (2018), Obfuscated gradients give a false sense of security, section 3.1; Carlini et
al. (2019), On evaluating adversarial robustness, section 3; Tramèr et al. (2020), On adaptive attacks to adversarial
example defenses.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl.adversarial.evasion.attack import Effort
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.models.predict import predict
from hcqsfl.models.trunks.frame import Trunk
from hcqsfl.randomness import torch_generator
from hcqsfl.recipes.suites.evasion_sweep import Found, Sweep, balanced
from hcqsfl.recipes.suites.scoring import defence_of

SATURATED = 0.99
PROBE = 1e-3


def rows(sweep: Sweep) -> Sequence[Row]:
    """Return one row a check: its score, what it may be at most, and under ``facts`` whether it passed."""
    return _told(sweep, "A13", _checks(sweep))


def flow_rows(sweep: Sweep) -> Sequence[Row]:
    """Return the same for flows, where the genetic search stands in the place of an attack without gradients."""
    return _told(sweep, "A14", _flow_checks(sweep))


def _told(sweep: Sweep, id_: str, checks: Iterable[tuple[str, float, float, str]]) -> list[Row]:
    return [
        Row(
            "evasion",
            "gradient_masking",
            id_,
            "T9",
            "white box",
            defence_of(sweep.victim),
            sweep.victim.arm.name,
            sweep.victim.fold.name,
            sweep.victim.seed,
            name,
            "lower",
            score,
            limit,
            "largest value that passes",
            n_rows=len(sweep.y),
            facts={"passed": score <= limit, "meaning": meaning},
        )
        for name, score, limit, meaning in checks
    ]


def _flow_checks(sweep: Sweep) -> Iterator[tuple[str, float, float, str]]:
    rates = {
        name: np.array([sweep.fooled(found.logits).mean() for found in sweep.curve(name)])
        for name in ("capgd", "genetic", "caa")
    }
    slack = max(0.02, 1.0 / len(sweep.y))
    for name in ("capgd", "caa"):
        excess = float((rates["genetic"] - rates[name]).max())
        yield f"genetic is not stronger than {name}", excess, slack, "how much more often flows evade without gradients"
    yield from _slopes(sweep)
    share = saturated(sweep.network, sweep.x)
    if share is not None:
        yield "angles are not saturated", share, 0.5, f"share of angles beyond {SATURATED} of pi, where tanh is flat"


def _checks(sweep: Sweep) -> Iterator[tuple[str, float, float, str]]:
    accuracies = {name: _accuracies(sweep, sweep.curve(name)) for name in ("fgsm", "pgd", "square")}
    # one window in fifty, and at least one
    slack = max(0.02, 1.0 / len(sweep.y))
    for weak, meaning in (("square", "without gradients"), ("fgsm", "with a single step")):
        excess = float((accuracies["pgd"] - accuracies[weak]).max())
        yield f"{weak} is not stronger than pgd", excess, slack, f"how much lower the accuracy is {meaning}"
    largest = sweep.epsilons[-1]
    few = max(1, sweep.effort.steps // 5)
    short, long = (
        _accuracies(sweep, [sweep.run("pgd", largest, effort=Effort(steps, 1, 1))])[0] for steps in (few, 5 * few)
    )
    yield "five times the steps are not weaker", float(long - short), slack, f"rise of the accuracy from {few} steps"
    # from the window itself: a random place so far away would err without any gradient
    unbounded = sweep.run("pgd", 20.0, effort=Effort(sweep.effort.steps, 1, 1))
    accuracy = float(_accuracies(sweep, [unbounded])[0])
    chance = 1 / len(sweep.victim.windows.classes)
    yield "a ball of 20 deviations leaves no accuracy", accuracy, chance / 2, "accuracy left where anything goes"
    yield from _slopes(sweep)
    share = saturated(sweep.network, sweep.x)
    if share is not None:
        yield "angles are not saturated", share, 0.5, f"share of angles beyond {SATURATED} of pi, where tanh is flat"


def _accuracies(sweep: Sweep, curve: Sequence[Found]) -> np.ndarray:
    y = sweep.y.numpy()
    return np.array([balanced(found.predicted == y, y) for found in curve])


def _slopes(sweep: Sweep) -> Iterator[tuple[str, float, float, str]]:
    oracle = Oracle(sweep.network)
    everything = torch.arange(len(sweep.y))
    goal = replace(sweep.goal, stop=False)

    def loss(x: Tensor) -> Tensor:
        return goal.loss("margin", oracle.scores(x), everything)

    before, slope, _ = oracle.ascend(sweep.x, goal, everything, "margin")
    flat = float((slope.flatten(1).abs().amax(dim=1) < 1e-9).float().mean())
    yield "gradients are not zero", flat, 0.02, "share of windows whose gradient vanishes"
    generator = torch_generator(sweep.victim.seed, "evasion", "probe")
    aside = torch.randn(sweep.x.shape, generator=generator).sign()
    along = loss(sweep.x + PROBE * slope.sign()) - before
    across = loss(sweep.x + PROBE * aside) - before
    worse = float((along <= across).float().mean())
    yield "the loss rises along the gradient", worse, 0.05, "share of windows where a random step raises it as much"


@torch.no_grad()
def saturated(network: nn.Module, x: Tensor) -> float | None:
    """Return the share of the trunk's angles where ``tanh`` is flat, or ``None`` where there is no such trunk."""
    seen: list[Tensor] = []
    trunks = [module for module in network.modules() if isinstance(module, Trunk)]
    if not trunks:
        return None

    def hook(module: nn.Module, given: Any, made: Tensor) -> None:
        seen.append(made.tanh().abs())

    handle = trunks[0].project.register_forward_hook(hook)
    try:
        predict(network, x)
    finally:
        handle.remove()
    return float((torch.cat(seen) > SATURATED).float().mean())
