"""What an adversary sees: a record, filtered by a threat model. An attack gets this and what it knows, nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hcqsfl.federated.update import State
from hcqsfl.privacy.record import Exchange, Record
from hcqsfl.privacy.threats import THREATS, Threat
from hcqsfl.randomness import torch_generator
from hcqsfl.registry import lookup


class NotApplicable(ValueError):
    """The protocol gives this attack nothing to attack, or has given it away by design; the message says which."""


@dataclass(frozen=True)
class Target:
    """One row of one message: which window it is, only the scorer knows.

    Attributes:
        exchange: place in ``Observation.exchanges``.
        row: place in its batch.
    """

    exchange: int
    row: int


@dataclass(frozen=True, eq=False)
class Observation:
    """Exactly what a threat model sees.

    Attributes:
        threat: a key of ``THREATS``.
        label_sharing: whether labels cross the cut.
        exchanges: training steps at the cut.
        targets: the rows that the attack is asked about, in the order of its guess.
        trunk_states: round to the server's weights after it; with a trunk copy for each client, by client.
        client_states: round to the global client half after it (round 0: before training). Where clients keep their
            halves, a colluding client has its own alone, and a fed server has none.
        updates: round to client to the client half that it handed in.
        examples: client to the number of windows it says it has.
        asked_x, asked_y: windows ``(n, n_chans, n_times)`` and labels ``(n,)`` that a question is about which is not
            about rows at the cut: whether they were trained on, or how to change them.
        query: the final model: windows ``(b, n_chans, n_times)`` to logits ``(b, n_outputs)``.
        network: the final model, where the adversary may look inside.
    """

    threat: str
    label_sharing: bool
    exchanges: Sequence[Exchange] = ()
    targets: Sequence[Target] = ()
    trunk_states: Mapping[int, Mapping[str, State]] = field(default_factory=dict)
    client_states: Mapping[int, Mapping[str, State]] = field(default_factory=dict)
    updates: Mapping[int, Mapping[str, State]] = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)
    asked_x: Tensor | None = None
    asked_y: Tensor | None = None
    query: Callable[[Tensor], Tensor] | None = None
    network: nn.Module | None = None

    def stacked(self, what: str = "smashed") -> Tensor:
        """Return the targets' rows of ``smashed``, ``features``, ``gradient_features`` or ``gradient_smashed``.

        Returns:
            ``(n_targets, width)``.

        Raises:
            NotApplicable: this did not cross the cut, or this adversary does not see it.
        """
        rows = []
        for target in self.targets:
            tensor = getattr(self.exchanges[target.exchange], what)
            if tensor is None:
                raise NotApplicable(f"{what} is nothing that {self.threat} sees in this protocol")
            rows.append(tensor[target.row])
        if not rows:
            raise NotApplicable(f"{self.threat} sees no {what}: there are no targets at the cut")
        return torch.stack(rows)

    def targets_alone(self) -> "Observation":
        """Return this with those steps alone that hold a target: for attacks that read nothing else."""
        held = sorted({target.exchange for target in self.targets})
        place = {exchange: i for i, exchange in enumerate(held)}
        targets = [Target(place[target.exchange], target.row) for target in self.targets]
        return replace(self, exchanges=[self.exchanges[i] for i in held], targets=targets)

    def last(self, states: str) -> State:
        """Return the newest of ``trunk_states`` or ``client_states``.

        Raises:
            NotApplicable: this adversary does not see them.
        """
        held: Mapping[int, Mapping[str, State]] = getattr(self, states)
        if not held:
            raise NotApplicable(f"{self.threat} does not see {states.replace('_', ' ')}")
        newest = held[max(held)]
        return newest[min(newest)]


def observe(record: Record, threat: str, *, label_sharing: bool, targets: Sequence[Target] = ()) -> Observation:
    """Filter a record by a threat model.

    Args:
        record: what was recorded.
        threat: a key of ``THREATS``.
        label_sharing: whether labels cross the cut.
        targets: rows that the attack is asked about; places in ``record.exchanges``.

    Raises:
        ValueError: there is no such threat model.
    """
    seen = lookup("threat model", THREATS, threat)
    made = Observation(threat, label_sharing)
    if seen.cut and not seen.own:
        made = replace(made, exchanges=record.exchanges, targets=targets)
    if seen.trunk:
        states = {n: _below(r.parts, "trunk") for n, r in record.rounds.items()}
        made = replace(made, trunk_states={n: s for n, s in states.items() if s})
    if seen.client:
        states = {n: _seen_halves(_below(r.parts, "client"), seen) for n, r in record.rounds.items()}
        made = replace(made, client_states={n: s for n, s in states.items() if s})
    if seen.updates:
        given = {n: _below(r.updates, "client") for n, r in record.rounds.items()}
        examples = {client: count for r in record.rounds.values() for client, count in r.examples.items()}
        made = replace(made, updates={n: u for n, u in given.items() if u}, examples=examples)
    return made


def _seen_halves(states: Mapping[str, State], seen: Threat) -> Mapping[str, State]:
    """Return the client halves that an adversary holds: the global one; of kept ones, a colluder's own."""
    kept = {client: state for client, state in states.items() if client}
    if not kept:
        return states
    return {} if seen.updates else {min(kept): kept[min(kept)]}


def as_noise(observation: Observation, seed: int) -> Observation:
    """Return the observation with every tensor at the cut replaced by normal noise of its mean and deviation.

    A negative control: whatever an attack still finds in this, it did not find in the data.
    """
    generator = torch_generator(seed, "negative control")

    def noise(tensor: Tensor) -> Tensor:
        drawn = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        return tensor.mean() + tensor.std(correction=0) * drawn

    def maybe(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else noise(tensor)

    replaced = [
        replace(
            e,
            smashed=noise(e.smashed),
            features=maybe(e.features),
            gradient_features=maybe(e.gradient_features),
            gradient_smashed=maybe(e.gradient_smashed),
        )
        for e in observation.exchanges
    ]
    return replace(observation, exchanges=replaced)


def _below(parts: Mapping[str, Mapping[str, State]], kind: str) -> Mapping[str, State]:
    """Return the states of one kind of part by client, over the groups of a federation of several data sets."""
    return {
        client: state
        for part, states in parts.items()
        if part.partition(":")[0] == kind
        for client, state in states.items()
    }
