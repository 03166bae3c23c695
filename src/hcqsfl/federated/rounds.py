"""Synchronous rounds: one engine for every protocol.

A network falls into parts, each of which follows a rule (see ``hcqsfl.federated.parts``). In each round every client
that takes part trains, one after the other; then the parts are aggregated. A client that fails in its turn, is away, or
hands in something unfit is left out, the round goes on, and the round tells of it.

Source: Gupta & Raskar (2018) for sequential split learning; Thapa et al. (2022), SplitFed: when federated learning
meets split learning, algorithms 1-2, for v1 and v2; McMahan et al. (2017) for federated averaging.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from hcqsfl.federated.client import Client, LocalTraining
from hcqsfl.federated.clock import Clock
from hcqsfl.federated.participation import Participation
from hcqsfl.federated.parts import Part, below
from hcqsfl.federated.update import State, Undecided, Update, unfit

TurnFailure = (RuntimeError, ValueError, OSError, ArithmeticError)
"""What a client's turn may end in without ending the run: a refusal by the server, a broken wire, an overflow."""


class FederationError(ValueError):
    """No client could take its turn: that is no client's fault."""


@dataclass(frozen=True)
class Event:
    """Something in a round that a reader must know.

    Attributes:
        kind: ``away``, ``failed``, ``late``, ``unfit``, ``clipped``, ``rolled_back``, ``left_out``,
            ``not_aggregated``, ``flagged`` or ``quarantined``.
        client: whom it is about; empty where it is about the round.
        what: in words.
    """

    kind: str
    client: str
    what: str


@dataclass(frozen=True)
class Round:
    """What came of a round.

    Attributes:
        number: the round, from 1.
        trained: what came of each client's turn, of those that finished it.
        received, sent: bytes of states that each client got from and gave to the fed server.
        seconds: how long the round took on the simulated clock.
        clock: the simulated clock at its end.
        events: what went otherwise than planned.
        staleness: of each update that was aggregated, rounds since the version that its training started from.
        updates: by part, what clients handed in, as far as whoever aggregates saw it.
    """

    number: int
    trained: Mapping[str, LocalTraining]
    received: Mapping[str, int] = field(default_factory=dict)
    sent: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    clock: float = 0.0
    events: tuple[Event, ...] = ()
    staleness: tuple[int, ...] = ()
    updates: Mapping[str, Sequence[Update]] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """Mean training loss, each client weighted by its windows; ``None`` where nobody trained."""
        total = sum(result.num_examples for result in self.trained.values())
        if not total:
            return None
        return sum(result.loss * result.num_examples for result in self.trained.values()) / total


class Memory(Protocol):
    """Something that remembers, and belongs in a checkpoint."""

    def tensors(self) -> dict[str, Tensor]:
        """Return what it remembers, as named tensors."""
        ...

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        ...


Turn = tuple[str, LocalTraining | None, list["Event"]]
"""Whose turn it was, what came of it unless it failed, and what went otherwise than planned."""


class Together(Protocol):
    """Lets the clients of a round train at once, where nothing that one does touches another before the round ends."""

    def __call__(self, federation: "Federation", present: Sequence[str], number: int) -> Iterator[Turn]:
        """Set the clients up, let them train through a turn, and yield what came of each, in any order."""
        ...


