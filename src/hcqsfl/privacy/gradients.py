"""What gradient inversions have in common: the network as updates found it, and what guesses would do to it.

All updates that are inverted at once share one batch: each is a problem of its own, and none touches another.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.federated.update import State
from hcqsfl.models.learner import Network
from hcqsfl.models.stacked import evaluate
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.randomness import torch_generator, torch_seeded

LARGEST = 32
"""Windows that are guessed at most; of a longer local training, so many stand for all."""

WIDEST = 5.0
"""Deviations of a standardised signal that a search covers, whatever the auxiliary windows cover."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Updates to be inverted. Legend: u updates, n windows of each.

    Attributes:
        network: of the structure that they all have, dropout off; its own weights play no part.
        start: name to where each local training began, ``(u, ...)``, buffers and fixed weights as well.
        movement: name to where a parameter was less where it came to, ``(u, ...)``, of those that are seen to move:
            with one SGD step, learning rate times gradient.
        n: windows to guess.
        steps: local steps that the guess is led through; 1 stands for all where the optimiser is none to unroll.
        learning_rate: of those steps.
        class_weights: of the loss.
        n_outputs: classes.
        names: whose updates they are.
        guessed_trunk: whether parts of the network were not seen, and fitted to auxiliary windows instead.
    """

    network: Network
    start: Mapping[str, Tensor]
    movement: Mapping[str, Tensor]
    n: int
    steps: int
    learning_rate: float
    class_weights: Tensor | None
    n_outputs: int
    names: tuple[str, ...]
    guessed_trunk: bool

    def __len__(self) -> int:
        """Return u."""
        return len(next(iter(self.start.values())))

    def take(self, rows: Tensor) -> "Problem":
        """Return some of the updates, in the order of ``rows (v,)``, where one may stand more than once."""
        if torch.equal(rows, torch.arange(len(self))):
            return self
        start, movement = _rows(self.start, rows), _rows(self.movement, rows)
        return replace(self, start=start, movement=movement, names=tuple(self.names[i] for i in rows.tolist()))

    def moved(self, x: Tensor, soft: Tensor) -> dict[str, Tensor]:
        """Return what local trainings on windows ``x (u, n, n_chans, n_times)`` would move, ``(u, ...)`` each.

        Differentiable to both arguments, through every local step and through the circuit.

        Args:
            x: windows.
            soft: ``(u, n, n_outputs)`` shares of the classes.
        """
        trained = [name for name, p in self.network.named_parameters() if p.requires_grad]
        # of a single step, what is not seen need not be known
        names = trained if self.steps > 1 else self.movement
        start = {name: self.start[name].detach().requires_grad_() for name in names}
        held = start
        moved: dict[str, Tensor] = {}
        for _ in range(self.steps):
            logits = evaluate(self.network, {**self.start, **held}, x)
            loss = weighted_cross_entropy(logits, soft, self.class_weights).sum()
            slopes = torch.autograd.grad(loss, list(held.values()), create_graph=True, materialize_grads=True)
            step = {name: self.learning_rate * slope for name, slope in zip(names, slopes, strict=True)}
            moved = {name: moved[name] + step[name] for name in names} if moved else step
            held = {name: start[name] - moved[name] for name in names} if self.steps > 1 else start
        return {name: moved[name] for name in self.movement}


def weighted_cross_entropy(logits: Tensor, soft: Tensor, weights: Tensor | None) -> Tensor:
    """Return the class-weighted mean cross entropy ``(...)`` of ``(..., n, n_outputs)``; torch's for hard labels."""
    weighted = soft if weights is None else soft * weights
    return -(weighted * logits.log_softmax(dim=-1)).sum(dim=(-2, -1)) / weighted.sum(dim=(-2, -1))


