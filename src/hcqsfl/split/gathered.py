"""Messages of several clients, answered together.

Each client still sends messages of its own through its own transport, coats and all. Only the last hop differs: a
``Seat`` keeps a request until those of all the others are there, and the server answers all of them at once, each on
that client's copy of the trunk. A transport is an ordinary call, so the calls nest: the last client's request arrives
inside the one before. A tap therefore sees all requests first, then the answers in reverse order.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from hcqsfl.split.message import Message, ProtocolError, decode
from hcqsfl.split.server import TrunkServer, check_labels, misfit, not_taken, overflow, refusal

Sent = TypeVar("Sent")


class Trunks(Protocol):
    """Several clients' copies of a trunk; axis 0 of all tensors are the clients."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``(c, b, n_features)`` of smashed data ``(c, b, ...)``."""
        ...

    def zero_grad(self) -> None:
        """Forget the last gradients."""
        ...

    def finite(self) -> list[bool]:
        """Return whose gradient holds neither NaN nor infinity."""
        ...

    def step(self, who: Sequence[bool]) -> None:
        """Move those copies by their gradients."""
        ...


Answer = bytes | ValueError
"""An answer, or why this client's could not be written."""

Losses = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits ``(c, b, n_outputs)``, labels and presence ``(c, b)`` to each client's mean loss ``(c,)``."""


class GatheredServer:
    """Answers the messages of several clients at once, each on a copy of the trunk of its own.

    What each client may send is checked by that client's own ``TrunkServer``, as if it stood alone; what one may not
    send, or what overflows, is answered with an error to that client and moves nothing of its copy.

    Args:
        servers: client to what checks its messages and codes the answers, in the order of the copies.
        trunks: the copies.
        shape: of one window's smashed data, and ``dtype`` their type.
        losses: where clients share their labels.
    """

    def __init__(
        self,
        servers: Mapping[str, TrunkServer],
        trunks: Trunks,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        losses: Losses | None = None,
    ) -> None:
        self.servers, self.trunks, self.shape, self.dtype, self.losses = dict(servers), trunks, shape, dtype, losses
        self._smashed: Tensor | None = None
        self._features: Tensor | None = None

    def keep(self, clients: Sequence[str]) -> None:
        """Go on with some of the clients, in this order, once no step is open."""
        self.servers = {client: self.servers[client] for client in clients}
        self._smashed = self._features = None

    def __call__(self, requests: Mapping[str, bytes]) -> dict[str, Answer]:
        """Answer one message of each client; there may be none of some."""
        answers: dict[str, Answer] = {}
        by_kind: dict[str, dict[str, Message]] = {"forward": {}, "backward": {}, "train": {}}
        for client, request in requests.items():
            message: Message | None = None
            try:
                message = decode(request, self.servers[client].max_bytes)
                if message.kind not in by_kind:
                    raise not_taken(message)
                if message.client != client:
                    raise ProtocolError(f"client {client} sent a message in the name of client {message.client}")
                by_kind[message.kind][client] = message
            except ProtocolError as error:
                answers[client] = refusal(message, error)
        for kind, answer in (("forward", self._forward), ("backward", self._backward), ("train", self._train)):
            if by_kind[kind]:
                answers |= answer(by_kind[kind])
        return answers

    def _forward(self, messages: Mapping[str, Message]) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        smashed: dict[str, Tensor] = {}
        for client, message in messages.items():
            try:
                smashed[client] = self._fitting(self.servers[client].accept_smashed(message))
            except ProtocolError as error:
                answers[client] = refusal(message, error)
        if not smashed:
            return answers
        self._smashed = self._side_by_side(smashed).requires_grad_()
        self._features = self.trunks(self._smashed)
        for (client, server), below, above in zip(self.servers.items(), self._smashed, self._features, strict=True):
            if client in smashed:
                n, message = len(smashed[client]), messages[client]
                server.open(message, below[:n], above[:n])
                answers[client] = _answer(server, message, "features", {"features": above[:n]})
        return answers

    def _backward(self, messages: Mapping[str, Message]) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        sizes: dict[str, int] = {}
        above = None if self._features is None else torch.zeros_like(self._features)
        for i, (client, server) in enumerate(self.servers.items()):
            if client not in messages:
                continue
            try:
                gradient, _ = server.accept_gradient(messages[client])
            except ProtocolError as error:
                answers[client] = refusal(messages[client], error)
                continue
            assert above is not None
            above[i, : len(gradient)] = gradient
            sizes[client] = len(gradient)
        if not sizes or self._features is None or self._smashed is None:
            return answers
        self.trunks.zero_grad()
        self._features.backward(above)
        return answers | self._moved(self._smashed, messages, sizes, {})

    def _train(self, messages: Mapping[str, Message]) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        smashed: dict[str, Tensor] = {}
        labels: dict[str, Tensor] = {}
        for client, message in messages.items():
            try:
                sent, labels[client] = self.servers[client].accept_labelled(message)
                smashed[client] = self._fitting(sent)
            except ProtocolError as error:
                answers[client] = refusal(message, error)
        if not smashed or self.losses is None:
            return answers
        below = self._side_by_side(smashed).requires_grad_()
        logits = self.trunks(below)
        y = torch.zeros(logits.shape[:2], dtype=torch.int64)
        present = torch.zeros(logits.shape[:2])
        sizes: dict[str, int] = {}
        for i, client in enumerate(self.servers):
            if client not in smashed:
                continue
            try:
                check_labels(messages[client], labels[client], logits.shape[2])
            except ProtocolError as error:
                answers[client] = refusal(messages[client], error)
                continue
            n = sizes[client] = len(labels[client])
            y[i, :n], present[i, :n] = labels[client], 1.0
            self.servers[client].close(messages[client])
        if not sizes:
            return answers
        losses = self.losses(logits, y, present)
        self.trunks.zero_grad()
        losses.sum().backward()
        found = dict(zip(self.servers, losses.detach().unsqueeze(1), strict=True))
        return answers | self._moved(below, messages, sizes, found)

    def _moved(
        self, below: Tensor, messages: Mapping[str, Message], sizes: Mapping[str, int], losses: Mapping[str, Tensor]
    ) -> dict[str, Answer]:
        """Move the copies of those who sent a step, where nothing overflows, and answer them."""
        answers: dict[str, Answer] = {}
        gradients = below.grad
        assert gradients is not None
        sums = gradients.flatten(1).sum(1).isfinite().tolist()
        moves = [
            client in sizes and weights and (good or bool(gradients[i].isfinite().all()))
            for i, (client, weights, good) in enumerate(zip(self.servers, self.trunks.finite(), sums, strict=True))
        ]
        self.trunks.step(moves)
        for i, (client, server) in enumerate(self.servers.items()):
            if client not in sizes:
                continue
            if not moves[i]:
                answers[client] = refusal(messages[client], overflow(messages[client]))
                continue
            loss = {"loss": losses[client]} if client in losses else {}
            tensors = {"gradient": gradients[i, : sizes[client]], **loss}
            answers[client] = _answer(server, messages[client], "gradient", tensors)
        return answers

    def _fitting(self, smashed: Tensor) -> Tensor:
        if tuple(smashed.shape[1:]) != self.shape or smashed.dtype != self.dtype:
            raise misfit(smashed, f"it takes (b, {', '.join(map(str, self.shape))}) of type {self.dtype}")
        return smashed

    def _side_by_side(self, smashed: Mapping[str, Tensor]) -> Tensor:
        """Return ``(c, b, ...)``, short batches and those of clients that sent nothing filled up with zeros."""
        longest = max(map(len, smashed.values()))
        if len(smashed) == len(self.servers) and all(len(each) == longest for each in smashed.values()):
            return torch.stack([smashed[client] for client in self.servers])
        whole = torch.zeros(len(self.servers), longest, *self.shape, dtype=self.dtype)
        for i, client in enumerate(self.servers):
            if client in smashed:
                whole[i, : len(smashed[client])] = smashed[client]
        return whole


