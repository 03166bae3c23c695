"""What attacks on people have in common: rows whose people are known."""

import numpy as np
from torch import Tensor

from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.inversion.releases import apart, by_round, laid_out, widest
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.privacy.views import averaged, rows

MOST_ROUNDS = 4
"""Rounds whose differences are read."""


def enrolled(knowledge: Knowledge) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return places of the enrolled rows, the column of each one's person (or value), and what the columns stand for.

    Raises:
        ValueError: fewer than two people are enrolled.
    """
    candidates = tuple(sorted(set(knowledge.enrolled.values())))
    if len(candidates) < 2:
        raise ValueError(
            f"{len(candidates)} of the people are enrolled; an attack that tells people apart needs at least 2"
        )
    places = np.array(sorted(knowledge.enrolled), dtype=np.int64)
    column = {name: i for i, name in enumerate(candidates)}
    return places, np.array([column[knowledge.enrolled[int(i)]] for i in places], dtype=np.int64), candidates


def read(observation: Observation, knowledge: Knowledge) -> Tensor:
    """Return the rows that ``Knowledge.extra["view"]`` names, ``(n, width)``, averaged where releases can be linked.

    With ``Knowledge.extra["differences"]`` they are what is left of each round's releases less their mean instead: how
    smashed data moved from round to round, without whatever noise stays the same.

    Raises:
        NotApplicable: this adversary does not see them.
    """
    view = knowledge.extra.get("view", "smashed")
    if knowledge.extra.get("differences"):
        seen = by_round(observation, knowledge)
        stacked, there = laid_out(seen, widest(seen, MOST_ROUNDS))
        if there.shape[1] < 2:
            raise NotApplicable("no window was seen in two rounds that could be linked: there is nothing to subtract")
        width = stacked[0, 0].numel()
        return apart(stacked.flatten(2), there)[:, width:]
    if knowledge.releases and view not in ("updates", "windows"):
        return averaged(observation, knowledge.releases, view)
    return rows(observation, view)