def seen_updates(
    observation: Observation, knowledge: Knowledge
) -> dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Return by client what is seen of the network before and after each update that is to be inverted.

    ``Knowledge.extra`` may name the ``round`` (the first unless given), the ``clients`` (all of that round unless
    given) and the ``parts`` whose movement is read (``client``, ``trunk``).

    Raises:
        NotApplicable: no update is seen, or not what it began from.
    """
    threat = observation.threat
    if not observation.updates:
        raise NotApplicable(f"{threat} sees no updates: no client half is handed in under this protocol")
    number = int(knowledge.extra.get("round", min(observation.updates)))
    clients: Sequence[str] = knowledge.extra.get("clients", sorted(observation.updates[number]))
    found = {}
    for client in clients:
        before = _of(observation.client_states.get(number - 1, {}), client)
        if not before:
            raise NotApplicable(f"{threat} does not see what the updates of round {number} began from")
        after: dict[str, Tensor] = dict(observation.updates[number][client])
        if all(torch.equal(before[name], t) for name, t in after.items() if name in before):
            raise NotApplicable(f"the update of {client} in round {number} is where it began: nothing moved")
        trunk = _of(observation.trunk_states.get(number - 1, {}), client)
        if "trunk" in knowledge.extra.get("parts", ("client",)):
            if not trunk:
                raise NotApplicable(f"{threat} does not see the trunk, whose movement was to be read")
            after |= _of(observation.trunk_states.get(number, {}), client)
        found[client] = {**trunk, **before}, after
    return found


def windows_of_each(observation: Observation, knowledge: Knowledge, clients: Iterable[str]) -> int:
    """Return how many windows to guess of an update: ``Knowledge.extra["n"]``, or what the smallest client says."""
    fewest = min(observation.examples.get(client, 1) for client in clients)
    return min(LARGEST, int(knowledge.extra.get("n", fewest)))


def pose(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Problem:
    """Put together what an adversary knows of updates, which are told as in ``seen_updates`` and ``windows_of_each``.

    Halves that the adversary does not see are fitted to its auxiliary windows first, at up to a quarter of the budget
    of one update.

    Raises:
        NotApplicable: no update is seen, or not what it began from.
    """
    updates = seen_updates(observation, knowledge)
    with torch_seeded(seed, "gradient inversion"):
        network = Network(knowledge.make_front(), knowledge.make_trunk(), knowledge.make_head())
    network.eval()
    for module in network.modules():
        if isinstance(module, QuantumLayer):
            module.backend = "fused"  # which differentiates twice, and takes all updates in one call
    drawn = {name: t.clone() for name, t in network.state_dict().items()}
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    unseen: list[str] = []
    starts: list[tuple[State, State]] = []  # what is seen of each, and the whole
    movements: list[dict[str, Tensor]] = []
    for before, after in updates.values():
        start = next((whole for seen, whole in starts if _same(seen, before)), None)
        if start is None:
            network.load_state_dict({**drawn, **before})
            unseen = [name for name, _ in network.named_parameters() if name not in before]
            _fit(network, unseen, knowledge, budget, (budget.evaluations - budget.spent) // (4 * len(updates)), seed)
            start = {name: t.clone() for name, t in network.state_dict().items()}
        starts.append((before, start))
        movements.append({name: before[name] - t for name, t in after.items() if name in before and name in trained})
    movement = {name: torch.stack([each[name] for each in movements]) for name in movements[0]}
    t = knowledge.training
    plain = t.get("optimizer") == "sgd" and not t.get("momentum")
    return Problem(
        network,
        _stacked([start for _, start in starts]),
        {name: m for name, m in movement.items() if m.any()},
        windows_of_each(observation, knowledge, updates),
        int(t.get("local_epochs", 1)) if plain else 1,
        float(t.get("learning_rate", 0.01)),
        t.get("class_weights"),
        knowledge.n_outputs,
        tuple(updates),
        bool(unseen),
    )


def _stacked(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return states as the rows of one; a state that all share is held once."""
    first = states[0]
    if all(state is first for state in states):
        return {name: t.expand(len(states), *t.shape) for name, t in first.items()}
    return {name: torch.stack([state[name] for state in states]) for name in first}


def _rows(state: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: t[:1].expand(len(rows), *t.shape[1:]) if not t.stride(0) else t[rows] for name, t in state.items()}


def _same(state: State, other: State) -> bool:
    return state.keys() == other.keys() and all(torch.equal(t, other[name]) for name, t in state.items())


def label_counts(problem: Problem, knowledge: Knowledge) -> Tensor:
    """Return labels ``(u, n)``, in ascending order, that fit the movement of the last layer's bias.

    The gradient of a class's bias is its mean probability less the (weighted) share of its labels. The probabilities
    are taken from the auxiliary windows. With one window the class with the lowest gradient is the label, whatever the
    probabilities.

    Raises:
        NotApplicable: the last layer is not in what the adversary reads.

    Source: Zhao, Mopuri & Bilen (2020), iDLG, section 3.1, for one window; Wainakh et al. (2022), User-level label
    leakage from gradients in federated learning, section 4, for several.
    """
    given = knowledge.extra.get("labels")
    if given is not None:
        return torch.as_tensor(given).view(len(problem), -1)[:, : problem.n]
    found = [name for name, p in problem.network.head.named_parameters() if p.shape == (problem.n_outputs,)]
    name = f"head.{found[-1]}" if found else ""
    if name not in problem.movement:
        raise NotApplicable("the head's last layer does not move in what this adversary reads, so it tells no labels")
    slopes = problem.movement[name] / (problem.learning_rate * problem.steps)
    if problem.n == 1:
        return slopes.argmin(dim=1)[:, None]
    with torch.no_grad():
        logits = evaluate(problem.network, problem.start, knowledge.x.expand(len(problem), *knowledge.x.shape))
    shares = (logits.softmax(dim=2).mean(dim=1) - slopes).clamp_min(0)
    if problem.class_weights is not None:
        shares = shares / problem.class_weights
    shares = shares / shares.sum(dim=1, keepdim=True).clamp_min(1e-12) * problem.n
    counts = shares.floor().long()
    for row, share in zip(counts, shares, strict=True):
        # what is left goes to the largest remainders
        for c in (share - row).argsort(descending=True)[: problem.n - int(row.sum())]:
            row[c] += 1
    return torch.stack([torch.arange(problem.n_outputs).repeat_interleave(row) for row in counts])