def _answer(server: TrunkServer, message: Message, kind: str, tensors: dict[str, Tensor]) -> Answer:
    try:
        return server.answer(message, kind, tensors)
    except ValueError as error:  # its codec cannot carry them
        return error


class Seat:
    """A client's place at the server: where its requests arrive.

    Args:
        server: answers them while nobody gathers.
    """

    def __init__(self, server: TrunkServer) -> None:
        self.server = server
        self.arrive: Callable[[bytes], bytes] | None = None

    def __call__(self, request: bytes) -> bytes:
        """Answer one message, or wait for the others."""
        return self.server(request) if self.arrive is None else self.arrive(request)


def gather(
    seats: Mapping[str, Seat],
    sends: Mapping[str, Callable[[], Sent]],
    answer: Callable[[Mapping[str, bytes]], Mapping[str, Answer]],
    failures: tuple[type[Exception], ...],
) -> dict[str, Sent | Exception]:
    """Let several clients send one message each, and answer all of them together.

    Args:
        seats: client to its place.
        sends: client to what sends its message and returns what it makes of the answer.
        answer: client to its request, as it arrived, to client to the answer.
        failures: what a client may fail by without stopping the others.

    Returns:
        Client to what it made of the answer, or by what it failed.
    """
    clients = list(sends)
    requests: dict[str, bytes] = {}
    answers: dict[str, Answer] = {}
    results: dict[str, Sent | Exception] = {}
    reached = 0

    def descend(i: int) -> None:
        nonlocal reached
        if reached > i:
            return
        reached = i + 1
        if i == len(clients):
            answers.update(answer(requests))
            return
        client = clients[i]

        def arrive(request: bytes) -> bytes:
            if reached > len(clients):  # sent again, by a coat that tries twice
                found = answer({client: request})[client]
            else:
                requests[client] = request
                descend(i + 1)
                found = answers[client]
            if isinstance(found, ValueError):
                raise found
            return found

        seats[client].arrive = arrive
        try:
            results[client] = sends[client]()
        except failures as error:
            results[client] = error
        finally:
            seats[client].arrive = None
        descend(i + 1)  # it failed before its request arrived

    descend(0)
    return results
