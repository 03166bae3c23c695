"""Clients of one structure train as one batch, where nothing that one does touches another before the round ends.

In simulation a client's step is so short that most of it is the cost of starting operations. Here the copies of a
module are the rows of one tensor (``hcqsfl.models.stacked``), and each operation runs once for all. What crosses the
cut stays what it was: each client's own messages, as bytes, through its own transport (``hcqsfl.split.gathered``).
Results equal those of clients that take turns up to the rounding of sums in another order; client after client sees
the same batches, and one that has no further batch, or fails, stops there. What a client puts before its wire may
replace what it sends (``Defence.only_replaces``); a client that trains in a way of its own otherwise (it was given
another learner, another defence, or another kind of training) takes its turn alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hcqsfl.federated.client import Client
from hcqsfl.federated.parts import Part
from hcqsfl.federated.rounds import Event, Federation, Turn, TurnFailure, failed, own_part, take_turn
from hcqsfl.models.defence import Defence
from hcqsfl.models.plan import Plan
from hcqsfl.models.stacked import Stack, below, evaluate, losses
from hcqsfl.split import RemoteLoss, RemoteTrunk
from hcqsfl.split.gathered import GatheredServer, Seat, gather

TOGETHER = 16
"""About how many clients make a batch: what they work on together should stay in the processor's cache."""


@dataclass(eq=False)
class _Running:
    """A turn under way: its batches, where it stands, and what the connection had carried before it."""

    client: Client
    batches: list[Tensor]
    carried: tuple[int, int]
    total: float = 0.0
    steps: int = 0
    error: Exception | None = None