@dataclass(eq=False)
class Federation:
    """Clients, the parts of their networks, and the round they have reached.

    Attributes:
        clients: the participants.
        parts: the parts of their networks; one of them named ``"client"`` or ``"client:..."`` holds each client.
        seed: root seed.
        participation: who takes part in a round.
        clock: how long turns take.
        memories: whatever else remembers something from turn to turn, such as codecs, by name.
        together: trains the clients of a round at once; not given, they take turns.
        round: rounds done.
        time: the simulated clock, in seconds.
    """

    clients: Sequence[Client]
    parts: Sequence[Part]
    seed: int
    participation: Participation = field(default_factory=Participation)
    clock: Clock = field(default_factory=Clock)
    memories: Mapping[str, Memory] = field(default_factory=dict)
    together: Together | None = None
    round: int = 0
    time: float = 0.0

    @property
    def in_turn(self) -> bool:
        """Whether clients wait for one another, so that their times add up."""
        return any(part.rule in ("shared", "relay") for part in self.parts)

    def parts_of(self, client: str) -> list[Part]:
        """Return the parts that a client holds a copy of."""
        return [part for part in self.parts if client in part.modules]

    def run_round(self) -> Round:
        """Run one round."""
        number = self.round + 1
        present, away = self.participation.draw([client.name for client in self.clients], self.seed, number)
        events = [Event("away", name, f"client {name} was drawn for round {number} but is away") for name in away]
        for part in self.parts:
            part.expect(present)
        updates: dict[str, list[Update]] = {part.name: [] for part in self.parts}
        trained: dict[str, LocalTraining] = {}
        times: list[float] = []
        received: dict[str, int] = {}
        sent: dict[str, int] = {}
        turns = self._in_turn(present, number) if self.together is None else self.together(self, present, number)
        for name, result, told in turns:
            parts = self.parts_of(name)
            sizes = [part.state_bytes for part in parts]
            received[name] = sum(down for down, _ in sizes)
            events += told
            if result is None:
                continue
            sent[name] = sum(up for _, up in sizes)
            n_bytes = received[name] + sent[name] + result.n_bytes
            seconds = self.clock.turn(self.seed, name, number, result.steps, n_bytes, result.messages)
            times.append(seconds)
            if seconds > self.clock.deadline:
                events.append(Event("late", name, f"client {name} took {seconds:.3g} s of {self.clock.deadline:g} s"))
                continue
            trained[name] = result
            if left_out(told):
                continue
            for part in parts:
                update = part.take_in(name, result.num_examples, self.round)
                if update is None:
                    continue
                if why := unfit(update, part.state, self.round):
                    events.append(Event("unfit", name, f"the {part.name} update of client {name} {why}"))
                else:
                    updates[part.name].append(update)
        failures = [event for event in events if event.kind == "failed"]
        if present and len(failures) == len(present):
            raise FederationError(f"every client of round {number} failed; the first: {failures[0].what}")
        for part in self.parts:
            events += aggregate(part, updates[part.name], first=self.round == 0)
        seconds = min(sum(times) if self.in_turn else max(times, default=0.0), self.clock.deadline)
        self.round, self.time = number, self.time + seconds
        staleness = tuple(0 for _ in next((u for u in updates.values() if u), []))
        seen = {part.name: part.shown(updates[part.name]) for part in self.parts}
        return Round(number, trained, received, sent, seconds, self.time, tuple(events), staleness, seen)

    def _in_turn(self, present: Sequence[str], number: int) -> Iterator[Turn]:
        by_name = {client.name: client for client in self.clients}
        for name in present:
            yield name, *take_turn(by_name[name], self.parts_of(name), self.seed, number)

    def final_states(self, group: str = "") -> list[dict[str, State]]:
        """Return the networks to evaluate as ``{part name: state}``: one, or one a client where halves are kept.

        Args:
            group: only the parts of this data set, ``"client:group"``, and those of all.
        """
        return final_states(self.parts, group)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next round depends on, as named tensors."""
        held = {"round": torch.tensor(self.round), "time": torch.tensor(self.time, dtype=torch.float64)}
        for part in self.parts:
            held |= part.tensors()
        for name, memory in self.memories.items():
            held |= {f"memory/{name}/{key}": tensor for key, tensor in memory.tensors().items()}
        return held

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken.

        Raises:
            ValueError: the tensors belong to another federation.
        """
        if "round" not in held or "time" not in held:
            raise ValueError("the checkpoint lacks its round")
        for part in self.parts:
            part.load_tensors(held)
        for name, memory in self.memories.items():
            memory.load_tensors(below(held, f"memory/{name}/"))
        self.round, self.time = int(held["round"]), float(held["time"])


def take_turn(
    client: Client, parts: Sequence[Part], seed: int, number: int
) -> tuple[LocalTraining | None, list[Event]]:
    """Set a client up, let it train through one turn, and let guards judge what it did to shared parts."""
    events: list[Event] = []
    for part in parts:
        part.hand_out(client.name)
        part.begin_turn(client.name, number)
    before = {part.name: part.snapshot(client.name) for part in parts}
    own = own_part(parts)
    try:
        result = client.train(own.optimizers[client.name], seed, number)
    except TurnFailure as error:
        result = None
        events.append(failed(client.name, number, error))
    for part in parts:
        share = part.judge(client.name, before[part.name])
        if share < 1.0:
            kind = "rolled_back" if share <= 0 else "clipped"
            events.append(Event(kind, client.name, f"{share:.0%} of what client {client.name} did to the trunk stays"))
        if share <= 0 and part.guard is not None and part.guard.leaves_out:
            what = f"the half of client {client.name} is left out, like what it did to the trunk"
            events.append(Event("left_out", client.name, what))
    return result, events


def left_out(events: Sequence[Event]) -> bool:
    """Return whether a guard left a client's own half out after its turn."""
    return any(event.kind == "left_out" for event in events)


def own_part(parts: Sequence[Part]) -> Part:
    """Return the part that a client itself trains, of those it holds a copy of."""
    return next(part for part in parts if part.name.partition(":")[0] == "client")


def failed(client: str, number: int, error: Exception) -> Event:
    """Return the event that a client's turn ended in an error."""
    return Event("failed", client, f"client {client} failed in round {number}: {error}")


def aggregate(part: Part, updates: Sequence[Update], *, first: bool) -> list[Event]:
    """Aggregate a part.

    A rule whose precondition does not hold in the first round is refused. One that fails later, because clients are
    missing or none can be trusted, leaves the part as it is, and says so.

    Raises:
        ValueError: the rule's precondition does not hold in the first round.
    """
    try:
        part.aggregate(updates)
    except ValueError as error:
        if first and not isinstance(error, Undecided):
            raise
        return [Event("not_aggregated", "", f"part {part.name} stays as it was: {error}")]
    return []


def final_states(parts: Sequence[Part], group: str = "") -> list[dict[str, State]]:
    """Return the networks to evaluate as ``{part name: state}``."""
    chosen = [part for part in parts if part.name.partition(":")[2] in ("", group)]
    by_part = {part.name: part.final_states() for part in chosen}
    names = sorted({name for states in by_part.values() for name in states if name}) or [""]
    return [{part: states.get(name, states.get("", {})) for part, states in by_part.items()} for name in names]
