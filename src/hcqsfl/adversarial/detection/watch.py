"""Let a monitor watch a federation, and let its verdicts count."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from hcqsfl.adversarial.detection.clients import ClientMonitor
from hcqsfl.federated.aggregation import make
from hcqsfl.federated.update import Aggregator, State, StatefulAggregator, Undecided, Update
from hcqsfl.split import Transport
from hcqsfl.split.message import decode

Trust = Callable[[State, Sequence[Update]], Mapping[str, float]]


class Watch:
    """Shows a monitor each client's smashed data and updates.

    Args:
        monitor: judges the clients.
        trust: asked for the trust of a round; the monitor itself unless given, ``monitor.record`` to calibrate.
    """

    def __init__(self, monitor: ClientMonitor, trust: Trust | None = None) -> None:
        self.monitor = monitor
        self._trust: Trust = trust or monitor
        self.latest: Mapping[str, float] = {}
        self._made = 0
        self._judged = -1

    def rule(self, inner: Callable[[], Aggregator] | None = None) -> Aggregator:
        """Return an aggregation rule for one part of the network: the mean of whom the monitor trusts.

        Where several parts are averaged, the one that is aggregated first is judged, and the others follow.

        Args:
            inner: makes the rule that those trusted are given to, instead of the mean.
        """
        trust = partial(self.told, self._made)
        self._made += 1
        return Weighted(trust) if inner is None else Screened(inner(), trust)

    def wear(self, client: str, transport: Transport) -> Transport:
        """Return a transport that shows the monitor what the client sends."""

        def carry(request: bytes) -> bytes:
            message = decode(request)
            if message.kind in ("forward", "train") and "smashed" in message.tensors:
                self.monitor.see(client, message.tensor("smashed"))
            return transport(request)

        return carry

    def told(self, number: int, state: State, updates: Sequence[Update]) -> Mapping[str, float]:
        """Return the trust in a round's clients for the part that was wired as this number."""
        if self._judged < 0:
            self._judged = number  # a part that clients keep is wired too, and never aggregated
        if number == self._judged:
            self.latest = self.judge(state, updates)
        return self.latest

    def judge(self, state: State, updates: Sequence[Update]) -> Mapping[str, float]:
        """Return the trust in a round's clients, asked for once a round."""
        return self._trust(state, updates)


class Weighted:
    """The mean of ``trust_weighted``, as an object that can be copied with all that its trust remembers.

    An attacker who foresees what the rule would do must not move the monitor while it thinks.

    Args:
        trust: a weight of each client.
    """

    def __init__(self, trust: Trust) -> None:
        self.trust = trust

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        """Return the next global state.

        Raises:
            ValueError: as ``trust_weighted``.
        """
        return make("trust_weighted", trust=self.trust)(state, updates)


class Screened:
    """A rule that is given the updates of trusted clients alone.

    Args:
        rule: the inner one; its precondition is on the clients that are left.
        trust: a weight of each client; whoever has none above 0 is left out.
    """

    def __init__(self, rule: Aggregator, trust: Trust) -> None:
        self.rule, self.trust = rule, trust

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        """Return the next global state.

        Raises:
            Undecided: nobody is trusted.
            ValueError: as the inner rule.
        """
        if not updates:
            return state
        told = self.trust(state, updates)
        kept = [update for update in updates if told[update.client] > 0]
        if not kept:
            raise Undecided(f"none of the {len(updates)} clients is trusted")
        try:
            return self.rule(state, kept)
        except ValueError as error:
            raise Undecided(f"of {len(updates)} clients {len(kept)} are trusted: {error}") from error

    def tensors(self) -> dict[str, Tensor]:
        """Return what the inner rule remembers."""
        return self.rule.tensors() if isinstance(self.rule, StatefulAggregator) else {}

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        if isinstance(self.rule, StatefulAggregator):
            self.rule.load_tensors(held)
