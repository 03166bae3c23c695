"""Every aggregation rule of ours as a Flower strategy of the message API."""

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from hcqsfl.federated.update import Aggregator, State, Update, unfit

WARNING = 30


class AggregationStrategy(FedAvg):
    """Flower's sampling and messages, our aggregation.

    An update that does not fit the global state (shapes, types, NaN) is left out, and the log says so. Where the rule's
    precondition does not hold for what came, the round leaves the state as it was.

    Args:
        aggregator: a rule, as ``hcqsfl.federated.aggregation.make`` makes it.
        options: as Flower's ``FedAvg``.
    """

    def __init__(self, aggregator: Aggregator, **options: Any) -> None:
        super().__init__(**options)
        self.aggregator = aggregator
        self._state: State = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the global state, and send it as Flower does."""
        self._state = arrays.to_torch_state_dict()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate what came by our rule."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        updates, contents = [], []
        for reply in valid:
            update = self._update(reply, server_round)
            if why := unfit(update, self._state, server_round - 1):
                log(WARNING, "aggregate_train: the update of node %s %s", update.client, why)
                continue
            updates.append(update)
            contents.append(reply.content)
        if not updates:
            return None, None
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        try:
            state = self.aggregator(self._state, updates)
        except ValueError as error:
            log(WARNING, "aggregate_train: the state stays as it was: %s", error)
            return None, metrics
        return ArrayRecord(dict(state)), metrics

    def _update(self, reply: Message, server_round: int) -> Update:
        arrays = next(iter(reply.content.array_records.values()))
        metrics = next(iter(reply.content.metric_records.values()))
        n = metrics[self.weighted_by_key]
        return Update(
            client=str(reply.metadata.src_node_id),
            state=arrays.to_torch_state_dict(),
            base_version=server_round - 1,
            num_examples=int(n) if isinstance(n, int | float) else 0,
        )
