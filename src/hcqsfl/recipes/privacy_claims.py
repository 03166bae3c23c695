"""What a run may claim in (epsilon, delta), in full sentences."""

import math
from collections import Counter

import numpy as np

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.models.plan import PROTOCOLS
from hcqsfl.privacy import accounting
from hcqsfl.privacy.accounting import Statement


def claims(config: Config, prepared: build.Prepared) -> list[Statement]:
    """Return every claim that a training's settings support: of smashed data, of labels, of models; none where none is.

    Each is told for a window and, since a patient is no window, for a subject. The worst client counts.
    """
    made: list[Statement] = []
    f, d = config.federation, config.defence
    cut = PROTOCOLS[f.protocol].trunk is not None
    subjects = Counter(prepared.training.subject.tolist())
    most = max(subjects.values())
    n_people = f"of {len(subjects)} training subjects" if len(subjects) < 100 else ""
    passes = f.rounds * f.local_epochs
    if d.name in ("gaussian", "memoised_gaussian") and cut:
        options = {"noise_multiplier": 0.5, **d.options}
        for windows in (1, most):
            made.append(
                accounting.smashed_data(
                    float(options["noise_multiplier"]),
                    passes,
                    windows=windows,
                    memoised=d.name == "memoised_gaussian",
                    overlap=config.windows.overlap,
                )
            )
    if d.name == "randomised_response":
        made.append(accounting.labels(float(d.options.get("epsilon", 2.0))))
    if config.dp_sgd is not None:
        dp = config.dp_sgd
        held = [len(index) for index in build.dealt(config, prepared).values()]
        halves = 2 if cut else 1
        worst = min(held)
        steps = math.ceil(worst / f.batch_size) * f.local_epochs
        if f.local_steps is not None:
            steps = min(steps, f.local_steps)
        rate = min(1.0, f.batch_size / worst)
        window = accounting.models(
            dp.noise_multiplier, rate, steps * f.rounds, dp.delta, halves=halves, overlap=config.windows.overlap
        )
        made += [window, accounting.as_group(window, most)]
    return [_told(statement, n_people, config) for statement in made]


def _told(statement: Statement, n_people: str, config: Config) -> Statement:
    notes = list(statement.notes)
    if statement.unit == "subject" and n_people:
        notes.append(f"one {n_people}")
    if statement.protects == "models" and config.model.class_weights == "balanced":
        notes.append("class weights were counted from the training labels, which is not accounted for")
    if statement.protects != "labels":
        notes.append("settings were chosen on these data, which is not accounted for")
    return Statement(**{**statement.__dict__, "notes": tuple(notes)})


def as_facts(statements: list[Statement]) -> list[dict[str, object]]:
    """Return statements as JSON can hold them; an infinite epsilon is ``null``."""
    return [
        {**s.__dict__, "epsilon": None if np.isinf(s.epsilon) else s.epsilon, "notes": list(s.notes), "says": str(s)}
        for s in statements
    ]
