"""Sums sealed against the fed server by SecAgg+: what all parties agree on, and what the server makes of a sum.

The protocol itself runs elsewhere, between processes: ``hcqsfl.deployment.flower`` carries it by Flower's own code. No
client's update reaches the server's process, which gets the mean of all and the names of those in it.

Source: Bell et al. (2020), Secure single-server aggregation with (poly)logarithmic overhead, for SecAgg+; Bonawitz et
al. (2017), Practical secure aggregation for privacy-preserving machine learning, for the shares and the double masks.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from hcqsfl.federated.aggregation.flat import Layout, in_order
from hcqsfl.federated.secure_aggregation import SERVER_SEES, SecureAggregator
from hcqsfl.federated.update import Aggregator, State, Undecided, Update, serialise

MIN_CLIENTS = 3
"""Of a mean over two, each of them can tell the other's update."""

RULES = ("fedavg", "fedavgm", "fedadam")
"""The rules that need the mean of the updates, and no single one."""

MODULUS = 2**32
"""Masks are drawn, and sums taken, modulo this."""

SENT, RECEIVED = (754, 680), (726, 1058)
"""Bytes of keys and shares of secrets that a client sends and receives: its own, and for each neighbour."""


class Carry(Protocol):
    """Runs the protocol."""

    def __call__(self, examples: Mapping[str, int], n_values: int, version: int) -> tuple[np.ndarray, Collection[str]]:
        """Return the ``(n_values,)`` mean of the updates that clients keep, and whose are in it.

        Args:
            examples: client to its windows, of those that finished their turn.
            n_values: numbers in an update.
            version: that their training started from.

        Raises:
            Undecided: too few were left to open the sum.
        """
        ...


class SecAggPlus:
    """What the parties to a sealed sum agree on.

    Each number of an update, times the client's share ``w = examples / the most that a client has``, is clipped to the
    range and rounded, by chance up or down, to one of ``target_range`` steps.

    Args:
        seed: not used; keys and masks come from the operating system's own randomness.
        clipping_range: largest magnitude of a number of ``w * update``; a client with a larger one takes no part.
        target_range: steps that ``[-clipping_range, clipping_range]`` is divided into.
        threshold: share of a client's neighbours, itself among them, whose shares open a sum: above one half.
        num_shares: share of the clients that are one's neighbours; 1.0 is SecAgg, less is SecAgg+'s sparser graph.

    Raises:
        ValueError: an option is out of range.
    """

    server_learns_sum = True

    def __init__(
        self,
        seed: int = 0,
        clipping_range: float = 8.0,
        target_range: int = 2**22,
        threshold: float = 2 / 3,
        num_shares: float = 1.0,
    ) -> None:
        if not 0 < clipping_range < math.inf or not 2**8 <= target_range <= 2**30:
            raise ValueError(
                f"secaggplus with a clipping_range of {clipping_range} and a target_range of {target_range} was asked "
                "for; need above 0, and 2**8 to 2**30"
            )
        if not 0.5 < threshold <= 1 or not 0 < num_shares <= 1:
            raise ValueError(
                f"secaggplus with a threshold of {threshold} and num_shares of {num_shares} was asked for; need above "
                "1/2 (or two halves of the clients could be asked for different secrets) to 1, and above 0 to 1"
            )
        self.clipping_range, self.target_range = float(clipping_range), int(target_range)
        self.threshold, self.num_shares = threshold, num_shares

    def shares(self, n_clients: int) -> int:
        """Return how many clients hold a share of each client's secrets, itself among them: odd, or all."""
        n = round(self.num_shares * n_clients)
        n = n_clients if n <= 2 else n
        return n + 1 if n < n_clients and n % 2 == 0 else n

    def needed(self, n_clients: int) -> int:
        """Return how many of these must be left to open the sum."""
        n = self.shares(n_clients)
        return max(math.ceil(self.threshold * n - 1e-9), n // 2 + 1)

    def error(self, examples: Mapping[str, int]) -> float:
        """Return how far a number of the mean may be off: one step a client, over the sum of their shares ``w``."""
        step = 2 * self.clipping_range / self.target_range
        return len(examples) * step * max(examples.values()) / sum(examples.values())

    def check(self, n_clients: int) -> None:
        """Refuse a number of clients.

        Raises:
            ValueError: they are so few that a mean tells an update, or so many that a sum overflows.
        """
        if n_clients < MIN_CLIENTS:
            raise ValueError(
                f"secaggplus needs at least {MIN_CLIENTS} clients in a round, and {n_clients} "
                f"{'is' if n_clients == 1 else 'are'} to take part: of a mean over two each can tell the other's "
                "update; deal to more clients (federation.partition, n_clients), or draw more of them "
                "(federation.participation)"
            )
        if n_clients * self.target_range >= MODULUS:
            raise ValueError(
                f"a sum over {n_clients} clients in {self.target_range} steps overflows 2**32; lower "
                "federation.secure_options.target_range"
            )

    def sizes(self, n_values: int, n_clients: int) -> tuple[int, int]:
        """Return the bytes that a client sends and receives to have one update summed."""
        sent, received = (own + each * (self.shares(n_clients) - 1) for own, each in (SENT, RECEIVED))
        return sent + 8 * (n_values + 1), received


NOT_HERE = (
    "federation.secure_aggregation = 'secaggplus' is carried by Flower between processes: start this config with `flwr "
    "run` (docs/deployment.md, With Flower), or take 'masks', the pairwise masks of the same family, in a simulation"
)


class SealedAggregator(SecureAggregator):
    """Gives a rule the one mean that a sealed sum opens to.

    Args:
        inner: the rule.
        scheme: what the parties agree on.

    Attributes:
        carry: runs the protocol; set by the deployment.
    """

    scheme: SecAggPlus  # type: ignore[assignment]

    def __init__(self, inner: Aggregator, scheme: SecAggPlus) -> None:
        super().__init__(inner, scheme)  # type: ignore[arg-type]
        self.carry: Carry | None = None

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        """Return the next global state; ``updates`` tell who finished a turn, and hold nothing of what it reached.

        Raises:
            ValueError: nothing carries the protocol here.
            Undecided: too few are left to open the sum.
        """
        self._shown = ()
        if self.carry is None:
            raise ValueError(NOT_HERE)
        ordered = in_order("secaggplus", state, updates)
        if not ordered:
            return state
        version = max(update.base_version for update in ordered)
        examples = {update.client: update.num_examples for update in ordered}
        if len(examples) < MIN_CLIENTS:
            raise Undecided(
                f"{len(examples)} clients finished their turn ({', '.join(examples)}), and secaggplus needs "
                f"{MIN_CLIENTS}"
            )
        layout = Layout.of(state)
        base = layout.flatten(state)
        mean, summed = self.carry(examples, len(base), version)
        moved = layout.unflatten(base + torch.from_numpy(mean))
        kept = {key: tensor for key, tensor in state.items() if key not in moved}
        new = kept | {key: tensor.to(state[key].dtype) for key, tensor in moved.items()}
        group = Update(f"{SERVER_SEES}-1", new, version, sum(examples[client] for client in summed))
        self._shown = (group,)
        return self.inner(state, [group])

    def wire_bytes(self, state: State) -> tuple[int, int]:
        """Return the bytes that a client sends and receives for one update: of a round in which nobody is lost."""
        n_values = sum(t.numel() for t in state.values() if t.is_floating_point())
        sent, received = self.scheme.sizes(n_values, max(len(self.roster), MIN_CLIENTS))
        return sent, len(serialise(state)) + received
