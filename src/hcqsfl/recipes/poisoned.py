"""Train a federation again, with malicious clients in it, beside the honest one that lost the same clients.

What is scored is the mean over the networks of the last rounds, each on the same test windows: where clients take turns
at a shared trunk, a single round's network tells above all whose turn was last. No round is chosen by anything that is
measured.
"""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from hcqsfl import build
from hcqsfl.adversarial import detection, poisoning
from hcqsfl.adversarial.detection.clients import ClientMonitor, client_rates
from hcqsfl.adversarial.detection.watch import Watch
from hcqsfl.adversarial.poisoning.backdoor import Attack as Backdoor
from hcqsfl.adversarial.poisoning.infiltrate import draw, infiltrate
from hcqsfl.config import Config
from hcqsfl.evaluation import classification
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.bootstrap import intervals
from hcqsfl.evaluation.clustered import clustered_mean
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.evaluation.significance import paired
from hcqsfl.federated import aggregation
from hcqsfl.federated.guard import GUARDS
from hcqsfl.federated.rounds import Federation, FederationError
from hcqsfl.federated.update import Update
from hcqsfl.models.learner import Network
from hcqsfl.models.plan import PROTOCOLS, Plan
from hcqsfl.models.predict import predict_by_lot
from hcqsfl.models.protocols import Setup
from hcqsfl.randomness import torch_generator
from hcqsfl.registry import lookup
from hcqsfl.split import Transport

METRIC = "balanced_accuracy"
LAST = 5
"""At most how many rounds are scored: the last third of them, up to this."""

CALIBRATION = (101, 102)
"""Added to the seed: the honest runs that a detector is calibrated on, none of which is judged."""


@dataclass(frozen=True)
class Shot:
    """A poisoning attack with its options, under the name that tables give it."""

    label: str
    attack: str
    options: Mapping[str, Any] = field(default_factory=dict)


HONEST = Shot("no attack", "")


