"""Windows: how closely they are reconstructed from the updates that clients hand in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hcqsfl import build
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.federated.update import State
from hcqsfl.models.learner import Network
from hcqsfl.privacy.gradients import LARGEST
from hcqsfl.privacy.metrics import reconstruction as metrics
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites.scoring import guess, mean_of, or_refused, refuse_hidden, score, units_of
from hcqsfl.recipes.victim import Truth, Victim

METRICS = ("nmse", "r", "r_lagged", "recovered", "exact_match", "heart_rate_error")
RATE = 0.01
"""Learning rate of the steps that are made for the purpose: plain SGD, whatever the training used."""

FULL, HALF = ("client", "trunk"), ("client",)


@dataclass(frozen=True)
class Setting:
    """One kind of update.

    Attributes:
        name: in the key of a case, and in words.
        attack: which attack.
        threat: ``T4`` sees no trunk, and fits one of its own; ``T5`` does.
        parts: whose movement is read.
        batch: windows of an update; 0 for what the run itself recorded.
        epochs: plain SGD steps on them.
        trained: whether the network is that of the last round, or that of the start.
    """

    name: str
    attack: str
    threat: str
    parts: tuple[str, ...]
    batch: int
    epochs: int = 1
    trained: bool = False


SETTINGS = (
    Setting("FedSGD, batch 1", "dlg", "T5", FULL, 1),
    Setting("FedSGD, batch 1", "idlg", "T5", FULL, 1),
    Setting("FedSGD, batch 1", "inverting_gradients", "T5", FULL, 1),
    Setting("FedSGD, batch 1, client half", "inverting_gradients", "T5", HALF, 1),
    Setting("FedSGD, batch 1, client half, trunk unseen", "inverting_gradients", "T4", HALF, 1),
    Setting("FedSGD, batch 1, trained network", "inverting_gradients", "T5", FULL, 1, trained=True),
    Setting("FedSGD, batch 8", "inverting_gradients", "T5", FULL, 8),
    Setting("FedSGD, batch 32", "inverting_gradients", "T5", FULL, 32),
    Setting("FedAvg, 8 windows, 1 epoch", "inverting_gradients", "T5", FULL, 8, 1, True),
    Setting("FedAvg, 8 windows, 5 epochs", "inverting_gradients", "T5", FULL, 8, 5, True),
    Setting("FedAvg as the run recorded it", "inverting_gradients", "T5", HALF, 0),
    Setting("FedSGD, batch 1, client half", "first_layer", "T4", HALF, 1),
    Setting("FedSGD, batch 8, client half", "first_layer", "T4", HALF, 8),
)

UPDATES = {"smoke": 2, "paper": 12}
"""Profile to how many updates of one window are inverted; of several windows, one."""

SHARE = {"smoke": 0.25}
"""Profile to the share of its evaluations that one update may take; all of them unless named."""


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return the gradient inversions on one training."""
    return [Case(f"{s.attack}/{s.threat}/{s.name}", partial(_inverted, victim, profile, s)) for s in SETTINGS]


def _inverted(victim: Victim, profile: Profile, setting: Setting) -> Sequence[Row]:
    return or_refused(
        victim, setting.attack, setting.threat, setting.name, "r", lambda: _rows(victim, profile, setting)
    )


def _rows(victim: Victim, profile: Profile, setting: Setting) -> Sequence[Row]:
    n_updates = UPDATES.get(profile.name, 3) if setting.batch == 1 else 1
    truths = [victim.truth(indices) for indices in _batches(victim, setting, n_updates)]
    if setting.batch:
        seen = made_updates(victim, truths, setting)
    else:
        seen = replace(victim.observe(setting.threat), exchanges=(), targets=())
    n = min(LARGEST, len(truths[0].y))
    number = min(seen.updates)
    clients = sorted(seen.updates[number])[: len(truths)]
    extra: dict[str, object] = {"parts": setting.parts, "n": n, "round": number, "clients": clients}
    if seen.label_sharing:  # the server knows them by design, and the head moves on its side
        extra["labels"] = torch.stack([truth.y[:n].sort().values for truth in truths])
    knowledge = victim.knowledge(extra=extra)
    if setting.batch:
        recipe = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": RATE, "local_epochs": setting.epochs}
        knowledge = replace(knowledge, training={**knowledge.training, **recipe})
    allowed = round(SHARE.get(profile.name, 1.0) * profile.evaluations) * len(truths)
    made, spent = guess(setting.attack, seen, knowledge, allowed, 1 if profile.trials < 5 else 3, victim.seed)
    assert made.windows is not None
    found, true = [], []
    for windows, truth in zip(made.windows.split(n), truths, strict=True):
        places = matched(windows, truth.x)
        found.append(windows[places[0]])
        true.append(victim.truth(truth.index[places[1]]))
    facts = {"update": setting.name, "parts": list(setting.parts), "updates": len(found), **made.facts}
    if setting.batch != 1:
        facts["order"] = "windows are matched to the truth at least squared error, trivial ones likewise"
    return _scored(victim, setting, torch.cat(found), _joined(true), spent, facts, profile.n_resamples)


def _batches(victim: Victim, setting: Setting, n_updates: int) -> list[np.ndarray]:
    """Return the training windows of each update: some of one client's, or all that a recorded one was made of."""
    refuse_hidden(victim)
    dealt = build.dealt(victim.config, victim.prepared)
    clients = sorted(dealt)
    if not setting.batch:
        seen = victim.observe(setting.threat)
        if not seen.updates:
            raise NotApplicable(f"no client half is handed in under {victim.arm.protocol}")
        return [dealt[min(seen.updates[min(seen.updates)])]]
    generator = numpy_generator(victim.seed, "gradient inversion", setting.batch)
    return [generator.permutation(dealt[clients[i % len(clients)]])[: setting.batch] for i in range(n_updates)]


