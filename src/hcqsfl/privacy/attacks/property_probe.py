"""Infer a property of windows that nobody meant to reveal."""

import copy
from typing import Any

import numpy as np
import torch

from hcqsfl.models.defence import Defence
from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.enrolment import enrolled
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.views import rows
from hcqsfl.randomness import torch_seeded


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Fit a classifier of the property to smashed data, and score its values on all targets.

    Whoever holds the client half (a colluding client's) makes smashed data of the auxiliary windows with the half that
    each target's round began from, and the clients' defence where it is known; ``Knowledge.extra["values"]`` are those
    windows' values of the property, ``(n_aux,)``. Whoever does not learns from the targets whose values it got hold of
    (``Knowledge.enrolled``).

    Raises:
        NotApplicable: no smashed data cross.
        ValueError: fewer than two values are known.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer, StandardScaler

    def fit(x: np.ndarray, values: np.ndarray) -> Any:
        budget.spend()
        # splines of each smashed value: a property need not be monotonic in any of them
        steps = (StandardScaler(), SplineTransformer(n_knots=4, extrapolation="linear"))
        return make_pipeline(*steps, LogisticRegression(max_iter=1000, random_state=0)).fit(x, values)

    z = rows(observation, "smashed").numpy()
    if not observation.client_states:
        places, values, candidates = enrolled(knowledge)
        probe = fit(z[places], values)
        return Guess(property=torch.from_numpy(_log_shares(probe, z)), candidates=candidates)
    known = np.asarray(knowledge.extra["values"])
    candidates = tuple(sorted({str(value) for value in known}))
    if len(candidates) < 2:
        raise ValueError("the auxiliary windows have only one value of the property; nothing can be learnt from them")
    column = np.array([candidates.index(str(value)) for value in known])
    began = np.array([observation.exchanges[target.exchange].round - 1 for target in observation.targets])
    scores = np.zeros((len(z), len(candidates)))
    for number in np.unique(began):
        made = _smashed(observation, knowledge, int(number), seed)
        scores[began == number] = _log_shares(fit(made, column), z[began == number])
    return Guess(property=torch.from_numpy(scores), candidates=candidates)


def _log_shares(probe: Any, x: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.log(probe.predict_proba(x).clip(1e-12))
    return shares


@torch.no_grad()
def _smashed(observation: Observation, knowledge: Knowledge, number: int, seed: int) -> np.ndarray:
    held = observation.client_states[number]
    state = held[min(held)]
    with torch_seeded(seed, "property"):
        front = knowledge.make_front().eval()
    front.load_state_dict({key.removeprefix("front."): t for key, t in state.items() if key.startswith("front.")})
    smashed = front(knowledge.x)
    if knowledge.defence is not None:
        defence = copy.deepcopy(knowledge.defence)
        if isinstance(defence, Defence):
            defence.stand_behind(front)
        smashed = defence(smashed, knowledge.x)
    made: np.ndarray = smashed.numpy()
    return made


ATTACK = Attack(
    "A7",
    "property",
    ("T1", "T2", "T5"),
    run,
    "Melis et al. (2019), Exploiting unintended feature leakage in collaborative learning, section 4, on smashed data",
    adaptive=True,
)
