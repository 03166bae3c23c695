"""Buffered asynchronous rounds on a simulated clock.

A client starts from the global state of the moment, really trains from it, and is done when its time is up, while
others come and go. The server gathers updates in a buffer and makes a new version whenever that is full. The staleness
of an update is the number of versions made since the one its training started from.

Source: Nguyen et al. (2022), Federated learning with buffered asynchronous aggregation (FedBuff), algorithm 1; the
discounts are those of Xie et al. (2019), see ``hcqsfl.federated.staleness``.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hcqsfl.federated.client import LocalTraining
from hcqsfl.federated.parts import below
from hcqsfl.federated.rounds import Event, Federation, FederationError, Round, aggregate, left_out, take_turn
from hcqsfl.federated.secure_aggregation import SecureAggregator
from hcqsfl.federated.staleness import Discount, constant
from hcqsfl.federated.update import State, Update, unfit
from hcqsfl.randomness import numpy_generator


@dataclass(frozen=True, eq=False)
class Flight:
    """A turn whose result is not in yet.

    Attributes:
        client: whose.
        finish: when it arrives, in seconds of the simulated clock.
        version: the version that it started from.
        trained: what came of it; ``None`` if it failed.
        updates: by part, the state it reached.
        bases: by part, the state it started from.
        size: bytes of states each way.
    """

    client: str
    finish: float
    version: int
    trained: LocalTraining | None
    updates: Mapping[str, State]
    bases: Mapping[str, State]
    size: int


@dataclass(eq=False)
class AsyncFederation(Federation):
    """Clients that do not wait for one another.

    ``run_round`` runs until the buffer is full once. ``participation.fraction`` is the share of clients at work at a
    time. Only parts that are averaged or kept can be trained so.

    Attributes:
        buffer_size: updates that make a new version.
        discount: from staleness to the factor on an update.
        flights: turns whose results are not in yet, by client.
        turns: how many turns each client has begun.

    Raises:
        ValueError: a part is shared or relayed, or the buffer can never be full.
    """

    buffer_size: int = 1
    discount: Discount = field(default_factory=constant)
    flights: dict[str, Flight] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in self.parts:
            if part.rule not in ("average", "keep"):
                raise ValueError(
                    f"asynchronous rounds are for parts that are averaged or kept; part {part.name} is {part.rule}: "
                    "take splitfed_v1, splitfed_v3 or federated"
                )
            if isinstance(part.aggregator, SecureAggregator):
                raise ValueError(
                    "late updates are discounted one by one, which a server that sees sums alone cannot do: give up "
                    "federation.buffer_size or federation.secure_aggregation"
                )
        if self.buffer_size < 1:
            raise ValueError(f"a buffer of {self.buffer_size} updates was asked for; it must hold at least 1")
        self._by_name = {client.name: client for client in self.clients}
        self._concurrency = max(1, round(self.participation.fraction * len(self.clients)))

    def run_round(self) -> Round:
        """Run until the buffer is full, and make a new version."""
        began, events = self.time, list[Event]()
        arrived: list[Flight] = []
        received: Counter[str] = Counter()
        sent: Counter[str] = Counter()
        failures = 0
        while len(arrived) < self.buffer_size:
            if not any(flight.finish <= self.time for flight in self.flights.values()):
                # everybody who is done by now has been heard: the idle start from the newest version
                for name in self._idle():
                    events += self._start(name)
                    received[name] += self.flights[name].size
            flight = min(self.flights.values(), key=lambda f: (f.finish, f.client))
            del self.flights[flight.client]
            self.time = max(self.time, flight.finish)
            if flight.trained is None:
                failures += 1
                if failures > 10 * len(self.clients) + 10 * self.buffer_size:
                    raise FederationError(f"nothing but failures in round {self.round + 1}: {events[-1].what}")
                continue
            sent[flight.client] += flight.size
            arrived.append(flight)
        number = self.round + 1
        updates: dict[str, list[Update]] = {part.name: [] for part in self.parts if part.rule == "average"}
        for part in self.parts:
            for flight in arrived:
                if part.name not in flight.updates:
                    continue
                update = self._rebased(flight, part.name, part.state)
                if why := unfit(update, part.state, self.round):
                    what = f"the {part.name} update of client {flight.client} {why}"
                    events.append(Event("unfit", flight.client, what))
                else:
                    updates[part.name].append(update)
            if part.rule == "average":
                events += aggregate(part, updates[part.name], first=self.round == 0)
        staleness = tuple(self.round - flight.version for flight in arrived)
        trained = {flight.client: flight.trained for flight in arrived if flight.trained is not None}
        self.round = number
        return Round(number, trained, received, sent, self.time - began, self.time, tuple(events), staleness, updates)

    def _idle(self) -> list[str]:
        """Draw who starts next, so that as many are at work as may be."""
        idle = [name for name in self._by_name if name not in self.flights]
        free = self._concurrency - len(self.flights)
        drawn = numpy_generator(self.seed, "turns", sum(self.turns.values()) + 1).permutation(len(idle))
        return [idle[i] for i in drawn[: max(free, 0)]]

    def _start(self, name: str) -> list[Event]:
        turn = self.turns.get(name, 0) + 1
        self.turns[name] = turn
        parts = self.parts_of(name)
        size = sum(sent for _, sent in (part.state_bytes for part in parts))
        trained: LocalTraining | None = None
        if numpy_generator(self.seed, "dropout", name, turn).random() < self.participation.dropout:
            events = [Event("away", name, f"client {name} was to start its turn {turn} but is away")]
        else:
            trained, events = take_turn(self._by_name[name], parts, self.seed, turn)
        taken = trained is not None and not left_out(events)
        reached = [part.take_in(name, 1, self.round) for part in parts] if taken else []
        updates = {part.name: update.state for part, update in zip(parts, reached, strict=False) if update is not None}
        bases = {part.name: part.state for part in parts if part.name in updates}
        steps, n_bytes, messages = (trained.steps, trained.n_bytes, trained.messages) if trained else (0, 0, 0)
        seconds = self.clock.turn(self.seed, name, turn, steps, 2 * size + n_bytes, messages)
        self.flights[name] = Flight(name, self.time + seconds, self.round, trained, updates, bases, size)
        return events

    def _rebased(self, flight: Flight, part: str, state: State) -> Update:
        """Put what a client changed since its own base, discounted, on top of the newest state."""
        factor = self.discount(self.round - flight.version)
        reached, base = flight.updates[part], flight.bases[part]
        if base is not state or factor != 1.0:
            reached = {
                name: (state[name] + factor * (reached[name] - base[name])).to(state[name].dtype) for name in reached
            }
        examples = flight.trained.num_examples if flight.trained else 0
        return Update(flight.client, reached, flight.version, examples)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next round depends on, turns under way included."""
        held = super().tensors()
        for name, turn in self.turns.items():
            held[f"turns/{name}"] = torch.tensor(turn)
        for name, flight in self.flights.items():
            t = flight.trained
            facts = [flight.finish, flight.version, flight.size]
            facts += [t.loss, t.steps, t.num_examples, t.n_bytes, t.messages] if t else []
            held[f"flight/{name}/facts"] = torch.tensor(facts, dtype=torch.float64)
            for part, state in flight.updates.items():
                held |= {f"flight/{name}/{part}/reached/{k}": v for k, v in state.items()}
                held |= {f"flight/{name}/{part}/base/{k}": v.clone() for k, v in flight.bases[part].items()}
        return held

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken.

        Raises:
            ValueError: the tensors belong to another federation.
        """
        super().load_tensors(held)
        self.turns = {name: int(turn) for name, turn in below(held, "turns/").items()}
        self.flights = {}
        for name in self._by_name:
            if f"flight/{name}/facts" not in held:
                continue
            finish, version, size, *rest = held[f"flight/{name}/facts"].tolist()
            trained = None
            if rest:
                loss, *counts = rest
                trained = LocalTraining(loss, *map(int, counts))
            updates, bases = {}, {}
            for part in self.parts_of(name):
                if reached := below(held, f"flight/{name}/{part.name}/reached/"):
                    updates[part.name] = reached
                    base = below(held, f"flight/{name}/{part.name}/base/")
                    # a base that is the newest state is that very object: then nothing needs to be put on top of it
                    bases[part.name] = part.state if version == self.round else base
            self.flights[name] = Flight(name, finish, int(version), trained, updates, bases, int(size))
