"""A client: local data, a learner, and local training that a seed fixes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from hcqsfl.optimizers import take_step
from hcqsfl.randomness import torch_generator, torch_seeded

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Learner(Protocol):
    """What a client trains: a module with a loss."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits ``(b, n_outputs)``."""
        ...

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that the client itself moves."""
        ...


class Wire(Protocol):
    """What a client needs to know of its connection to a server."""

    def begin_round(self, number: int) -> None:
        """Count the steps of a turn from 1."""
        ...


class Defence(Protocol):
    """What a client needs to know of what stands between its front and the wire."""

    def begin_round(self, number: int) -> None:
        """Get ready for a turn."""
        ...


class Meter(Protocol):
    """Counts what a client's connection carries."""

    bytes_up: int
    bytes_down: int
    messages: int


@dataclass(frozen=True)
class LocalTraining:
    """What came of one client's turn.

    Attributes:
        loss: mean training loss over the steps.
        steps: optimiser steps taken.
        num_examples: windows the client holds.
        n_bytes: bytes of smashed data, features and gradients that crossed, both ways.
        messages: requests that the client sent.
    """

    loss: float
    steps: int
    num_examples: int
    n_bytes: int = 0
    messages: int = 0


@dataclass(eq=False)
class Client:
    """One participant.

    Attributes:
        name: who it is.
        learner: what it trains.
        x: ``(n, n_chans, n_times)`` float32.
        y: ``(n,)`` int64.
        batch_size: windows in a step; the last batch of an epoch may be smaller.
        local_epochs: passes over the data in a round.
        local_steps: if given, at most so many steps in a round.
        proximal: FedProx's mu: how strongly the client's own parameters are held to where the turn began.
        wire: its connection, if it has one.
        meter: counts what the connection carries.
        defence: what it does to what leaves it, if anything.
        poisson: whether each window is drawn for each step by a chance of its own, as the accounting of DP-SGD assumes;
            ``batch_size`` is then what is expected, and a pass has as many steps as it would have otherwise.
    """

    name: str
    learner: Learner
    x: Tensor
    y: Tensor
    batch_size: int
    local_epochs: int = 1
    local_steps: int | None = None
    proximal: float = 0.0
    wire: Wire | None = None
    meter: Meter | None = None
    defence: Defence | None = None
    poisson: bool = False

    @property
    def num_examples(self) -> int:
        """Windows the client holds."""
        return len(self.y)

    def train(self, optimizer: torch.optim.Optimizer, seed: int, number: int) -> LocalTraining:
        """Train through one turn.

        Args:
            optimizer: moves the learner's own parameters.
            seed: root seed; batches and dropout depend on it, the client's name and the turn alone.
            number: the turn, the number of the round where rounds are synchronous.

        Raises:
            FloatingPointError: the loss is not finite.

        Source: for ``proximal``, Li et al. (2020), Federated optimization in heterogeneous networks, equation 2.
        """
        for held in (self.wire, self.defence):
            if held is not None:
                held.begin_round(number)
        before = self.carried()
        anchors = [p.detach().clone() for p in self.learner.parameters()] if self.proximal else []
        total, steps = 0.0, 0
        # what the network itself draws (dropout) is the turn's own too, so that a resumed run draws the same
        with torch_seeded(seed, "dropout", self.name, number):
            for batch in self.batches(seed, number):
                optimizer.zero_grad(set_to_none=True)
                loss = self.learner.loss(*self._taken(batch))
                loss.backward()
                for parameter, anchor in zip(self.learner.parameters(), anchors, strict=False):
                    if parameter.grad is not None:
                        parameter.grad.add_(parameter.detach() - anchor, alpha=self.proximal)
                take_step(optimizer)
                total += loss.item()
                steps += 1
        return self.trained(total, steps, number, before)

    def trained(self, total: float, steps: int, number: int, before: tuple[int, int]) -> LocalTraining:
        """Return what came of a turn.

        Args:
            total: sum of the training losses over the steps.
            steps: optimiser steps taken.
            number: the turn.
            before: what ``carried`` returned before it.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        mean = total / max(steps, 1)
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"the training loss of client {self.name} is {mean} in round {number}; lower training.learning_rate"
            )
        n_bytes, messages = (now - then for now, then in zip(self.carried(), before, strict=True))
        return LocalTraining(mean, steps, self.num_examples, n_bytes, messages)

    def _taken(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        if not self.poisson:
            return self.x[batch], self.y[batch]
        # the hooks of per-sample gradients want inputs that have one too
        if len(batch):
            return self.x[batch].requires_grad_(), self.y[batch]
        # nobody was drawn, and the step is taken all the same: with one window of nothing, whose label counts for none
        return torch.zeros_like(self.x[:1]).requires_grad_(), torch.full_like(self.y[:1], -100)

    def carried(self) -> tuple[int, int]:
        """Return the bytes and the requests that the client's connection has carried so far."""
        if self.meter is None:
            return 0, 0
        return self.meter.bytes_up + self.meter.bytes_down, self.meter.messages

    def batches(self, seed: int, number: int) -> Iterator[Tensor]:
        """Yield the windows of each step of a turn, as indices ``(b,)``; the seed, the name and the turn fix them."""
        generator = torch_generator(seed, "batches", self.name, number)
        step = 0
        for _ in range(self.local_epochs):
            for batch in self._epoch(generator):
                if self.local_steps is not None and step >= self.local_steps:
                    return
                step += 1
                yield batch

    def _epoch(self, generator: torch.Generator) -> Iterator[Tensor]:
        if not self.poisson:
            yield from torch.randperm(self.num_examples, generator=generator).split(self.batch_size)
            return
        chance = min(1.0, self.batch_size / self.num_examples)
        for _ in range(math.ceil(self.num_examples / self.batch_size)):
            yield (torch.rand(self.num_examples, generator=generator) < chance).nonzero()[:, 0]
