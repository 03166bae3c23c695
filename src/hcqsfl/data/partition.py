"""Deal training windows out to clients, each window to exactly one."""

import heapq
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcqsfl.data.windows import Windows
from hcqsfl.randomness import numpy_generator
from hcqsfl.registry import lookup, suggest

Partition = dict[str, np.ndarray]
"""Client name to indices into the windows that were dealt, ascending."""


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


def by_host(training: Windows, n_clients: int | None = None, seed: int = 0, min_size: int = 1) -> Partition:
    """Give each host to one client, and merge the smallest until every client has enough; nothing is drawn.

    For TON_IoT's network file, whose subjects are the hosts that sent the flows: one sent a third of them, some a
    single one. The two smallest groups are merged (of equals, the first by name) as long as there are more than
    ``n_clients``, or one has fewer than ``min_size`` windows. A client is called after its largest host,
    ``192.168.1.30+4`` with four more.

    Args:
        training: the windows; ``subject`` is the host.
        n_clients: how many clients; as many as possible without it.
        seed: not used.
        min_size: windows that each client has at least.

    Raises:
        ValueError: there are fewer hosts than clients, or too few are left once each has ``min_size`` windows.
    """
    hosts, counts = np.unique(training.subject, return_counts=True)
    _check_sizes(len(training), n_clients or 1, min_size)
    if n_clients is not None and n_clients > len(hosts):
        raise ValueError(f"{n_clients} clients were asked for, but the training part has {len(hosts)} hosts")
    size = {str(host): int(count) for host, count in zip(hosts, counts, strict=True)}
    groups = [(count, [host]) for host, count in size.items()]
    heapq.heapify(groups)
    while len(groups) > 1 and (len(groups) > (n_clients or math.inf) or groups[0][0] < min_size):
        (few, smaller), (more, larger) = heapq.heappop(groups), heapq.heappop(groups)
        heapq.heappush(groups, (few + more, sorted([*larger, *smaller])))
    if n_clients is not None and len(groups) < n_clients:
        raise ValueError(
            f"{n_clients} clients with at least {min_size} windows were asked for, but merging the smallest of "
            f"{len(hosts)} hosts until each client has so many leaves {len(groups)}"
        )
    dealt = {}
    for _, members in sorted(groups, key=lambda group: (-group[0], group[1])):
        name = max(members, key=lambda host: size[host]) + (f"+{len(members) - 1}" if len(members) > 1 else "")
        dealt[name] = np.flatnonzero(np.isin(training.subject, members))
    return dealt


def iid(training: Windows, n_clients: int, seed: int = 0) -> Partition:
    """Deal windows out at random in equal numbers.

    Raises:
        ValueError: there are fewer windows than clients.
    """
    if not 1 <= n_clients <= len(training):
        raise ValueError(f"{n_clients} clients were asked for, but there are {len(training)} training windows")
    order = numpy_generator(seed, "partition").permutation(len(training))
    return {_name(i, n_clients): np.sort(part) for i, part in enumerate(np.array_split(order, n_clients))}


def dirichlet(
    training: Windows, n_clients: int, seed: int = 0, alpha: float = 0.5, min_size: int = 10, retries: int = 100
) -> Partition:
    """Deal the windows of each class out in shares drawn from a Dirichlet distribution: label skew.

    Draws anew until every client has ``min_size`` windows. After ``retries`` draws the last one is repaired: clients
    that lack windows get them one by one from whoever then has most, from that client's most frequent class.

    Args:
        training: the windows.
        n_clients: how many clients.
        seed: root seed.
        alpha: concentration, above 0: the smaller, the more a class gathers with few clients.
        min_size: windows that each client has at least, 1 or more; 10 as in the benchmark cited.
        retries: draws before the repair, at least 1.

    Raises:
        ValueError: an option is out of range, or there are too few windows for ``min_size`` each.

    Source: Yurochkin et al. (2019), Bayesian nonparametric federated learning of neural networks, section 4; Li et al.
    (2022), Federated learning on non-IID data silos (NIID-Bench), section 4.1.
    """
    _check_alpha("dirichlet", alpha)
    classes = [np.flatnonzero(training.y == y) for y in np.unique(training.y)]

    def draw(generator: np.random.Generator) -> np.ndarray:
        owner = np.empty(len(training), dtype=np.int64)
        for windows in classes:
            shares = generator.dirichlet(np.full(n_clients, alpha))
            owner[generator.permutation(windows)] = _owners(shares, len(windows))
        return owner

    return _with_min_size(training, n_clients, seed, draw, min_size, retries)


def quantity_skew(
    training: Windows, n_clients: int, seed: int = 0, alpha: float = 0.5, min_size: int = 10, retries: int = 100
) -> Partition:
    """Deal windows out at random, in numbers drawn from a Dirichlet distribution: clients of unequal size.

    Args:
        training, n_clients, seed, min_size, retries: as in ``dirichlet``.
        alpha: concentration, above 0: the smaller, the more windows gather with few clients.

    Raises:
        ValueError: an option is out of range, or there are too few windows for ``min_size`` each.

    Source: Li et al. (2022), Federated learning on non-IID data silos (NIID-Bench), section 4.3.
    """
    _check_alpha("quantity_skew", alpha)

    def draw(generator: np.random.Generator) -> np.ndarray:
        owner = np.empty(len(training), dtype=np.int64)
        shares = generator.dirichlet(np.full(n_clients, alpha))
        owner[generator.permutation(len(training))] = _owners(shares, len(training))
        return owner

    return _with_min_size(training, n_clients, seed, draw, min_size, retries)


