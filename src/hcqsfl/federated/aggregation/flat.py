"""A round's updates as rows of one matrix, checked and in an order that does not depend on who was first."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hcqsfl.federated.update import Aggregator, State, Undecided, Update, serialise


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each floating tensor of a state lies in one flat vector.

    Attributes:
        shapes: name to shape, in the order of the state.
    """

    shapes: Mapping[str, torch.Size]

    @classmethod
    def of(cls, state: State) -> "Layout":
        """Return the layout of a state's floating tensors."""
        return cls({name: tensor.shape for name, tensor in state.items() if tensor.is_floating_point()})

    def flatten(self, state: State) -> Tensor:
        """Return the floating tensors of a state as ``(n_values,)`` float64."""
        parts = [state[name].detach().reshape(-1) for name in self.shapes]
        return torch.cat(parts).to(torch.float64) if parts else torch.empty(0, dtype=torch.float64)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the parts of ``(n_values,)`` under their names and in their shapes."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = vector.split(sizes)
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


@dataclass(frozen=True, eq=False)
class Updates:
    """What a rule sees: one row a client, in order of the clients' names.

    Attributes:
        clients: who sent which row.
        rows: ``(n_clients, n_values)`` float64, each client's state minus the global state.
        examples: ``(n_clients,)`` float64, how many examples each client says it has.
        version: the newest version that an update started from.
        layout: where each tensor lies in a row.
    """

    clients: tuple[str, ...]
    rows: Tensor
    examples: Tensor
    version: int
    layout: Layout

    def __len__(self) -> int:
        return len(self.clients)


@dataclass(frozen=True, eq=False)
class Flattened(Update):
    """An update that was found fit for a state, for rules that are asked again and again about the same updates.

    Attributes:
        vector: ``(n_values,)`` float64, the floating tensors of its state as the layout has them.
    """

    vector: Tensor

    @classmethod
    def of(cls, rule: str, state: State, update: Update) -> "Flattened":
        """Return an update flattened by the layout of ``state``.

        Raises:
            ValueError: as ``in_order``.
        """
        _check(rule, state, update)
        vector = Layout.of(state).flatten(update.state)
        return cls(update.client, update.state, update.base_version, update.num_examples, vector)


Combine = Callable[[Updates], Tensor]
"""From the updates to the one to take, ``(n_values,)`` float64."""


def in_order(rule: str, state: State, updates: Sequence[Update]) -> list[Update]:
    """Return updates by client, the same whatever order they came in, each of them fit for ``state``.

    Raises:
        ValueError: an update lacks a tensor or has another, has one of another shape or type or one that holds NaN or
            infinity, or counts fewer than no examples; the message names the client.
    """
    for update in updates:
        if not isinstance(update, Flattened):
            _check(rule, state, update)

    def key(update: Update) -> tuple[str, int, int]:
        return update.client, update.base_version, update.num_examples

    if len({key(update) for update in updates}) == len(updates):
        return sorted(updates, key=key)
    # a client may come twice into a buffer of late updates; then what it sent decides
    return sorted(updates, key=lambda update: (*key(update), serialise(update.state)))


def _check(rule: str, state: State, update: Update) -> None:
    who = f"the update of client {update.client}"
    if update.num_examples < 0:
        raise ValueError(f"{rule} refuses {who}: it counts {update.num_examples} examples")
    if odd := state.keys() ^ update.state.keys():
        name = min(odd)
        raise ValueError(f"{rule} refuses {who}: it {'lacks' if name in state else 'has another tensor,'} {name!r}")
    for name, base in state.items():
        tensor = update.state[name]
        if tensor.shape != base.shape or tensor.dtype != base.dtype:
            raise ValueError(
                f"{rule} refuses {who}: {name!r} is {tensor.dtype} {tuple(tensor.shape)} there and {base.dtype} "
                f"{tuple(base.shape)} in the global state"
            )
        if tensor.is_floating_point() and not _all_finite(tensor):
            raise ValueError(f"{rule} refuses {who}: {name!r} holds NaN or infinity")
        if tensor.is_complex():
            raise ValueError(f"{rule} does not aggregate complex tensors such as {name!r}")