@dataclass(frozen=True)
class Shield:
    """What stands against it.

    Attributes:
        rule: an aggregation rule; empty for the settings' own.
        detector: whether a calibrated detector screens the clients of a round, and quarantines them.
        guard: which guard, of ``GUARDS``, judges what each turn did to a shared trunk; empty for none.
    """

    rule: str = ""
    detector: bool = False
    guard: str = ""

    @property
    def name(self) -> str:
        """In tables."""
        guard = {"": [], "norm": ["guard"]}.get(self.guard, [f"{self.guard} guard"])
        return " + ".join([self.rule or "as configured", *["detector"] * self.detector, *guard])


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a training came to.

    Attributes:
        networks: as they were after each round that is scored.
        predictions: of the test windows, after each of these rounds.
        facts: what happened on the way.
    """

    networks: Sequence[Sequence[Network]]
    predictions: Sequence[Predictions]
    facts: Mapping[str, Any]

    @property
    def score(self) -> float | None:
        """Mean of the metric over the rounds that are scored."""
        each = [found for p in self.predictions if (found := classification.value(p, METRIC)) is not None]
        return float(np.mean(each)) if each else None

    @cached_property
    def recall(self) -> np.ndarray:
        """``(n_classes,)`` mean over the rounds that are scored; NaN for a class without a test window."""
        y = self.predictions[0].y
        found = np.stack([p.scores.argmax(axis=1) for p in self.predictions])
        classes = range(self.predictions[0].n_classes)
        return np.array([(found[:, y == i] == i).mean() if (y == i).any() else np.nan for i in classes])


@dataclass(eq=False)
class Scene:
    """One arm, seed and fold: where attacks and defences meet.

    Attributes:
        config, arm, seed, prepared: of the trainings.
        sfreq: samples per second.
        n_resamples: of the bootstrap.
        start: the first round in which attackers attack. Until then all train honestly, by a plain mean, undefended;
            that training is shared by all cells, and whoever is left out of the baseline leaves with this round.

    Raises:
        ValueError: ``start`` leaves no rounds, or fewer than are scored.
    """

    config: Config
    arm: build.Arm
    seed: int
    prepared: build.Prepared
    sfreq: float
    n_resamples: int = 500
    start: int = 1
    _lone: dict[int, Outcome] = field(default_factory=dict)
    _recorded: list[np.ndarray] | None = None
    _warm: Federation | None = None

    def __post_init__(self) -> None:
        rounds = self.config.federation.rounds
        if not 1 <= self.start <= rounds - self.judged + 1:
            raise ValueError(
                f"attackers were to start in round {self.start}, but of {rounds} rounds the last {self.judged} are "
                f"scored: they must start in round {rounds - self.judged + 1} or before"
            )

    @property
    def judged(self) -> int:
        """How many rounds are scored."""
        return max(1, min(LAST, self.config.federation.rounds // 3))

    @cached_property
    def clients(self) -> tuple[str, ...]:
        """Who takes part."""
        if PROTOCOLS[self.arm.protocol].pooled:
            raise ValueError(f"{self.arm.protocol} has one client that holds everything: there is nobody to turn")
        return tuple(sorted(build.dealt(self.config, self.prepared)))

    @property
    def averages(self) -> bool:
        """Whether the clients' halves are aggregated."""
        return PROTOCOLS[self.arm.protocol].client == "average"

    @property
    def shares(self) -> bool:
        """Whether clients share a trunk."""
        return PROTOCOLS[self.arm.protocol].trunk == "shared"

    def malicious(self, share: float) -> tuple[str, ...]:
        """Return who attacks at a share of the clients, drawn by the seed."""
        return draw(self.clients, share, self.seed)

    def without(self, malicious: Collection[str]) -> Outcome:
        """Return what the clients that are not malicious come to among themselves, by a plain mean, undefended."""
        n = len(malicious)
        if n not in self._lone:
            self._lone[n] = self._train(Shield("fedavg"), (), None, without=malicious)
        return self._lone[n]

    def run(self, shot: Shot, share: float, shield: Shield) -> list[Row]:
        """Train with attackers, and return what they achieved: one row, two for a backdoor.

        An attack or a defence that cannot be is one row that says why.
        """
        malicious = self.malicious(share) if shot.attack else ()
        try:
            attack = poisoning.make(shot.attack, **shot.options) if shot.attack else None
            self._check(shield, len(malicious))
            outcome = self._train(shield, malicious, attack)
        except FederationError:
            raise
        except ValueError as error:
            return [self._row(shot, share, malicious, shield, not_applicable=str(error))]
        lone = self.without(malicious)
        drop = paired(lone.predictions, outcome.predictions, METRIC, seed=self.seed, n_resamples=self.n_resamples)
        (own,) = intervals(outcome.predictions, [METRIC], seed=self.seed, n_resamples=self.n_resamples).values()
        facts = dict(outcome.facts) | {"clients": self._by_client(outcome, lone, malicious)}
        row = replace(
            self._row(shot, share, malicious, shield, **facts),
            score=own.value,
            low=own.low,
            high=own.high,
            baseline=lone.score,
            gain=drop.difference,
            gain_low=drop.low,
            gain_high=drop.high,
            n_rows=len(outcome.predictions[0].y),
            n_units=drop.n_units,
        )
        return [row] if not isinstance(attack, Backdoor) else [row, self._success(row, attack, outcome, lone)]

    def _by_client(self, outcome: Outcome, lone: Outcome, malicious: Collection[str]) -> dict[str, float | None]:
        """Return what honest clients lost in accuracy, each at its own mix of classes, with the interval over them."""
        lost = np.nan_to_num(lone.recall - outcome.recall)
        y, n_classes = self.prepared.y["train"].numpy(), len(lost)
        dealt = build.dealt(self.config, self.prepared)
        honest = [client for client in self.clients if client not in malicious]
        drops = [float(np.bincount(y[dealt[c]], minlength=n_classes) @ lost / len(dealt[c])) for c in honest]
        mean = clustered_mean(np.array(drops), honest, self.seed, self.n_resamples)
        return {"lost": mean.value, "low": mean.low, "high": mean.high, "most": max(drops)}

    def _success(self, row: Row, attack: Backdoor, outcome: Outcome, lone: Outcome) -> Row:
        test = self.prepared.test
        chosen = np.flatnonzero(test.y != attack.target)
        x = attack.trigger(self.prepared.x["test"][torch.from_numpy(chosen)])
        hit, by_chance = (
            np.mean(
                [(predict_by_lot(n, x, self.seed).argmax(dim=1) == attack.target).numpy() for n in each.networks],
                axis=0,
            )
            for each in (outcome, lone)
        )
        units = _units(test.subject[chosen], self.prepared.fold.by)
        score = clustered_mean(hit, units, self.seed, self.n_resamples)
        gain = clustered_mean(hit - by_chance, units, self.seed, self.n_resamples)
        return replace(
            row,
            metric="attack success rate",
            better="higher",
            score=score.value,
            low=score.low,
            high=score.high,
            baseline=float(by_chance.mean()),
            baseline_name="the same trigger on the network without these clients",
            gain=gain.value,
            gain_low=gain.low,
            gain_high=gain.high,
            n_rows=len(chosen),
            n_units=gain.n_units,
            facts=dict(row.facts) | {"clean_score": row.score, "clean_baseline": row.baseline},
        )

    def _row(self, shot: Shot, share: float, malicious: Sequence[str], shield: Shield, **facts: Any) -> Row:
        attack = poisoning.make(shot.attack, **shot.options) if shot.attack else None
        return Row(
            suite="poisoning",
            attack=shot.label,
            id="A12" if attack is not None and attack.goal == "backdoor" else "A11",
            threat="T8",
            knowledge=attack.knowledge if attack is not None else "nothing",
            defence=shield.name,
            arm=self.arm.name,
            fold=self.prepared.fold.name,
            seed=self.seed,
            metric=METRIC,
            better="lower",
            score=None,
            baseline=None,
            baseline_name="the federation without these clients, plain mean",
            facts={
                "share": share,
                "n_attackers": len(malicious),
                "n_clients": len(self.clients),
                "protocol": self.arm.protocol,
                "rule": shield.rule,
                "detector": shield.detector,
                "guard": shield.guard,
                "options": dict(shot.options),
                **facts,
            },
        )

    def _check(self, shield: Shield, m: int) -> None:
        """Refuse a defence that this protocol has no place for, and a rule whose precondition does not hold.

        Raises:
            ValueError: it says why.
        """
        if not self.averages and (shield.rule not in ("", "fedavg") or shield.detector):
            raise ValueError(f"{self.arm.protocol} hands the client's half on and aggregates nothing")
        if shield.guard and not self.shares:
            raise ValueError(f"a guard is for a trunk that all clients train; {self.arm.protocol} has none")
        if shield.rule and shield.rule != "fltrust":
            rule, generator = aggregation.make(shield.rule, **rule_options(shield.rule, m)), torch_generator(0, "probe")
            zero = {"w": torch.zeros(3)}
            rule(zero, [Update(c, {"w": torch.randn(3, generator=generator)}, 0, 1) for c in self.clients])

    def _train(
        self,
        shield: Shield,
        malicious: Sequence[str],
        attack: poisoning.PoisoningAttack | None,
        without: Collection[str] = (),
    ) -> Outcome:
        monitor = self._monitor() if shield.detector else None
        setup = self._setup(shield, len(malicious), Watch(monitor) if monitor else None, without)
        if attack is not None:
            n_classes = len(self.prepared.test.classes)
            infiltrate(setup, attack, malicious, n_classes=n_classes, seed=self.seed, sfreq=self.sfreq)
        facts: dict[str, Any] = {}
        events: list[tuple[str, bool]] = []
        rounds, judged = self.config.federation.rounds, self.judged
        networks: list[Sequence[Network]] = []
        for number in range(self.start, rounds + 1):
            try:
                report = setup.federation.run_round()
            except FederationError as error:
                facts["broke_down"] = f"round {setup.federation.round + 1}: {error}"
                break
            events += [(event.kind, event.client in malicious) for event in report.events]
            if number > rounds - judged:
                networks.append(setup.networks())
        while len(networks) < judged:  # it broke down, and stays as it was
            networks.append(setup.networks())
        for kind in ("rolled_back", "clipped", "left_out", "failed", "unfit", "not_aggregated"):
            if n := sum(k == kind for k, _ in events):
                facts[str(kind)] = {"all": n, "of_attackers": sum(bad for k, bad in events if k == kind)}
        if monitor is not None and monitor.verdicts:
            rates = client_rates(monitor.verdicts, malicious)
            facts["detection"], facts["false_positives"] = rates.detection.value, rates.false_positives.value
            facts["quarantined"] = sorted(monitor.verdicts[-1].quarantined)
        outcome = Outcome(networks, [self._predictions(each) for each in networks], facts)
        test = self.prepared.test
        scored = [classification.value(p, METRIC) for p in outcome.predictions]
        facts["attacked_from"] = self.start
        facts["rounds_scored"] = [rounds - judged + 1, rounds]
        facts["by_round"] = scored
        facts["accuracy"] = float(np.mean([p.scores.argmax(axis=1) == p.y for p in outcome.predictions]))
        facts["recall"] = {n: float(r) for n, r in zip(test.classes, outcome.recall, strict=True) if not np.isnan(r)}
        return outcome

    def _predictions(self, networks: Sequence[Network]) -> Predictions:
        test = self.prepared.test
        logits = predict_by_lot(networks, self.prepared.x["test"], self.seed)
        scores = np.nan_to_num(logits.numpy(), nan=0.0, posinf=1e30, neginf=-1e30)
        unit = "subject" if self.prepared.fold.by == "subject" else "row"
        return Predictions(test.y, scores, test.subject, test.classes, unit)

    def _setup(self, shield: Shield, m: int, watch: Watch | None, without: Collection[str] = ()) -> Setup:
        config = self.config
        if shield.rule:
            federation: dict[str, Any] = {"aggregator": shield.rule, "aggregator_options": rule_options(shield.rule, m)}
            if shield.rule == "fltrust" and not config.federation.root_share:
                federation["root_share"] = 0.05
            config = config.model_copy(update={"federation": config.federation.model_copy(update=federation)})

        def change(plan: Plan) -> Plan:
            if watch is not None:
                inner = None if shield.rule in ("", "fedavg") else plan.make_aggregator
                plan = replace(plan, make_aggregator=partial(watch.rule, inner))
            if not shield.guard:
                return replace(plan, make_guard=None)
            configured = config.federation.guard == shield.guard
            return plan if configured else replace(plan, make_guard=lookup("guard", GUARDS, shield.guard))

        wear: Callable[[str, Transport], Transport] = watch.wear if watch is not None else _bare
        setup = build.setup(config, self.arm, self.seed, self.prepared, wear, change, without)
        if self.start > 1:
            _go_on(setup.federation, self._warmed())
        return setup

    def _warmed(self) -> Federation:
        """Return the federation as honest training leaves it before the first attack."""
        if self._warm is None:
            setup = replace(self, start=1, _lone={}, _recorded=None)._setup(Shield("fedavg"), 0, None)
            for _ in range(self.start - 1):
                setup.federation.run_round()
            self._warm = setup.federation
        return self._warm

    def _monitor(self) -> ClientMonitor:
        """Return a monitor, calibrated on honest runs of other seeds."""
        if self._recorded is None:
            self._recorded = []
            for offset in CALIBRATION:
                recorder = ClientMonitor(detection.make("mahalanobis"))
                other = replace(self, seed=self.seed + offset, _lone={}, _recorded=None, _warm=None)
                setup = other._setup(Shield("fedavg"), 0, Watch(recorder, recorder.record))
                for _ in range(self.start, self.config.federation.rounds + 1):
                    setup.federation.run_round()
                self._recorded += recorder.recorded
        held_out = sum(len(rows) for rows in self._recorded[1::2])
        monitor = ClientMonitor(detection.make("mahalanobis"), false_alarms=max(0.02, 1 / held_out))
        monitor.calibrate(self._recorded)
        return monitor


