"""Membership: whether a window was in the training, told from the final model's outputs or from smashed data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.clustered import Statistic, time_blocks
from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.metrics.membership import enough, roc, tpr_at_fpr
from hcqsfl.privacy.metrics.ranking import auc
from hcqsfl.privacy.observation import NotApplicable, Observation, Target
from hcqsfl.privacy.record import Exchange
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites.adversary import as_read, defence_as_known
from hcqsfl.recipes.suites.scoring import constant, guess, not_applicable, or_refused, score, units_of
from hcqsfl.recipes.victim import Victim

RATES = (0.01, 0.001)
MOST_ASKED = {"smoke": 1000, "paper": 12_000}
"""Profile to how many members, and how many others, are asked about at most."""

REFERENCES = {"loss_threshold": 0, "lira": None, "rmia": 8, "cut_membership": None}
"""Attack to how many reference models it trains at most; ``None`` for as many as the profile says."""


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return the membership attacks on one training."""
    asked = _Asked(victim, profile)
    return [
        Case("loss_threshold/T10", partial(_scored, asked, "loss_threshold", "T10", False)),
        Case("lira/T10/offline", partial(_scored, asked, "lira", "T10", False)),
        Case("lira/T10/online", partial(_scored, asked, "lira", "T10", True)),
        Case("rmia/T10", partial(_scored, asked, "rmia", "T10", False)),
        Case("cut_membership/T1", partial(_scored, asked, "cut_membership", "T1", False)),
    ]


@dataclass(frozen=True, eq=False)
class Question:
    """Members and others in equal number, and windows of nobody of them.

    Attributes:
        x, y, member: ``(n, ...)`` what is asked about.
        units: ``(n,)`` what is resampled: subjects or, where the split is by time, stretches of time.
        known_x, known_y, known_subject: windows of the attacker's own.
    """

    x: Tensor
    y: Tensor
    member: np.ndarray
    units: list[str]
    known_x: Tensor
    known_y: Tensor
    known_subject: list[str]


class _Asked:
    """The windows asked about and what the attacker has of its own, made when the first case runs."""

    def __init__(self, victim: Victim, profile: Profile) -> None:
        self.victim, self.profile = victim, profile

    @cached_property
    def question(self) -> Question:
        return question(self.victim, MOST_ASKED.get(self.profile.name, self.profile.n_targets))

    @cached_property
    def knowledge(self) -> Knowledge:
        q = self.question
        return self.victim.knowledge(
            x=q.known_x,
            y=q.known_y,
            subject=q.known_subject,
            defence=defence_as_known(self.victim),
            extra={"n_references": self.profile.n_references},
        )

    @cached_property
    def observations(self) -> dict[str, Observation]:
        """Threat to what it sees: outputs, or the smashed data of the windows sent for inference."""
        q = self.question
        outputs = replace(self.victim.observe("T10"), asked_x=q.x, asked_y=q.y)
        return {"T10": outputs, "T1": as_read(self.victim, sent_for_inference(self.victim, q))}


