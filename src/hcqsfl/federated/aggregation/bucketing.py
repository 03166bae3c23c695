"""Bucketing: average a few clients at random first, so that what is left to a robust rule is more alike."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hcqsfl.federated.aggregation.flat import agree, in_order
from hcqsfl.federated.update import Aggregator, State, StatefulAggregator, Update
from hcqsfl.randomness import numpy_generator


def bucketing(rule: str | Aggregator = "", size: int = 2, seed: int = 0, **options: Any) -> Aggregator:
    """Deal the clients at random into buckets, and give the buckets' means to another rule.

    There are ceil(n / size) buckets. Each attacker spoils one bucket at most, so the inner rule must withstand as many
    attackers as before among fewer clients: its own precondition is on the number of buckets.

    Args:
        rule: the inner rule, or its name.
        size: s, clients in a bucket, at least 2; the last bucket may hold fewer.
        seed: root seed of the draw, which also depends on the round.
        options: of the inner rule, where it is named.

    Returns:
        The rule. It raises ``ValueError`` where the inner rule does, saying that its clients are buckets.

    Raises:
        ValueError: there is no such rule, or ``size`` is below 2.

    Source: Karimireddy, He and Jaggi (2022), Byzantine-robust learning on heterogeneous datasets via bucketing,
    algorithm 1.
    """
    if size < 2:
        raise ValueError(f"bucketing was given a size of {size}; buckets of fewer than 2 clients change nothing")
    if isinstance(rule, str):
        from hcqsfl.federated.aggregation import make  # the registry holds this rule too

        if not rule:
            raise ValueError("bucketing needs another rule to give the buckets to: rule = 'krum', say")
        return _Bucketing(make(rule, **options), size, seed)
    if options:
        raise ValueError(f"bucketing got options ({', '.join(options)}) for a rule that is set up already")
    return _Bucketing(rule, size, seed)


class _Bucketing:
    def __init__(self, inner: Aggregator, size: int, seed: int) -> None:
        self.inner = inner
        self.size = size
        self.seed = seed

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        if not updates:
            return state
        ordered = in_order("bucketing", state, updates)
        version = max(update.base_version for update in ordered)
        order = numpy_generator(self.seed, "bucketing", version).permutation(len(ordered))
        n_buckets = math.ceil(len(ordered) / self.size)
        digits = len(str(n_buckets))
        buckets = []
        for i in range(n_buckets):
            members = [ordered[j] for j in order[i * self.size : (i + 1) * self.size]]
            buckets.append(_mean(f"bucket-{i + 1:0{digits}d}", state, members))
        try:
            return self.inner(state, buckets)
        except ValueError as error:
            raise ValueError(
                f"bucketing made {n_buckets} buckets, which stand for clients, of {len(ordered)} clients: {error}"
            ) from error

    def tensors(self) -> dict[str, Tensor]:
        return self.inner.tensors() if isinstance(self.inner, StatefulAggregator) else {}

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        if isinstance(self.inner, StatefulAggregator):
            self.inner.load_tensors(held)
        elif held:
            raise ValueError("the checkpoint is of another rule: the rule in the buckets keeps nothing")


def _mean(name: str, state: State, members: Sequence[Update]) -> Update:
    mean = {
        key: torch.stack([member.state[key].to(torch.float64) for member in members]).mean(dim=0).to(base.dtype)
        if base.is_floating_point()
        else agree([member.state[key] for member in members])
        for key, base in state.items()
    }
    version = max(member.base_version for member in members)
    return Update(name, mean, version, sum(member.num_examples for member in members))
