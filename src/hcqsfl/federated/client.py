"""A client: local data, a learner, and local training that a seed fixes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from hcqsfl.randomness import torch_generator

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


@dataclass(frozen=True)
class LocalTraining:
    """What came of one client's turn.

    Attributes:
        loss: mean training loss over the steps.
        steps: optimiser steps taken.
        num_examples: windows the client holds.
    """

    loss: float
    steps: int
    num_examples: int


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
        begin_round: told the number of each round before it starts.
    """

    name: str
    learner: Learner
    x: Tensor
    y: Tensor
    batch_size: int
    local_epochs: int = 1
    local_steps: int | None = None
    begin_round: Callable[[int], None] = lambda number: None

    @property
    def num_examples(self) -> int:
        """Windows the client holds."""
        return len(self.y)

    def train(self, optimizer: torch.optim.Optimizer, seed: int, number: int) -> LocalTraining:
        """Train through one round.

        Args:
            optimizer: moves the learner's own parameters.
            seed: root seed; batches depend on it, the client's name and the round alone.
            number: the round.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        self.begin_round(number)
        total, steps = 0.0, 0
        for batch in self._batches(seed, number):
            optimizer.zero_grad(set_to_none=True)
            loss = self.learner.loss(self.x[batch], self.y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item()
            steps += 1
        mean = total / max(steps, 1)
        if mean != mean or mean in (float("inf"), float("-inf")):
            raise FloatingPointError(
                f"the training loss of client {self.name} is {mean} in round {number}; lower training.learning_rate"
            )
        return LocalTraining(mean, steps, self.num_examples)

    def _batches(self, seed: int, number: int) -> Iterator[Tensor]:
        generator = torch_generator(seed, "batches", self.name, number)
        step = 0
        for _ in range(self.local_epochs):
            for batch in torch.randperm(self.num_examples, generator=generator).split(self.batch_size):
                if self.local_steps is not None and step >= self.local_steps:
                    return
                step += 1
                yield batch