def _go_on(federation: Federation, warm: Federation) -> None:
    """Let a federation go on from where another of the same clients, or more, arrived; rules begin anew."""
    for part, reached in zip(federation.parts, warm.parts, strict=True):
        if part.rule in ("average", "relay"):
            part.state = {name: tensor.clone() for name, tensor in reached.state.items()}
            continue
        for client, module in part.modules.items():
            module.load_state_dict(reached.modules[client].state_dict())
            part.optimizers[client].load_state_dict(copy.deepcopy(reached.optimizers[client].state_dict()))
    federation.round, federation.time = warm.round, warm.time


def rule_options(rule: str, m: int) -> dict[str, Any]:
    """Return a rule's options where it is told the true number of attackers, or 1 where there are none."""
    if rule in ("krum", "multi_krum", "bulyan", "dnc", "trimmed_mean"):
        return {"n_attackers": max(m, 1)}
    return {"rule": "median", "size": 2} if rule == "bucketing" else {}


def _units(subject: np.ndarray, by: str) -> list[str]:
    return subject.astype(str).tolist() if by == "subject" else [str(i) for i in range(len(subject))]


def _bare(client: str, transport: Transport) -> Transport:
    return transport


def catalogue(classes: Sequence[str], n_times: int) -> list[Shot]:
    """Return the attacks of the tables, those of the smoke profile first.

    Args:
        classes: of the task; a backdoor leads to the one that stands for nothing wrong, if its name says so.
        n_times: samples in a window; rows of a table get a rare value as trigger, signals a patch and a sine.
    """
    benign = ("normal", "benign", "baseline", "rest")
    target = next((i for i, name in enumerate(classes) if name.lower() in benign), 0)
    kinds = {"rare_value": {"level": 4.0}} if n_times == 1 else {"patch": {}, "sinusoid": {}}
    first = next(iter(kinds))

    def door(attack: str, kind: str, **options: Any) -> dict[str, Any]:
        return {"target": target, "trigger": kind, "options": kinds[kind], **options}

    return [
        Shot("label flip", "label_flip"),
        Shot("sign flip", "sign_flip", {"scale": 3.0}),
        Shot("min-max", "min_max"),
        Shot("AGR-tailored", "agr_tailored"),
        Shot("gradient reversal", "gradient_reversal"),
        Shot(f"backdoor, {first}", "backdoor", door("backdoor", first)),
        Shot("Gaussian", "gaussian"),
        Shot("IPM 0.1", "inner_product", {"epsilon": 0.1}),
        Shot("IPM 100", "inner_product", {"epsilon": 100.0}),
        Shot("ALIE", "alie"),
        Shot("min-sum", "min_sum"),
        Shot("AGR-tailored, far", "agr_tailored", {"goal": "far"}),
        Shot("Fang, Krum", "fang_krum"),
        Shot("Fang, trimmed mean", "fang_trimmed_mean"),
        Shot("model replacement", "model_replacement"),
        Shot("scaling 10", "update_scaling", {"factor": 10.0}),
        Shot("scaling 0.1", "update_scaling", {"factor": 0.1}),
        Shot("free rider", "free_rider"),
        Shot("stale replay", "stale_replay", {"lag": 3}),
        Shot("spoofed sensor, flat", "sensor_spoofing", {"kind": "flat"}),
        Shot("spoofed sensor, pulse", "sensor_spoofing", {"kind": "pulse"}),
        Shot("smashed data, reversed", "smashed_poisoning", {"kind": "reverse"}),
        Shot("smashed data, swapped", "smashed_poisoning", {"kind": "swap"}),
        Shot("two-sided", "two_sided"),
        Shot("careful reversal", "careful_reversal"),
        *(Shot(f"backdoor, {kind}", "backdoor", door("backdoor", kind)) for kind in kinds if kind != first),
        Shot(f"backdoor, scaled, {first}", "backdoor", door("backdoor", first, scale=5.0)),
        Shot(f"distributed backdoor, {first}", "distributed_backdoor", door("distributed_backdoor", first)),
        Shot(f"durable backdoor, {first}", "durable_backdoor", door("durable_backdoor", first)),
    ]


N_SMOKE = 6
"""How many of the catalogue the smoke profile runs."""
