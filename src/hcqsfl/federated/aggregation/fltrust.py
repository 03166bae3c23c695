"""FLTrust: trust whoever points where the server's own update points."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hcqsfl.federated.aggregation.flat import move, stack, weighted_mean
from hcqsfl.federated.update import Aggregator, State, Update

RootUpdate = Callable[[State, int], State]
"""From the global state and its version to the state that training on the root data set reaches from there."""


def fltrust(root_update: RootUpdate | None = None) -> Aggregator:
    """Weight updates by how far they point where the server's own update points, each stretched to that one's length.

    The trust in a client is the cosine between its update and the server's, zero where it is negative. Clients count
    alike otherwise, whatever number of examples they claim.

    Args:
        root_update: trains from the global state on a small, clean root data set that the server itself holds.

    Returns:
        The rule. It raises ``ValueError`` when the server's update is zero or not finite, or no client is trusted.

    Raises:
        ValueError: there is no ``root_update``.

    Source: Cao et al. (2021), FLTrust: Byzantine-robust federated learning via trust bootstrapping, algorithm 2.
    """
    if root_update is None:
        raise ValueError(
            "fltrust needs a root data set: the server must train on clean windows of its own to tell whom to trust; "
            "give it root_update, or choose a rule without root data such as median"
        )
    train = root_update

    def aggregate(state: State, updates: Sequence[Update]) -> State:
        if not updates:
            return state
        stacked = stack("fltrust", state, updates)
        root = Update("server (root data)", train(state, stacked.version), stacked.version, 1)
        own = stack("fltrust", state, [root]).rows[0]
        length = own.norm()
        if not length > 0:
            raise ValueError("fltrust cannot tell whom to trust: training on the root data set changed nothing")
        lengths = stacked.rows.norm(dim=1)
        trust = _cosines(stacked.rows, own, lengths, length).clamp(min=0)
        stretched = stacked.rows * (length / lengths.clamp(min=1e-300))[:, None]
        step = weighted_mean("fltrust", stretched, trust, "how far they point where the root update points")
        return move("fltrust", state, updates, stacked.layout, step)

    return aggregate


def _cosines(rows: Tensor, own: Tensor, lengths: Tensor, length: Tensor) -> Tensor:
    # an update of no length points nowhere and is not trusted
    return torch.where(lengths > 0, rows @ own / (lengths.clamp(min=1e-300) * length), 0.0)
