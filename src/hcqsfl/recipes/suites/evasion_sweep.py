"""One attack at several radii, against one model: who is attacked, what came of it, and the rows that say so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl.adversarial import evasion
from hcqsfl.adversarial.evasion.attack import Effort
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Ball, Region
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.clustered import Statistic, compare
from hcqsfl.evaluation.pooled import contributions
from hcqsfl.models.predict import predict
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.profiles import Profile
from hcqsfl.recipes.suites.scoring import defence_of
from hcqsfl.recipes.victim import Victim

TPR = 0.95


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack found at one radius.

    Attributes:
        epsilon: the radius.
        x: ``(n, n_chans, n_times)`` the windows as changed; as they were where the change would be too large.
        logits: ``(n, n_outputs)`` of the attacked model.
        gradients, queries: asked for at this radius, for all windows together.
        region: where it was found.
    """

    epsilon: float
    x: Tensor
    logits: Tensor
    gradients: int
    queries: int
    region: Region

    @property
    def predicted(self) -> np.ndarray:
        """``(n,)`` classes that the model sees."""
        return self.logits.argmax(dim=1).numpy()


@dataclass(eq=False)
class Sweep:
    """One model, some windows, and what attacks find around them.

    Attributes:
        victim, profile: what is attacked, and how hard.
        network: that is attacked and that judges.
        x, y: windows ``(n, n_chans, n_times)`` and labels.
        units: whose each window is, or its own number where rows are independent.
        goal: of the attacks.
        region: radius and places of some windows to where the attacks may go.
        epsilons: radii, ascending.
        held: what was found so far, by name.
    """

    victim: Victim
    profile: Profile
    network: nn.Module
    x: Tensor
    y: Tensor
    units: list[str]
    goal: Goal
    region: Callable[[float, np.ndarray], Region]
    epsilons: tuple[float, ...]
    held: dict[str, list[Found]] = field(default_factory=dict)

    @property
    def effort(self) -> Effort:
        """What an attack may ask for each window, by the profile's number of evaluations."""
        evaluations = self.profile.evaluations
        restarts = max(1, min(5, evaluations // 250))
        return Effort(max(1, min(50, evaluations // (15 * restarts))), restarts, evaluations)

    def clean(self) -> Found:
        """Return what the model says of the windows as they are."""
        if "clean" not in self.held:
            self.held["clean"] = [Found(0.0, self.x, predict(self.network, self.x), 0, 0, Ball(self.x, 0.0))]
        return self.held["clean"][0]

    def curve(self, attack: str, label: str = "", **how: Any) -> list[Found]:
        """Return what an attack finds at every radius; asked again, it is not run again.

        Args:
            attack: its name.
            label: tells curves of one attack apart that differ in how it is run.
            how: as in ``run``.
        """
        name = f"{attack}/{label}"
        if name not in self.held:
            found: list[Found] = []
            if evasion.make(attack).smallest:
                nearest = self.run(attack, self.epsilons[-1], **how)
                found = [self._within(epsilon, nearest) for epsilon in self.epsilons]
            else:
                for epsilon in self.epsilons:
                    found.append(self.run(attack, epsilon, found[-1] if found else None, **how))
            self.held[name] = found
        return self.held[name]

    def run(
        self,
        attack: str,
        epsilon: float,
        before: Found | None = None,
        *,
        network: nn.Module | None = None,
        judge: nn.Module | None = None,
        effort: Effort | None = None,
        stop: bool = True,
        draws: int = 1,
    ) -> Found:
        """Run an attack at one radius.

        Args:
            attack: its name.
            epsilon: the radius.
            before: what it found at a smaller radius: signals that fooled the model there need no more search, since
                the smaller ball lies in the larger one.
            network: that is attacked, such as a twin; the sweep's own unless given.
            judge: that says what came of it; the sweep's own unless given.
            effort: in place of the profile's.
            stop: as in ``Goal``.
            draws: as in ``Oracle``.
        """
        named = evasion.make(attack)
        left = np.arange(len(self.y))
        own = network is None and judge is None and stop and named.access != "nothing"
        if before is not None and own and isinstance(before.region, Ball):
            left = np.flatnonzero(~self.fooled(before.logits))
        x = self.x.clone() if before is None else before.x.clone()
        oracle = Oracle(network or self.network, named.access, draws)
        region = self.region(epsilon, left)
        if len(left):
            rows = torch.from_numpy(left)
            goal = Goal(self.goal.y[rows], self.goal.towards, stop)
            x[rows] = named.run(oracle, region, goal, effort or self.effort, self.victim.seed)
        return Found(epsilon, x, predict(judge or self.network, x), oracle.gradients, oracle.queries, region)

    def fooled(self, logits: Tensor) -> np.ndarray:
        """Return on which windows the model errs as wanted ``(n,)``."""
        return Goal(self.goal.y, self.goal.towards).fooled(logits, torch.arange(len(self.y))).numpy()

    def _within(self, epsilon: float, nearest: Found) -> Found:
        """Return the nearest adversarial windows that lie within a radius, and the others as they were."""
        inside = (nearest.x - self.x).flatten(1).abs().amax(dim=1) <= epsilon
        x = torch.where(inside.view(-1, 1, 1), nearest.x, self.x)
        logits = predict(self.network, x)
        return Found(epsilon, x, logits, nearest.gradients, nearest.queries, Ball(self.x, epsilon))

    def row(
        self,
        attack: str,
        found: Found,
        knowledge: str,
        metric: str,
        statistic: Callable[[Tensor], Statistic],
        trivial: Mapping[str, Tensor],
        *,
        higher: bool,
        facts: Mapping[str, Any] | None = None,
    ) -> Row:
        """Return a row: an attack at one radius beside the best of trivial changes.

        Args:
            attack: its name.
            found: what it found.
            knowledge: of the attacker, in words.
            metric: what is scored.
            statistic: from logits ``(n, n_outputs)`` to what scores rows of them.
            trivial: name to logits after a trivial change.
            higher: whether a higher score is a better attack.
            facts: whatever else a reader should know.
        """
        everything = np.arange(len(self.y))
        scores = {name: statistic(logits)(everything) for name, logits in trivial.items()}
        best = (max if higher else min)(scores, key=lambda name: scores[name])
        held = compare(
            statistic(found.logits),
            statistic(trivial[best]),
            self.units,
            self.victim.seed,
            min(self.profile.n_resamples, 1000),
            higher=higher,
        )
        each = {"gradients": found.gradients / len(self.y), "queries": found.queries / len(self.y)}
        return Row(
            "evasion",
            attack,
            evasion.make(attack).id,
            "T9",
            f"{knowledge}, eps {found.epsilon:g}",
            defence_of(self.victim),
            self.victim.arm.name,
            self.victim.fold.name,
            self.victim.seed,
            metric,
            "higher" if higher else "lower",
            _finite(held.score.value),
            _finite(held.baseline),
            best,
            held.score.low,
            held.score.high,
            _finite(held.gain.value),
            held.gain.low,
            held.gain.high,
            len(self.y),
            held.score.n_units,
            -(-(found.gradients + found.queries) // len(self.y)),
            facts={
                "epsilon": found.epsilon,
                "asked for each window": each,
                **({} if self.profile.device == "cpu" else {"device": self.profile.device}),
                "baselines": scores,
                **contributions(held),
                **(facts or {}),
            },
        )

    def statistics(self) -> dict[str, tuple[Callable[[Tensor], Statistic], bool]]:
        """Return the metrics of classes: name to what scores logits, and whether higher is a better attack."""
        y = self.y.numpy()
        right = self.clean().predicted == y

        def accuracy(logits: Tensor) -> Statistic:
            hit = logits.argmax(dim=1).numpy() == y
            return lambda rows: balanced(hit[rows], y[rows])

        def success(logits: Tensor) -> Statistic:
            missed = logits.argmax(dim=1).numpy() != y
            return lambda rows: _mean(missed[rows][right[rows]])

        return {ACCURACY: (accuracy, False), SUCCESS: (success, True)}


ACCURACY = "robust balanced accuracy"
SUCCESS = "success on windows classified correctly"


def balanced(hit: np.ndarray, y: np.ndarray) -> float:
    """Return the mean over classes of the share of their rows that are hit; classes without a row are left out."""
    counts = np.bincount(y)
    hits = np.bincount(y, hit)
    return float((hits[counts > 0] / counts[counts > 0]).mean()) if len(y) else float("nan")


def false_alarms(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the share of negatives above the threshold that 95 % of positives reach, given both's scores."""
    if not len(positive) or not len(negative):
        return float("nan")
    threshold = np.sort(positive)[int(np.floor((1 - TPR) * len(positive)))]
    return float((negative >= threshold).mean())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def is_flows(victim: Victim) -> bool:
    """Return whether the rows are TON_IoT's network flows, one a window, for which there are rules."""
    data = victim.config.data
    return data.name == "ton_iot" and data.options.get("source", "network") == "network" and victim.windows.n_times == 1


def chosen(victim: Victim, index: np.ndarray, n: int) -> np.ndarray:
    """Return up to ``n`` of the test windows at ``index``, drawn evenly over subjects and classes, in ascending order.

    Where rows are independent, they are drawn evenly over strata instead.
    """
    test = victim.prepared.test
    by_subject = victim.fold.by == "subject"
    group = np.array([f"{s}/{c}" for s, c in zip(test.subject, test.y, strict=True)]) if by_subject else test.stratum
    drawn = numpy_generator(victim.seed, "evasion", "windows").permutation(index)
    turn = np.empty(len(drawn), dtype=np.int64)
    for name in np.unique(group[drawn]):
        of = group[drawn] == name
        turn[of] = np.arange(of.sum())
    return np.sort(drawn[np.argsort(turn, kind="stable")[:n]])


def units(victim: Victim, index: np.ndarray) -> list[str]:
    """Return whose each test window is, or its own number where rows are independent."""
    if victim.fold.by == "subject":
        return [str(name) for name in victim.prepared.test.subject[index]]
    return [str(i) for i in index]
