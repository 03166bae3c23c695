"""A mean whose weights somebody else supplies: a detector of attackers."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from hcqsfl.federated.aggregation.flat import in_order, move, stack, weighted_mean
from hcqsfl.federated.update import Aggregator, State, Update

Trust = Mapping[str, float] | Callable[[State, Sequence[Update]], Mapping[str, float]]
"""How much each client counts, by name, fixed or told anew in each round."""


def trust_weighted(trust: Trust | None = None, by_examples: bool = False) -> Aggregator:
    """Average the updates, each weighted by the trust in its client.

    Args:
        trust: a weight of at least 0 for every client of the round, as a mapping or as a function of the global state
            and the updates, which it is given in order of the clients' names. Weights need not sum to one.
        by_examples: multiply the trust by the number of examples that a client claims.

    Returns:
        The rule. It raises ``ValueError`` when a client has no weight or one that is negative or not finite, or when
        all weights are zero.

    Raises:
        ValueError: there is no ``trust``.

    Source: the trust-weighted mean of Cao et al. (2021), FLTrust, equation 4, with the weights left open.
    """
    if trust is None:
        raise ValueError("trust_weighted needs trust: a weight for each client, or a detector that gives one")
    supplied = trust

    def aggregate(state: State, updates: Sequence[Update]) -> State:
        if not updates:
            return state
        stacked = stack("trust_weighted", state, updates)
        told = supplied(state, in_order("trust_weighted", state, updates)) if callable(supplied) else supplied
        weights = torch.tensor([_weight(told, client) for client in stacked.clients], dtype=torch.float64)
        if by_examples:
            weights = weights * stacked.examples
        step = weighted_mean("trust_weighted", stacked.rows, weights, "trust")
        return move("trust_weighted", state, updates, stacked.layout, step)

    return aggregate


def _weight(told: Mapping[str, float], client: str) -> float:
    if client not in told:
        raise ValueError(f"trust_weighted was told no trust in client {client}; it was told: {', '.join(sorted(told))}")
    weight = float(told[client])
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(f"trust_weighted was told a trust of {weight:g} in client {client}; it must be at least 0")
    return weight