def shards(training: Windows, n_clients: int, seed: int = 0, shards_per_client: int = 1) -> Partition:
    """Cut each class into shards and deal them out at random; with one shard, a client holds one class only.

    Each class is cut into about equal shards, in number as near to its share of the windows as whole numbers allow
    and at least one; no shard holds two classes, unlike the equal slices of the source.

    Args:
        training: the windows.
        n_clients: how many clients.
        seed: root seed.
        shards_per_client: at least 1; a client holds at most so many classes.

    Raises:
        ValueError: there are fewer shards than classes or fewer windows than shards.

    Source: McMahan et al. (2017), Communication-efficient learning of deep networks from decentralized data, section 3
    (the pathological non-IID partition).
    """
    n_shards = n_clients * shards_per_client
    if n_clients < 1 or shards_per_client < 1:
        raise ValueError(f"{n_clients} clients with {shards_per_client} shards each were asked for; 1 is the least")
    classes, counts = np.unique(training.y, return_counts=True)
    if not len(classes) <= n_shards <= len(training):
        raise ValueError(
            f"{n_clients} clients with {shards_per_client} shards each make {n_shards} shards of one class, but there "
            f"are {len(classes)} classes and {len(training)} training windows; between the two is possible"
        )
    generator = numpy_generator(seed, "partition")
    pieces = [
        piece
        for y, n_pieces in zip(classes, _apportion(counts, n_shards), strict=True)
        for piece in np.array_split(generator.permutation(np.flatnonzero(training.y == y)), n_pieces)
    ]
    order = generator.permutation(n_shards).reshape(n_clients, shards_per_client)
    return {_name(i, n_clients): np.sort(np.concatenate([pieces[j] for j in mine])) for i, mine in enumerate(order)}


def composition(training: Windows, dealt: Partition) -> np.ndarray:
    """Return ``(n_clients, n_classes)``, how many windows of each class each client holds, in the partition's order."""
    n_classes = len(training.classes)
    return np.stack([np.bincount(training.y[windows], minlength=n_classes) for windows in dealt.values()])


def _apportion(counts: np.ndarray, seats: int) -> np.ndarray:
    """Share ``seats`` out in proportion to ``counts``: each gets one, and none more than it counts (D'Hondt's rule)."""
    given = np.ones(len(counts), dtype=np.int64)
    for _ in range(seats - len(counts)):
        quotient = np.where(given < counts, counts / (given + 1), -1.0)
        given[int(quotient.argmax())] += 1
    return given


def _owners(shares: np.ndarray, n: int) -> np.ndarray:
    """Return ``(n,)`` ascending client numbers, in numbers as near to ``shares`` as cutting at whole places allows."""
    cuts = np.round(np.cumsum(shares)[:-1] * n).astype(np.int64)
    return np.repeat(np.arange(len(shares)), np.diff(cuts, prepend=0, append=n))


def _with_min_size(
    training: Windows,
    n_clients: int,
    seed: int,
    draw: Callable[[np.random.Generator], np.ndarray],
    min_size: int,
    retries: int,
) -> Partition:
    _check_sizes(len(training), n_clients, min_size)
    if retries < 1:
        raise ValueError(f"{retries} draws were asked for; at least 1 is needed")
    generator = numpy_generator(seed, "partition")
    for _ in range(retries):
        owner = draw(generator)
        if np.bincount(owner, minlength=n_clients).min() >= min_size:
            break
    else:
        _repair(owner, training.y, n_clients, min_size)
    return {_name(i, n_clients): np.flatnonzero(owner == i) for i in range(n_clients)}


def _repair(owner: np.ndarray, y: np.ndarray, n_clients: int, min_size: int) -> None:
    sizes = np.bincount(owner, minlength=n_clients)
    for poor in range(n_clients):
        while sizes[poor] < min_size:
            rich = int(sizes.argmax())
            held = np.flatnonzero(owner == rich)
            window = held[y[held] == np.bincount(y[held]).argmax()][-1]
            owner[window] = poor
            sizes[rich] -= 1
            sizes[poor] += 1


def _check_alpha(name: str, alpha: float) -> None:
    if not 0 < alpha < math.inf:
        raise ValueError(f"the {name} partitioner was given alpha = {alpha:g}; it must be above 0")


def _check_sizes(n_windows: int, n_clients: int, min_size: int) -> None:
    if n_clients < 1 or min_size < 1:
        raise ValueError(f"{n_clients} clients with at least {min_size} windows were asked for; 1 of each is the least")
    if n_clients * min_size > n_windows:
        raise ValueError(
            f"{n_clients} clients with at least {min_size} windows each need {n_clients * min_size}, but there are "
            f"{n_windows} training windows; lower n_clients or min_size"
        )


def _name(i: int, n_clients: int) -> str:
    return f"client-{i + 1:0{len(str(n_clients))}d}"


PARTITIONERS: dict[str, Callable[..., Partition]] = {
    "dirichlet": dirichlet,
    "host": by_host,
    "iid": iid,
    "quantity_skew": quantity_skew,
    "shards": shards,
    "subject": by_subject,
}


def deal(name: str, training: Windows, n_clients: int | None, seed: int, **options: Any) -> Partition:
    """Deal windows out by the partitioner called ``name``.

    Raises:
        ValueError: there is no such partitioner, it does not take an option, or it cannot deal these windows out so.
    """
    partitioner = lookup("partitioner", PARTITIONERS, name)
    parameters = inspect.signature(partitioner).parameters
    known = [option for option in parameters if option not in ("training", "n_clients", "seed")]
    for option in options:
        if option not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(
                f"the {name} partitioner has no option {option!r}{suggest(option, known)} Its options: {takes}"
            )
    if n_clients is None and parameters["n_clients"].default is not None:
        raise ValueError(f"the {name} partitioner needs federation.n_clients")
    return partitioner(training, n_clients, seed=seed, **options)
