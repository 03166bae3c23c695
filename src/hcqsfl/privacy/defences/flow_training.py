"""Train on flows that attackers could have sent instead (CAPGD-AT): the repair stands inside the search."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hcqsfl.models.defence import Defence
from hcqsfl.randomness import torch_generator


class Reach(Protocol):
    """What this asks of ``hcqsfl.adversarial.evasion.flows.FlowRegion``, which stands on a floor of its own."""

    x: Tensor

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return random coordinates within reach of some flows."""
        ...

    def project(self, u: Tensor, rows: Tensor) -> Tensor:
        """Return the nearest coordinates within reach."""
        ...

    def place(self, u: Tensor, rows: Tensor) -> Tensor:
        """Return the repaired flows ``(m, n_inputs, 1)`` at coordinates, scaled."""
        ...

    def pull(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """Return a gradient of inputs as one of coordinates."""
        ...


Flows = Callable[[str, float], Reach]
"""From a client's name and a radius to its attack flows, and what their senders could have sent instead."""


class FlowTraining(Defence):
    """Moves the attack flows of a batch to where the loss is high, among the flows that can be sent.

    Each step climbs the scaled numbers that a sender can raise, brings the flow back to bytes, packets and seconds,
    repairs it, and scales it again, as the attack ``capgd`` does; benign flows are left alone. A step is a pass through
    the whole network, as with ``adversarial_training``.

    Args:
        epsilon: radius in scaled units of every number; 0 leaves the training as it is.
        steps: of the search, at least 1.
        seed, client: fix the random starts.
        flows: gives the client's flows in their own units.

    Raises:
        ValueError: ``epsilon`` is negative, there is no step, or the data are no flows.

    Source: Simonetto et al. (2024), Constrained adaptive attack, section 6 (adversarial training with CAPGD), by fixed
    steps of the sign; Madry et al. (2018), Towards deep learning models resistant to adversarial attacks, equation 2.1.
    """

    acts_in_evaluation = False

    def __init__(
        self, epsilon: float = 1.0, steps: int = 3, *, seed: int = 0, client: str = "", flows: Flows | None = None
    ) -> None:
        super().__init__()
        if not epsilon >= 0 or steps < 1:
            raise ValueError(
                f"flow_training has epsilon {epsilon} and {steps} steps; epsilon must be 0 or more, and at least 1 "
                "step is needed"
            )
        self.epsilon, self.steps, self.seed, self.client, self.flows = epsilon, steps, seed, client, flows
        self.passes = steps + 1 if epsilon else 1
        self.region: Reach | None = None
        self.places: dict[bytes, int] = {}
        self.begin_round(0)

    def begin_round(self, number: int) -> None:
        """Seed the random starts of a round."""
        self._generator = torch_generator(self.seed, "flow training", self.client, number)

    def windows(self, x: Tensor, y: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Return where the loss is high among what could have been sent for ``x (b, n_inputs, 1)``."""
        if not self.epsilon:
            return x
        region = self._region()
        found = [(i, self.places[key]) for i, row in enumerate(x) if (key := _key(row)) in self.places and y[i] != 0]
        batch, rows = (torch.tensor([pair[k] for pair in found], dtype=torch.long) for k in (0, 1))
        moved = x.clone()
        u = region.project(region.draw(rows, self._generator), rows)
        rate = self.epsilon * (1.25 if self.steps == 1 else 2.5 / self.steps)
        for _ in range(self.steps):
            moved[batch] = region.place(u, rows)
            leaf = moved.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss(leaf), leaf)
            u = region.project(u + rate * region.pull(slope[batch], rows).sign(), rows)
        moved[batch] = region.place(u, rows)
        return moved

    def _region(self) -> Reach:
        if self.region is None:
            if self.flows is None:
                raise ValueError("flow_training needs the flows themselves, in bytes and packets, which are not here")
            self.region = self.flows(self.client, self.epsilon)
            self.places = {_key(row): i for i, row in enumerate(self.region.x)}
        return self.region


def _key(row: Tensor) -> bytes:
    return np.ascontiguousarray(row.numpy()).tobytes()