def question(victim: Victim, n: int) -> Question:
    """Return up to ``n`` members and as many others, and auxiliary windows that are neither.

    Where whole people are held out, half of them are asked about as others, and the other half are the attacker's own:
    reference models that knew some windows of the others' people, and of no member's, would tell the two apart by
    themselves. Where one person or none is held out, the earlier half in time is the attacker's own.

    Raises:
        NotApplicable: too few windows are held out.
    """
    windows, fold, prepared = victim.windows, victim.fold, victim.prepared
    held = np.concatenate([fold.validation, fold.test])
    x, y = (torch.cat([getattr(prepared, part)[p] for p in ("validation", "test")]) for part in ("x", "y"))
    subject = windows.subject[held]
    people = np.unique(subject)
    if fold.by == "subject" and len(people) > 1:
        others = np.isin(subject, numpy_generator(victim.seed, "others").permutation(people)[: len(people) // 2])
    else:
        order = np.lexsort((windows.start[held], windows.recording[held], windows.y[held]))
        others = np.zeros(len(held), dtype=bool)
        for c in np.unique(windows.y[held]):
            rows = order[windows.y[held][order] == c]
            others[rows[len(rows) // 2 + 1 :]] = True  # one between the halves is left out
            if len(rows) > 1:
                others[rows[len(rows) // 2]] = False
    outside = np.flatnonzero(others)
    if len(outside) < 2 or others.all():
        raise NotApplicable(f"{len(held)} windows are held out: too few to ask about some and to know others")
    generator = numpy_generator(victim.seed, "membership")
    count = min(n, len(outside), len(prepared.y["train"]))
    outside = np.sort(generator.permutation(outside)[:count])
    inside = np.sort(generator.permutation(len(prepared.y["train"]))[:count])
    known = np.flatnonzero(~others)
    return Question(
        torch.cat([prepared.x["train"][inside], x[outside]]),
        torch.cat([prepared.y["train"][inside], y[outside]]),
        np.arange(2 * count) < count,
        _units(victim, fold.train[inside], held[outside]),
        x[known],
        y[known],
        subject[known].tolist(),
    )


def _units(victim: Victim, inside: np.ndarray, outside: np.ndarray) -> list[str]:
    windows, index = victim.windows, np.concatenate([inside, outside])
    if victim.fold.by == "subject":
        return units_of(windows.subject[index])
    recording, start = windows.recording, windows.start
    found = [time_blocks(recording[part], start[part]) for part in (inside, outside)]
    return [f"member {unit}" for unit in found[0]] + found[1]


@torch.no_grad()
def sent_for_inference(victim: Victim, q: Question) -> Observation:
    """Return what the main server sees when clients send the windows asked about with the final model.

    Raises:
        NotApplicable: nothing crosses a cut under this protocol.
    """
    seen = victim.observe("T1")
    network = victim.setup.networks()[0]
    smashed = network.front(q.x)
    if network.defence is not None and network.defence.acts_in_evaluation:
        smashed = network.defence(smashed, q.x)
    labels = q.y if seen.label_sharing else None
    exchange = Exchange("evaluation", max(seen.trunk_states), 1, smashed, labels=labels)
    targets = [Target(0, row) for row in range(len(q.y))]
    return replace(seen, exchanges=[exchange], targets=targets, asked_x=q.x, asked_y=q.y)


def _scored(asked: _Asked, name: str, threat: str, online: bool) -> Sequence[Row]:
    most = REFERENCES[name]
    n = asked.profile.n_references if most is None else min(most, asked.profile.n_references)
    kind = "online" if online else "offline"
    knows = f"{n} reference models{f', {kind}' if name == 'lira' else ''}" if n else "the loss"

    def rows() -> Sequence[Row]:
        return _rows(asked, name, threat, online, n, knows)

    return or_refused(asked.victim, name, threat, knows, "membership AUC", rows)


def _rows(asked: _Asked, name: str, threat: str, online: bool, n: int, knows: str) -> Sequence[Row]:
    victim, profile, q = asked.victim, asked.profile, asked.question
    knowledge = asked.knowledge
    if online or n not in (0, profile.n_references):
        knowledge = replace(knowledge, extra={"n_references": n, "online": online})
    # a reference model takes the steps of the training itself, as far as the profile allows
    allowed = profile.evaluations * max(n, 1)
    made, spent = guess(name, asked.observations[threat], knowledge, allowed, profile.trials, victim.seed)
    if made.membership is None:
        raise ValueError(f"{name} did not guess membership")
    scores, member = np.asarray(made.membership, dtype=np.float64), q.member
    blind = blind_scores(q)
    n_outside = int((~member).sum())
    fpr, tpr = roc(scores, member)
    facts = {
        **made.facts,
        "members": int(member.sum()),
        "non_members": n_outside,
        "unit": "window; members and others are of different people" if victim.fold.by == "subject" else "flow",
        "roc": {"fpr": fpr, "tpr": tpr},
        "blind_roc": dict(zip(("fpr", "tpr"), roc(blind, member), strict=True)),
    }

    def row(metric: str, statistic: Statistic, trivial: float, blindly: Statistic) -> Row:
        return score(
            victim, name, threat, knows, metric, statistic,
            {"chance": constant(trivial), "distance to known windows": blindly}, q.units,
            evaluations=spent, facts=facts, n_resamples=profile.n_resamples,
        )  # fmt: skip

    found = [row("membership AUC", lambda i: auc(scores[i], member[i]), 0.5, lambda i: auc(blind[i], member[i]))]
    for rate in RATES:
        metric = f"TPR at {rate:.1%} FPR"
        if not enough(n_outside, rate):
            reason = f"{n_outside} non-members do not carry a false-positive rate of {rate:.1%}; {10 / rate:.0f} do"
            found.append(not_applicable(victim, name, threat, knows, metric, reason))
            continue
        found.append(row(metric, partial(_tpr, scores, member, rate), rate, partial(_tpr, blind, member, rate)))
    return found


def curves(rows: Sequence[Row]) -> dict[str, tuple[list[float], list[float]]]:
    """Return attack, adversary and knowledge to false- and true-positive rates, of the first training of one trunk."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row.metric == "membership AUC" and "roc" in row.facts:
            name = row.attack if row.attack != "lira" else f"lira {row.knowledge.rpartition(', ')[2]}"
            found.setdefault(name, (row.facts["roc"]["fpr"], row.facts["roc"]["tpr"]))
    if found:
        first = next(row for row in rows if row.metric == "membership AUC" and "blind_roc" in row.facts)
        found["no model"] = (first.facts["blind_roc"]["fpr"], first.facts["blind_roc"]["tpr"])
    return found


def _tpr(scores: np.ndarray, member: np.ndarray, rate: float, rows: np.ndarray) -> float:
    return tpr_at_fpr(scores[rows], member[rows], rate)


def blind_scores(q: Question) -> np.ndarray:
    """Return what membership looks like without the model: how far each window is from the attacker's own.

    Where members and others differ by themselves, in who they are or when they were recorded, this tells them apart,
    and what a model adds is only what goes beyond it. The sign is the better one of the two.

    Source: Das, Zhang & Tramèr (2024), Blind baselines beat membership inference attacks for foundation models.
    """
    known, x = q.known_x.flatten(1).numpy(), q.x.flatten(1).numpy()
    distance = NearestNeighbors(n_neighbors=1).fit(known).kneighbors(x)[0][:, 0]
    return distance if auc(distance, q.member) >= 0.5 else -distance