def _all_finite(tensor: Tensor) -> bool:
    # a sum is the cheaper question; that of large numbers may overflow where none of them has
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())


def stack(rule: str, state: State, updates: Sequence[Update]) -> Updates:
    """Return the updates as rows, in order of the clients' names.

    Raises:
        ValueError: as ``in_order``.
    """
    ordered = in_order(rule, state, updates)
    layout = Layout.of(state)
    return Updates(
        clients=tuple(update.client for update in ordered),
        rows=torch.stack([_vector(layout, update) for update in ordered]) - layout.flatten(state),
        examples=torch.tensor([update.num_examples for update in ordered], dtype=torch.float64),
        version=max(update.base_version for update in ordered),
        layout=layout,
    )


def _vector(layout: Layout, update: Update) -> Tensor:
    return update.vector if isinstance(update, Flattened) else layout.flatten(update.state)


def agree(tensors: Sequence[Tensor]) -> Tensor:
    """Return the lower median, entry by entry, of one integer or Boolean buffer as the clients hold it.

    Counters and masks cannot be averaged; this is a value that some client holds and that a minority cannot move.
    """
    values = torch.stack(list(tensors))
    if values.dtype == torch.bool:
        return values.to(torch.uint8).sort(dim=0).values[(len(values) - 1) // 2].to(torch.bool)
    return values.sort(dim=0).values[(len(values) - 1) // 2]


def move(rule: str, state: State, updates: Sequence[Update], layout: Layout, step: Tensor) -> dict[str, Tensor]:
    """Return ``state`` moved by ``step (n_values,)``, each tensor in its own type; other buffers as clients ``agree``.

    Raises:
        ValueError: the result does not fit the type of a tensor.
    """
    moved = {}
    steps = layout.unflatten(step)
    for name, base in state.items():
        if name in steps:
            moved[name] = (base.to(torch.float64) + steps[name]).to(base.dtype)
            if not moved[name].isfinite().all():
                raise ValueError(f"{rule} cannot go on: the updates are so large that {name!r} overflows {base.dtype}")
        else:
            moved[name] = agree([update.state[name] for update in updates])
    return moved


def on_updates(rule: str, combine: Combine) -> Aggregator:
    """Return the rule that moves the global state by ``combine`` of the updates; without updates, it stays."""

    def aggregate(state: State, updates: Sequence[Update]) -> State:
        if not updates:
            return state
        stacked = stack(rule, state, updates)
        return move(rule, state, updates, stacked.layout, combine(stacked))

    return aggregate


def weighted_mean(rule: str, rows: Tensor, weights: Tensor, why: str) -> Tensor:
    """Return the mean of ``rows (n, n_values)`` under ``weights (n,)``, which need not sum to one.

    Raises:
        Undecided: the weights sum to zero; ``why`` says what they are.
    """
    total = weights.sum()
    if not total > 0:
        raise Undecided(f"{rule} weights clients by {why}, and all {len(weights)} weights are zero")
    return (weights / total) @ rows


def squared_distances(rows: Tensor) -> Tensor:
    """Return ``(n, n)`` squared Euclidean distances between rows, exactly zero between equal ones."""
    # the matrix product that cdist would use otherwise loses small distances between large rows
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") ** 2


def sorted_columns(rows: Tensor) -> Tensor:
    """Return each column of ``rows (n, n_values)`` in ascending order."""
    # NumPy's takes a third of the time of torch's here
    return torch.from_numpy(np.sort(rows.numpy(), axis=0))


def check_attackers(rule: str, n_attackers: int) -> None:
    """Refuse a number of attackers that is none.

    Raises:
        ValueError: it is negative.
    """
    if n_attackers < 0:
        raise ValueError(f"{rule} was asked to withstand {n_attackers} attackers; n_attackers must be at least 0")


def check_clients(rule: str, n_clients: int, n_attackers: int, needed: int, bound: str) -> None:
    """Refuse a round with too few clients.

    Raises:
        ValueError: there are fewer than ``needed``; ``bound`` says where that number is from.
    """
    if n_clients < needed:
        raise ValueError(
            f"{rule} with {n_attackers} attacker{'' if n_attackers == 1 else 's'} needs at least {needed} clients "
            f"({bound}); this round has {n_clients}"
        )
