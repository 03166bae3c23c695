"""Deal training windows out to clients."""

from collections.abc import Callable
from typing import Any

import numpy as np

from hcqsfl.data.windows import Windows
from hcqsfl.randomness import numpy_generator
from hcqsfl.registry import lookup

Partition = dict[str, np.ndarray]
"""Client name to indices into the windows that were dealt."""


def by_subject(training: Windows, n_clients: int | None = None, seed: int = 0) -> Partition:
    """Give each subject to one client; every client holds one subject unless ``n_clients`` says otherwise.

    Raises:
        ValueError: there are fewer subjects than clients.
    """
    subjects = np.unique(training.subject)
    if n_clients is None:
        return {str(s): np.flatnonzero(training.subject == s) for s in subjects}
    if not 1 <= n_clients <= len(subjects):
        raise ValueError(
            f"{n_clients} clients were asked for, but the training part has {len(subjects)} subjects to deal out"
        )
    groups = np.array_split(numpy_generator(seed, "partition").permutation(subjects), n_clients)
    return {_name(i, n_clients): np.flatnonzero(np.isin(training.subject, group)) for i, group in enumerate(groups)}


def iid(training: Windows, n_clients: int, seed: int = 0) -> Partition:
    """Deal windows out at random in equal numbers.

    Raises:
        ValueError: there are fewer windows than clients.
    """
    if not 1 <= n_clients <= len(training):
        raise ValueError(f"{n_clients} clients were asked for, but there are {len(training)} training windows")
    order = numpy_generator(seed, "partition").permutation(len(training))
    return {_name(i, n_clients): np.sort(part) for i, part in enumerate(np.array_split(order, n_clients))}


def _name(i: int, n_clients: int) -> str:
    return f"client-{i + 1:0{len(str(n_clients))}d}"


PARTITIONERS: dict[str, Callable[..., Partition]] = {
    "iid": iid,
    "subject": by_subject,
}


def deal(name: str, training: Windows, n_clients: int | None, seed: int, **options: Any) -> Partition:
    """Deal windows out by the partitioner called ``name``.

    Raises:
        ValueError: there is no such partitioner, or it cannot deal these windows out so.
    """
    partitioner = lookup("partitioner", PARTITIONERS, name)
    if n_clients is None and name != "subject":
        raise ValueError(f"the {name} partitioner needs federation.n_clients")
    return partitioner(training, n_clients, seed=seed, **options)
