"""Aggregation rules: pure functions of updates, one file each and one line here."""

from collections.abc import Callable
from typing import Any

from hcqsfl.federated.aggregation.fedavg import fedavg
from hcqsfl.federated.update import Aggregator
from hcqsfl.registry import lookup

AGGREGATORS: dict[str, Callable[..., Aggregator]] = {
    "fedavg": fedavg,
}


def make(name: str, **options: Any) -> Aggregator:
    """Return the aggregation rule called ``name``, set up with ``options``.

    Raises:
        ValueError: there is no such rule.
    """
    return lookup("aggregation rule", AGGREGATORS, name)(**options)