class BatchedTurns:
    """Lets the clients of a round train as one batch.

    Args:
        plan: how the federation is to run.
        learners: client to what it trains, as wired; a client that trains something else takes its turn alone.
        seats: client to its place at the server; empty where nothing is cut.
        class_weights: client to the weights of the classes in its loss.
    """

    def __init__(
        self,
        plan: Plan,
        learners: Mapping[str, object],
        class_weights: Mapping[str, Tensor | None],
        seats: Mapping[str, Seat] | None = None,
    ) -> None:
        self.plan, self.learners, self.class_weights, self.seats = plan, learners, class_weights, seats or {}

    def __call__(self, federation: Federation, present: Sequence[str], number: int) -> Iterator[Turn]:
        """Set the clients up, let them train through a turn, and yield what came of each."""
        by_name = {client.name: client for client in federation.clients}
        running: dict[str, list[_Running]] = {}
        for name in present:
            client = by_name[name]
            if self._alone(client):
                yield name, *take_turn(client, federation.parts_of(name), federation.seed, number)
                continue
            batches = list(client.batches(federation.seed, number))
            kind = own_part(federation.parts_of(name)).name
            running.setdefault(kind, []).append(_Running(client, batches, client.carried()))
        for alike in running.values():
            alike.sort(key=lambda turn: -len(turn.batches))  # who ends together trains together
            n_batches = max(1, round(len(alike) / TOGETHER))  # evenly: a batch of the few left over costs as much
            for i in range(n_batches):
                first, end = (len(alike) * k // n_batches for k in (i, i + 1))
                yield from _Batch(self, federation, alike[first:end], number).run()

    def _alone(self, client: Client) -> bool:
        own_way = type(client).train is not Client.train or client.learner is not self.learners[client.name]
        defended = client.defence is not None and not _only_replaces(client.defence)
        return own_way or defended or client.poisson


class _Batch:
    """Some turns of one round, under way together."""

    def __init__(self, turns: BatchedTurns, federation: Federation, running: list[_Running], number: int) -> None:
        self.turns, self.running, self.number = turns, running, number
        names = [turn.client.name for turn in running]
        for name in names:
            for part in federation.parts_of(name):
                part.hand_out(name)
        parts = federation.parts_of(names[0])
        self.own = own_part(parts)
        self.parts: dict[str, tuple[Part, Stack]] = {}
        for part in parts:
            modules = [part.modules[name] for name in names]
            for module in modules:
                module.train()
            stack = Stack(modules, turns.plan.make_optimizer)
            self.parts[part.name] = (part, stack)
            if part.rule == "keep":
                for i, name in enumerate(names):
                    stack.read_moments(i, part.optimizers[name])
        self.stack = self.parts[self.own.name][1]
        self.anchor = self.stack.leaf.detach().clone() if turns.plan.proximal else None
        self.weights_of_classes = turns.class_weights[names[0]]
        self.server: GatheredServer | None = None
        for turn in running:
            for held in (turn.client.wire, turn.client.defence):
                if held is not None:
                    held.begin_round(number)

    def run(self) -> Iterator[Turn]:
        """Train to the end of the longest turn, and yield what came of each."""
        step = 0
        while self.running:
            ended = [turn.error is not None or step >= len(turn.batches) for turn in self.running]
            if any(ended):
                yield from self._end(ended)
                continue
            x, y, present = self._next(step)
            moved = self._train_cut(x, y, present) if self.turns.seats else self._train_joined(x, y, present)
            for turn, loss in zip(self.running, moved, strict=True):
                if turn.error is None:
                    turn.total += loss
                    turn.steps += 1
            step += 1

    def _end(self, ended: Sequence[bool]) -> Iterator[Turn]:
        """Write those back who have ended, go on with the others, and yield what came of the former."""
        told: list[Turn] = []
        for i, turn in enumerate(self.running):
            if not ended[i]:
                continue
            client = turn.client
            for part, stack in self.parts.values():
                stack.put_back(i)
                if part.rule == "keep":
                    stack.write_moments(i, part.optimizers[client.name])
            events: list[Event] = []
            result = None
            try:
                if turn.error is not None:
                    raise turn.error
                result = client.trained(turn.total, turn.steps, self.number, turn.carried)
            except TurnFailure as error:
                events.append(failed(client.name, self.number, error))
            told.append((client.name, result, events))
        going_on = [i for i, has_ended in enumerate(ended) if not has_ended]
        self.running = [self.running[i] for i in going_on]
        if going_on:
            for _, stack in self.parts.values():
                stack.keep(going_on)
            if self.anchor is not None:
                self.anchor = self.anchor[going_on]
            if self.server is not None:
                self.server.keep([turn.client.name for turn in self.running])
        yield from told

    def _next(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return windows ``(c, b, n_chans, n_times)``, labels and presence ``(c, b)``; short batches are filled up."""
        batches = [turn.batches[step] for turn in self.running]
        xs = [turn.client.x[batch] for turn, batch in zip(self.running, batches, strict=True)]
        ys = [turn.client.y[batch] for turn, batch in zip(self.running, batches, strict=True)]
        sizes = torch.tensor([len(batch) for batch in batches])
        longest = int(sizes.max())
        present = (torch.arange(longest) < sizes[:, None]).to(xs[0].dtype)
        return _filled(xs, longest), _filled(ys, longest), present

    def _train_joined(self, x: Tensor, y: Tensor, present: Tensor) -> list[float]:
        found = losses(self.stack(x), y, present, self.weights_of_classes)
        self.stack.zero_grad()
        found.sum().backward()
        self._move([True] * len(self.running))
        return list(found.tolist())

    def _move(self, who: Sequence[bool]) -> None:
        if self.anchor is not None:
            self.stack.pull(self.anchor, self.turns.plan.proximal)
        self.stack.step(who)

    def _train_cut(self, x: Tensor, y: Tensor, present: Tensor) -> list[float]:
        weights = self.stack.weights()
        smashed = evaluate(self.stack.structure.get_submodule("front"), below(weights, "front"), x)
        sizes = [int(n) for n in present.sum(1).tolist()]
        server = self.server = self.server or self._gathered(smashed)
        self.stack.zero_grad()
        sent = _Sent(smashed, x, sizes, [turn.client.defence for turn in self.running])
        if self.turns.plan.label_sharing:
            found, gradient = self._send_labelled(server, sent, y)
            torch.autograd.backward(*sent.pulled(gradient))
        else:
            found = self._u_shaped(server, weights, sent, y, present)
        self._move([turn.error is None for turn in self.running])
        return found

    def _gathered(self, smashed: Tensor) -> GatheredServer:
        servers = {turn.client.name: self.turns.seats[turn.client.name].server for turn in self.running}
        shared = partial(losses, class_weights=self.weights_of_classes) if self.turns.plan.label_sharing else None
        return GatheredServer(servers, self.parts["trunk"][1], tuple(smashed.shape[2:]), smashed.dtype, shared)

    def _u_shaped(
        self,
        server: GatheredServer,
        weights: Mapping[str, Tensor],
        sent: "_Sent",
        y: Tensor,
        present: Tensor,
    ) -> list[float]:
        sends = {}
        for i, turn in enumerate(self.running):
            wire = turn.client.wire
            assert isinstance(wire, RemoteTrunk)
            wire.next_step()
            sends[turn.client.name] = partial(wire.send_smashed, sent.smashed(i), "forward", wire.step)
        features = self._received(server, sends, sent.sizes)
        if all(turn.error is not None for turn in self.running):
            return [0.0] * len(self.running)
        features.requires_grad_()
        head = below(weights, "head")
        logits = evaluate(self.stack.structure.get_submodule("head"), head, features)
        found = losses(logits, y, present, self.weights_of_classes)
        moved = [tensor for tensor in head.values() if tensor.requires_grad]
        answering = torch.tensor([turn.error is None for turn in self.running])
        up, *own = torch.autograd.grad(torch.where(answering, found, 0.0).sum(), [features, *moved])
        sends = {}
        for i, turn in enumerate(self.running):
            wire = turn.client.wire
            if turn.error is None and isinstance(wire, RemoteTrunk):
                sends[turn.client.name] = partial(wire.send_gradient, sent.gradient(i, up, y), wire.step)
        roots, down = sent.pulled(self._received(server, sends, sent.sizes, like=sent.made))
        # both halves at once, so that the weights' tensor is gathered once
        torch.autograd.backward([*roots, *moved], [*down, *own])
        return list(found.tolist())

    def _send_labelled(self, server: GatheredServer, sent: "_Sent", y: Tensor) -> tuple[list[float], Tensor]:
        sends = {}
        for i, (turn, n) in enumerate(zip(self.running, sent.sizes, strict=True)):
            wire = turn.client.wire
            assert isinstance(wire, RemoteLoss)
            wire.next_step()
            sends[turn.client.name] = partial(wire.send_labelled, sent.smashed(i), y[i, :n], wire.step)
        results = gather(self.turns.seats, sends, server, TurnFailure)
        gradient, found = torch.zeros_like(sent.made), []
        for i, turn in enumerate(self.running):
            result = results[turn.client.name]
            if isinstance(result, Exception):
                turn.error = result
                found.append(0.0)
                continue
            gradient[i, : sent.sizes[i]] = result[0]
            found.append(result[1].item())
        return found, gradient

    def _received(
        self,
        server: GatheredServer,
        sends: Mapping[str, "partial[Tensor]"],
        sizes: Sequence[int],
        like: Tensor | None = None,
    ) -> Tensor:
        """Let all send, and return side by side what they received, zeros for those who failed."""
        results = gather(self.turns.seats, sends, server, TurnFailure)
        came = [result for result in results.values() if isinstance(result, Tensor)]
        if like is None:
            shape = came[0].shape[1:] if came else torch.Size([1])
            whole = torch.zeros(len(self.running), max(sizes), *shape)
        else:
            whole = torch.zeros_like(like)
        for i, turn in enumerate(self.running):
            result = results.get(turn.client.name)
            if isinstance(result, Exception):
                turn.error = result
            elif result is not None:
                whole[i, : sizes[i]] = result
        return whole


class _Sent:
    """What clients send of the smashed data that their fronts made.

    Args:
        made: smashed data ``(c, b, ...)``, rows that fill a short batch up included.
        x: the windows that they were made of, ``(c, b, n_chans, n_times)``.
        sizes: windows of each client.
        defences: what each client puts before its wire, if anything.
    """

    def __init__(self, made: Tensor, x: Tensor, sizes: Sequence[int], defences: Sequence[object]) -> None:
        self.made, self.sizes, self._below = made, sizes, made.detach()
        self.defences = {i: each for i, each in enumerate(defences) if isinstance(each, Defence)}
        self._replaced = {
            i: defence(made[i, : sizes[i]], x[i, : sizes[i]]) for i, defence in self.defences.items()
        }  # each (b, ...)

    def smashed(self, i: int) -> Tensor:
        """Return what a client sends."""
        return self._replaced[i].detach() if i in self._replaced else self._below[i, : self.sizes[i]]

    def gradient(self, i: int, up: Tensor, y: Tensor) -> Tensor:
        """Return what a client sends of the gradients of the features ``up (c, b, n_features)``."""
        own = up[i, : self.sizes[i]]
        return self.defences[i].gradient(own, y[i, : self.sizes[i]]) if i in self.defences else own

    def pulled(self, down: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return where backward passes begin, and with which gradients, of what came down ``(c, b, ...)``."""
        roots, gradients = [self.made], [down]
        for i, replaced in self._replaced.items():
            if replaced.requires_grad:
                roots.append(replaced)
                gradients.append(down[i, : self.sizes[i]].clone())
            down[i] = 0.0
        return roots, gradients


def _only_replaces(defence: object) -> bool:
    return isinstance(defence, Defence) and defence.only_replaces


def _filled(tensors: Sequence[Tensor], longest: int) -> Tensor:
    if all(len(tensor) == longest for tensor in tensors):
        return torch.stack(list(tensors))
    return nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)
