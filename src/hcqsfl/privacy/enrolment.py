"""What attacks on people have in common: rows whose people are known."""

import numpy as np
from torch import Tensor

from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.views import averaged, rows


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

    Raises:
        NotApplicable: this adversary does not see them.
    """
    view = knowledge.extra.get("view", "smashed")
    if knowledge.releases and view not in ("updates", "windows"):
        return averaged(observation, knowledge.releases, view)
    return rows(observation, view)
