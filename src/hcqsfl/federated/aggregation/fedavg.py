"""Federated averaging."""

from collections.abc import Sequence

import torch

from hcqsfl.federated.update import Aggregator, State, Update


def fedavg() -> Aggregator:
    """Average the clients' states, each weighted by its number of examples.

    Source: McMahan et al. (2017), Communication-efficient learning of deep networks from decentralized data,
    algorithm 1.
    """
    return _fedavg


def _fedavg(state: State, updates: Sequence[Update]) -> State:
    if not updates:
        return state
    in_order = sorted(updates, key=lambda update: update.client)
    total = sum(update.num_examples for update in in_order)
    if total <= 0:
        raise ValueError(f"fedavg weights clients by their examples, and all {len(updates)} updates have none")
    averaged = {}
    for name, base in state.items():
        # the weights sum to one, so the mean of the updates on top of the base is the mean of the states
        mean = torch.zeros_like(base)
        for update in in_order:
            mean += (update.num_examples / total) * update.state[name]
        averaged[name] = mean
    return averaged