Distance = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""Made and seen movements ``(u, ...)`` to how far they lie apart ``(u,)``."""


def squared_error(made: Mapping[str, Tensor], movement: Mapping[str, Tensor]) -> Tensor:
    """Return the squared distances ``(u,)`` of movements over the squared length of the second."""
    apart = {name: made[name] - m for name, m in movement.items()}
    return _inner(apart, apart) / _inner(movement, movement)


def cosine_distance(made: Mapping[str, Tensor], movement: Mapping[str, Tensor]) -> Tensor:
    """Return one less the cosine ``(u,)`` of movements, all parameters of an update as one vector."""
    lengths = [_inner(all_, all_).clamp_min(1e-30).sqrt() for all_ in (made, movement)]
    return 1 - _inner(made, movement) / (lengths[0] * lengths[1])


def _inner(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    # not flattened: slopes of dense layers lie transposed, and would be copied
    each = [(left[name] * t).unsqueeze(-1).sum(dim=list(range(1, t.dim() + 1))) for name, t in right.items()]
    return torch.stack(each).sum(dim=0)


def tries(problem: Problem, budget: Budget) -> tuple[Problem, int]:
    """Return each update once for every trial of the budget, and the evaluations of one, less one for a last look."""
    rows = torch.arange(len(problem)).repeat(budget.trials)
    return problem.take(rows), max(1, (budget.evaluations - budget.spent) // len(rows) - 1)


def noise(problem: Problem, trials: int, shape: Sequence[int], seed: int, what: str) -> Tensor:
    """Return standard normal starts ``(trials * u, *shape)`` in the order of ``tries``: each update's are its own."""
    drawn = [torch.randn((trials, *shape), generator=torch_generator(seed, what, name)) for name in problem.names]
    return torch.stack(drawn, dim=1).flatten(0, 1)


def best_tries(errors: Tensor, problem: Problem) -> Tensor:
    """Return the place ``(u,)`` of each update's best try among ``errors (trials * u,)``, in the order of ``tries``."""
    return errors.view(-1, len(problem)).argmin(dim=0) * len(problem) + torch.arange(len(problem))


def box(knowledge: Knowledge) -> tuple[Tensor, Tensor]:
    """Return limits ``(n_chans, 1)`` of what is searched for: the range of the auxiliary windows, and of signals more.

    Levels differ from person to person, so that few auxiliary people do not span what others have. Signals are
    standardised, as every party to the protocol knows: what lies within ``WIDEST`` deviations is searched as well.
    """
    low, high = knowledge.x.amin(dim=(0, 2))[:, None], knowledge.x.amax(dim=(0, 2))[:, None]
    if knowledge.x.shape[2] == 1:
        return low, high
    return low.clamp_max(-WIDEST), high.clamp_min(WIDEST)


def _of(by_client: Mapping[str, State], client: str) -> dict[str, Tensor]:
    return dict(by_client.get(client, by_client.get("", {})))


def _fit(
    network: Network, names: Sequence[str], knowledge: Knowledge, budget: Budget, evaluations: int, seed: int
) -> None:
    """Fit unseen halves to the auxiliary windows, at so many evaluations."""
    chosen = [p for name, p in network.named_parameters() if name in set(names) and p.requires_grad]
    if not chosen:
        return
    optimizer = torch.optim.Adam(chosen, lr=1e-2)
    generator = torch_generator(seed, "unseen halves")
    weights: Any = knowledge.training.get("class_weights")
    for _ in range(max(1, evaluations)):
        budget.spend()
        batch = torch.randint(len(knowledge.x), (min(64, len(knowledge.x)),), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(knowledge.x[batch]), knowledge.y[batch], weight=weights).backward()
        optimizer.step()
    network.zero_grad(set_to_none=True)