def made_updates(victim: Victim, truths: Sequence[Truth], setting: Setting) -> Observation:
    """Return what is seen of a round in which clients make plain SGD steps, each on windows that are known.

    They begin from a state that was recorded. Dropout is off, which is the better case for the attacker; a defence
    stands where it stood.

    Args:
        victim: the training.
        truths: one client's windows each.
        setting: the kind of update.

    Raises:
        NotApplicable: no client half is handed in under this protocol, so that nobody sees such an update.
    """
    recorded = victim.observe("T5")
    if not recorded.updates:
        raise NotApplicable(f"no client half is handed in under {victim.arm.protocol}")
    number = max(recorded.client_states) if setting.trained else min(recorded.client_states)
    client = min(recorded.updates[min(recorded.updates)])
    network: Network = victim.setup.networks()[0]
    before = {part: _own(getattr(recorded, part).get(number, {}), client) for part in ("client_states", "trunk_states")}
    start = {**before["trunk_states"], **before["client_states"]}
    network.class_weights = victim.prepared.class_weights
    updates: dict[str, State] = {}
    trunks: dict[str, State] = {}
    for i, truth in enumerate(truths):
        network.load_state_dict(start, strict=False)
        network.eval()
        for _ in range(setting.epochs):
            network.zero_grad(set_to_none=True)
            network.loss(truth.x, truth.y).backward()
            with torch.no_grad():
                for p in network.parameters():
                    if p.grad is not None:
                        p.sub_(RATE * p.grad)
        after = network.state_dict()
        name = f"{i:03d}"
        updates[name] = {key: after[key].clone() for key in before["client_states"]}
        trunks[name] = {key: after[key].clone() for key in before["trunk_states"]}
    shown = setting.threat == "T5" and before["trunk_states"]
    return Observation(
        setting.threat,
        recorded.label_sharing,
        client_states={0: {"": before["client_states"]}},
        updates={1: updates},
        trunk_states={0: {"": before["trunk_states"]}, 1: trunks} if shown else {},
        examples={name: len(truth.y) for name, truth in zip(updates, truths, strict=True)},
    )


def _own(by_client: Mapping[str, State], client: str) -> dict[str, Tensor]:
    return dict(by_client.get(client, by_client.get("", {})))


def matched(guessed: Tensor, truth: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return places of guesses and of true windows, paired so that the summed squared error is least.

    An update does not tell the order of its windows.

    Source: Kuhn (1955), The Hungarian method for the assignment problem.
    """
    cost = torch.cdist(guessed.flatten(1), truth.flatten(1)) ** 2
    rows, columns = linear_sum_assignment(cost.numpy())
    return np.asarray(rows), np.asarray(columns)


def _joined(truths: Sequence[Truth]) -> Truth:
    x, y = (torch.cat([getattr(t, name) for t in truths]) for name in ("x", "y"))
    subject, index, start = (
        np.concatenate([getattr(t, name) for t in truths]) for name in ("subject", "index", "start")
    )
    return Truth(x, y, subject, index, start)


def _scored(
    victim: Victim,
    setting: Setting,
    windows: Tensor,
    truth: Truth,
    spent: int,
    facts: dict[str, object],
    n_resamples: int,
) -> list[Row]:
    knowledge = victim.knowledge()

    def scores(guessed: Tensor) -> dict[str, metrics.Scored]:
        found = metrics.score(
            guessed.numpy(),
            truth.x.numpy(),
            truth.y.numpy(),
            knowledge.x.numpy(),
            knowledge.y.numpy(),
            knowledge.n_outputs,
            channels=knowledge.channels if len(knowledge.channels) == windows.shape[1] else (),
            sfreq=knowledge.sfreq,
            seed=victim.seed,
        )
        return {each.metric: each for each in found if each.metric in METRICS}

    # whoever may be matched to the truth gains by that alone: so may windows of other people, and noise in their range
    generator = numpy_generator(victim.seed, "matched likewise")
    others = knowledge.x[np.resize(generator.permutation(len(knowledge.x))[: len(windows)], len(windows))]
    drawn = torch.from_numpy(generator.standard_normal(windows.shape)).to(windows.dtype)
    noise = drawn.clamp(knowledge.x.amin(dim=(0, 2))[:, None], knowledge.x.amax(dim=(0, 2))[:, None])

    def likewise(guessed: Tensor) -> dict[str, metrics.Scored]:
        if setting.batch == 1:
            return scores(guessed)
        pairs = matched(guessed, truth.x)
        return scores(guessed[pairs[0][np.argsort(pairs[1])]])

    trivial = {
        "other people's windows, matched likewise": likewise(others),
        "noise, matched likewise": likewise(noise),
        "zero, the mean of the training": scores(torch.zeros_like(windows)),
    }
    if setting.batch == 1 and len(windows) > 1:
        # what the attack's priors and the labels would give whatever the update
        trivial["the windows found for another update"] = scores(windows.roll(1, dims=0))
    rows = []
    for name, each in scores(windows).items():
        baselines = {**each.baselines, **{guessed: found[name].own for guessed, found in trivial.items()}}
        known = [i for i in each.scored if all(np.isfinite(values[i]) for values in baselines.values())]
        if known:
            rows.append(
                score(
                    victim,
                    setting.attack,
                    setting.threat,
                    setting.name,
                    name,
                    mean_of(each.own[known]),
                    {baseline: mean_of(values[known]) for baseline, values in baselines.items()},
                    units_of(truth.subject[known]),
                    higher=each.better == "higher",
                    evaluations=spent,
                    facts={**facts, **each.facts},
                    n_resamples=n_resamples,
                )
            )
    return rows
