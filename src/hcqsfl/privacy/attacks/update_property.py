"""Infer a property of a client's windows from the updates that it hands in."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hcqsfl.federated.update import State
from hcqsfl.models.learner import Network
from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.privacy.references import optimizer_of
from hcqsfl.privacy.views import compact, deltas, standardised
from hcqsfl.randomness import torch_generator, torch_seeded

MOST_ROUNDS, MOST_STEPS, LEAST = 3, 10, 4
"""Rounds that are imitated at most, steps of one imitated client, and imitated clients of each value at least."""


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Imitate clients with and without the property, and learn to tell their updates apart; then look at the real ones.

    An imitated client begins from the halves that a round began from, and takes local steps on auxiliary windows that
    share one value (``Knowledge.extra["values"]``, ``(n_aux,)``). The updates of a client in several rounds count
    together. Both halves must be seen: that is the two servers in one hand.

    Returns:
        Scores of the values, a row for each client in the order of their names.

    Raises:
        NotApplicable: no updates, or no trunk, are seen.
        ValueError: the auxiliary windows have one value alone, or the budget does not imitate enough clients.

    Source: Melis et al. (2019), Exploiting unintended feature leakage in collaborative learning, section 4.2, algorithm
    3 (passive property inference from updates).
    """
    from sklearn.linear_model import LogisticRegression

    seen = deltas(observation)
    if not observation.trunk_states:
        raise NotApplicable(f"{observation.threat} does not see the trunk, and cannot imitate a client without it")
    values = np.asarray(knowledge.extra["values"]).astype(str)
    candidates = tuple(sorted(set(values.tolist())))
    if len(candidates) < 2:
        raise ValueError("the auxiliary windows have only one value of the property; nothing can be learnt from them")
    numbers = sorted({number for number, _, _ in seen})[-MOST_ROUNDS:]
    steps = min(MOST_STEPS, int(knowledge.training.get("local_steps") or MOST_STEPS))
    each = (budget.evaluations - budget.spent) // (len(numbers) * len(candidates) * steps)
    if each < LEAST:
        needed = LEAST * len(numbers) * len(candidates) * steps
        raise ValueError(
            f"{budget.evaluations - budget.spent} evaluations imitate {each} clients of each value a round; at least "
            f"{LEAST} are needed: {needed} evaluations"
        )
    clients = sorted({client for _, client, _ in seen})
    scores = torch.zeros(len(clients), len(candidates), dtype=torch.float64)
    for number in numbers:
        made, column = [], []
        for i in range(each):
            for c, value in enumerate(candidates):
                rows = torch.from_numpy(np.flatnonzero(values == value))
                made.append(_imitated(observation, knowledge, number, rows, steps, (seed, number, i, c)))
                column.append(c)
                budget.spend(steps)
        real = [(client, delta) for n, client, delta in seen if n == number]
        both = torch.nn.functional.normalize(torch.stack([*made, *(delta for _, delta in real)]), dim=1)
        both = torch.cat([both, both.abs()], dim=1)  # what a property widens, it moves either way
        x = compact(standardised(both, range(len(made)))) / both.shape[1] ** 0.5
        probe = LogisticRegression(max_iter=1000, random_state=0).fit(x[: len(made)].numpy(), column)
        told = torch.from_numpy(probe.predict_log_proba(x[len(made) :].numpy()).clip(-20))
        for row, (client, _) in zip(told, real, strict=True):
            scores[clients.index(client)] += row
    return Guess(property=scores, candidates=candidates, facts={"imitated": each, "rounds": numbers, "steps": steps})


def _imitated(
    observation: Observation,
    knowledge: Knowledge,
    number: int,
    rows: Tensor,
    steps: int,
    drawn: tuple[int, int, int, int],
) -> Tensor:
    """Return the update of a client that holds some of the windows at ``rows``."""
    seed, *place = drawn
    with torch_seeded(seed, "imitated", *place):
        network = Network(knowledge.make_front(), knowledge.make_trunk(), knowledge.make_head())
    before, trunk = (_first(held.get(number - 1, {})) for held in (observation.client_states, observation.trunk_states))
    network.load_state_dict({**trunk, **before}, strict=False)
    network.class_weights = knowledge.training.get("class_weights")
    generator = torch_generator(seed, "imitated windows", *place)
    size = int(knowledge.training.get("batch_size", 32))
    own = rows[torch.randint(len(rows), (steps * size,), generator=generator)]
    with torch_seeded(seed, "imitated dropout", *place):
        network.train()
        optimizer = optimizer_of(knowledge.training, [p for p in network.parameters() if p.requires_grad])
        for batch in own.split(size):
            optimizer.zero_grad()
            network.loss(knowledge.x[batch], knowledge.y[batch]).backward()
            optimizer.step()
    after = network.state_dict()
    return torch.cat([(after[name] - before[name]).flatten().float() for name in sorted(before)])


def _first(by_client: Mapping[str, State]) -> dict[str, Tensor]:
    return dict(by_client.get("", by_client[min(by_client)])) if by_client else {}


ATTACK = Attack(
    "A7",
    "property",
    ("T5",),
    run,
    "Melis et al. (2019), Exploiting unintended feature leakage in collaborative learning, section 4.2, algorithm 3",
)
