"""Federated averaging."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hcqsfl.federated.aggregation.flat import agree, in_order
from hcqsfl.federated.update import Aggregator, State, Update


def fedavg() -> Aggregator:
    """Average the clients' states, each weighted by its number of examples.

    A single update is returned bit for bit. Integer and Boolean buffers take the lower median of the clients' values.

    Breaks down at the first attacker: one client moves the mean wherever it wants.

    Returns:
        The rule. It raises ``ValueError`` when no client has an example, and names the client whose update is not fit.

    Source: McMahan et al. (2017), Communication-efficient learning of deep networks from decentralized data,
    algorithm 1.
    """
    return _fedavg


def _fedavg(state: State, updates: Sequence[Update]) -> State:
    if not updates:
        return state
    ordered = in_order("fedavg", state, updates)
    total = sum(update.num_examples for update in ordered)
    if total <= 0:
        raise ValueError(f"fedavg weights clients by their examples, and all {len(updates)} updates have none")
    weights = [update.num_examples / total for update in ordered]
    return {name: _mean([update.state[name] for update in ordered], weights) for name in state}


def _mean(tensors: list[Tensor], weights: list[float]) -> Tensor:
    if not tensors[0].is_floating_point():
        return agree(tensors)
    # the weights sum to one, so the mean of the updates on top of the base is the mean of the states
    mean = weights[0] * tensors[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        mean += weight * tensor
    if not torch.isfinite(mean).all():
        raise ValueError(f"fedavg cannot go on: the states are so large that their mean overflows {mean.dtype}")
    return mean
