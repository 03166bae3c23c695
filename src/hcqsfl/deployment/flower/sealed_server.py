"""The server's side of SecAgg+: Flower's own workflow, run over the grid that carries our turns.

The workflow is of Flower's legacy API. What that asks for is made here: a ``LegacyContext`` whose strategy says who is
asked and takes the mean, and proxies that are numbers of nodes. Its messages are the grid's own.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common import FitIns, Parameters, bytes_to_ndarray, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow, WorkflowState
from flwr.serverapp import Grid

from hcqsfl.config import Deployment
from hcqsfl.deployment.flower import masks
from hcqsfl.deployment.flower.turns import FlowerRounds
from hcqsfl.federated.rounds import Event
from hcqsfl.federated.sealed import MODULUS, SecAggPlus
from hcqsfl.federated.update import Undecided

STAGES = {
    Stage.SETUP: "making keys",
    Stage.SHARE_KEYS: "sharing keys",
    Stage.COLLECT_MASKED_VECTORS: "handing in what is masked",
    Stage.UNMASK: "opening the sum",
}


@dataclass(frozen=True)
class Proxy:
    """A node, as Flower's workflow knows it."""

    node_id: int


@dataclass
class Party:
    """Who takes part in one sum, as a legacy strategy and its client manager; takes the mean in.

    Attributes:
        nodes: client to node.
        turn: the turn whose updates are summed.
        mean: what the sum opened to.
    """

    nodes: Mapping[str, int]
    turn: dict[str, Any]
    mean: np.ndarray | None = None

    def num_available(self) -> int:
        """Return how many clients there are."""
        return len(self.nodes)

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: Any) -> list[Any]:
        """Ask every client for the update of the turn."""
        # one zero, which mods that look at the difference to what they were sent subtract from every number
        zero = ndarrays_to_parameters([np.zeros(())])
        return [(Proxy(node), FitIns(zero, {"turn": json.dumps(self.turn)})) for node in self.nodes.values()]

    def aggregate_fit(self, server_round: int, results: Sequence[Any], failures: Any) -> tuple[None, dict[str, Any]]:
        """Take the mean."""
        (self.mean,) = parameters_to_ndarrays(results[0][1].parameters)
        return None, {}


@dataclass
class Ear:
    """A grid that listens to the protocol: who fails at which step, and answers that are none are failures.

    Attributes:
        grid: what carries the messages.
        names: node to client.
        n_values: numbers in an update.
        stage: the step that was last asked for.
        left: who answered it.
        lost: client to where it was lost, and why.
        summed: whose vectors are in the sum.
        bytes_up, bytes_down: what clients sent and got, of all of them together.
    """

    grid: Grid
    names: Mapping[int, str]
    n_values: int
    stage: str = Stage.SETUP
    left: tuple[str, ...] = ()
    lost: dict[str, str] = field(default_factory=dict)
    summed: tuple[str, ...] = ()
    bytes_up: int = 0
    bytes_down: int = 0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages, and return the answers that are such."""
        asked = list(messages)
        for message in asked:
            self.stage = str(message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE])
            self.bytes_down += _size(message)
            if timeout is not None:
                message.metadata.ttl = timeout
        silent = {message.metadata.dst_node_id for message in asked}
        fit = []
        for reply in self.grid.send_and_receive(asked, timeout=timeout):
            node = reply.metadata.src_node_id
            if reply.has_error():  # which may be of the grid's own making
                question = reply.metadata.reply_to_message_id
                node = next((m.metadata.dst_node_id for m in asked if m.metadata.message_id == question), node)
            if node not in silent:
                continue
            silent.discard(node)
            self.bytes_up += _size(reply)
            if why := self._amiss(reply):
                self._lose(node, why)
            else:
                fit.append(reply)
        for node in silent:
            self._lose(node, f"no answer within {timeout:g} s" if timeout is not None else "no answer")
        self.left = tuple(self.names[reply.metadata.src_node_id] for reply in fit)
        if self.stage == Stage.COLLECT_MASKED_VECTORS:
            self.summed = self.left
        return fit

    def _lose(self, node: int, why: str) -> None:
        self.lost.setdefault(self.names[node], f"at {STAGES[self.stage]}: {why}")

    def _amiss(self, reply: Message) -> str:
        if reply.has_error():
            return str(reply.error.reason)[:300]
        try:
            self._read(reply.content.config_records[RECORD_KEY_CONFIGS])
        except (KeyError, TypeError, ValueError) as error:
            return f"what it answers is malformed: {str(error)[:200]}"
        return ""

    def _read(self, answer: ConfigRecord) -> None:
        def of(key: str, kind: type) -> list[Any]:
            found = answer[key]
            if not isinstance(found, list) or any(type(each) is not kind for each in found):
                raise ValueError(f"{key!r} is no list of {kind.__name__}")
            return found

        if self.stage == Stage.SETUP:
            if not all(isinstance(answer[key], bytes) for key in (Key.PUBLIC_KEY_1, Key.PUBLIC_KEY_2)):
                raise ValueError("its keys are no bytes")
        elif self.stage == Stage.SHARE_KEYS:
            if len(of(Key.DESTINATION_LIST, int)) != len(of(Key.CIPHERTEXT_LIST, bytes)):
                raise ValueError("shares and receivers differ in number")
        elif self.stage == Stage.COLLECT_MASKED_VECTORS:
            vectors = [bytes_to_ndarray(data) for data in of(Key.MASKED_PARAMETERS, bytes)]
            if [v.shape for v in vectors] != [(1,), (self.n_values,)] or any(v.dtype != np.int64 for v in vectors):
                raise ValueError(f"no vector of {self.n_values} whole numbers")
            if any(v.size and not 0 <= v.min() <= v.max() < MODULUS for v in vectors):
                raise ValueError("a number lies outside the modulus")
        elif len(nodes := of(Key.NODE_ID_LIST, int)) != len(of(Key.SHARE_LIST, bytes)) or not set(nodes) <= set(
            self.names
        ):
            raise ValueError("shares and owners differ")


def _size(message: Message) -> int:
    """Return the bytes of a message's content."""
    if message.has_error():
        return 0
    arrays = sum(len(a.data) for record in message.content.array_records.values() for a in record.values())
    words = (value for record in message.content.config_records.values() for value in record.values())
    return arrays + sum(_weight(each) for value in words for each in (value if isinstance(value, list) else [value]))


def _weight(value: Any) -> int:
    return len(value) if isinstance(value, bytes | str) else 8


class Workflow(SecAggPlusWorkflow):
    """Flower's, with masks of whole keys; and it goes on without who is lost before its keys are shared.

    Flower 1.41 counts such a client among those whose secrets are to be recovered, though nobody holds a share of them,
    so that one lost at the first two steps stops the sum. Nobody has masked anything with it yet: it is left out.
    """

    unmask_stage = masks.finding(SecAggPlusWorkflow.unmask_stage, pseudo_rand_gen=masks.draw)

    def setup_stage(self, grid: Any, context: Any, state: WorkflowState) -> bool:
        """Have keys made."""
        super().setup_stage(grid, context, state)
        return self._without_absent(state)

    def share_keys_stage(self, grid: Any, context: Any, state: WorkflowState) -> bool:
        """Have shares of secrets dealt out."""
        super().share_keys_stage(grid, context, state)
        return self._without_absent(state)

    def _without_absent(self, state: WorkflowState) -> bool:
        left = state.sampled_node_ids = set(state.active_node_ids)
        state.nid_to_neighbours = {node: near & left for node, near in state.nid_to_neighbours.items() if node in left}
        return bool(left) and bool(self._check_threshold(state))


class FlowerSealing:
    """Carries the sealed sums of one training over a Flower grid.

    Args:
        rounds: knows the nodes.
        scheme: what the parties agree on.
        where: arm, seed and fold of the training.
        policy: settings of the deployment; a step of the protocol is waited for as a lost client is.
    """

    def __init__(
        self, rounds: FlowerRounds, scheme: SecAggPlus, where: tuple[str, int, str], policy: Deployment
    ) -> None:
        self.rounds, self.scheme, self.where, self.policy = rounds, scheme, where, policy
        self._lost: tuple[int, dict[str, str]] = (0, {})

    def __call__(self, examples: Mapping[str, int], n_values: int, version: int) -> tuple[np.ndarray, tuple[str, ...]]:
        """Run the protocol, as ``hcqsfl.federated.sealed.Carry`` says.

        Raises:
            Undecided: too few were left to open the sum.
            ValueError: they are too few to hide in a sum, or too many for it.
        """
        number = version + 1
        self._lost = number, {}
        self.scheme.check(len(examples))
        self.rounds.journal("sealing", round=number, clients=sorted(examples))
        present = self.rounds.nodes()
        nodes = {client: present[client] for client in sorted(examples) if client in present}
        ear = Ear(self.rounds.grid, {node: client for client, node in nodes.items()}, n_values)
        ear.lost |= {client: "its node is gone" for client in examples if client not in nodes}
        party = Party(nodes, dict(zip(("arm", "seed", "fold"), self.where, strict=True)) | {"round": number})
        n = len(nodes)
        needed = self.scheme.needed(n)
        why, started = "", time.monotonic()
        try:
            if n < self.scheme.needed(len(examples)) or n < 2:
                why = "nodes are gone"
            else:
                self._workflow(n, max(examples.values()))(cast(Grid, ear), self._context(party, number))
        except (ValueError, KeyError, TypeError, IndexError, AssertionError) as error:
            why = f"{type(error).__name__}: {error}"
        self._lost = number, ear.lost
        for client, what in ear.lost.items():
            self.rounds.journal("unsealed", "warning", client=client, round=number, text=what)
        if party.mean is None:
            reasons = "; ".join(f"{client} {what}" for client, what in ear.lost.items()) or why or "no reason was told"
            raise Undecided(
                f"the secure sum of round {number} stopped at {STAGES[ear.stage]}: {len(ear.left)} of {len(examples)} "
                f"clients are left, {needed} are needed; {reasons}"
            )
        told: dict[str, Any] = {
            "bytes_up": ear.bytes_up,
            "bytes_down": ear.bytes_down,
            "seconds": time.monotonic() - started,
        }
        self.rounds.journal("sealed", round=number, clients=len(ear.summed), **told)
        return party.mean, ear.summed

    def events(self, number: int) -> tuple[Event, ...]:
        """Return who dropped out of the sum of a round, and why."""
        told, lost = self._lost
        return tuple(
            Event("failed", client, f"client {client} dropped out of the secure sum of round {number}, {what}")
            for client, what in (lost.items() if told == number else ())
        )

    def _workflow(self, n_clients: int, most: int) -> Workflow:
        n_shares = self.scheme.shares(n_clients)
        return Workflow(
            n_shares / n_clients,
            self.scheme.needed(n_clients) / n_shares,
            max_weight=float(most),
            clipping_range=self.scheme.clipping_range,
            quantization_range=self.scheme.target_range,
            modulus_range=MODULUS,
            timeout=self.policy.rejoin_seconds,
        )

    def _context(self, party: Party, number: int) -> LegacyContext:
        state = RecordDict(
            {
                MAIN_CONFIGS_RECORD: ConfigRecord({WorkflowKey.CURRENT_ROUND: number}),
                MAIN_PARAMS_RECORD: ArrayRecord(),
            }
        )
        context = Context(0, 0, {}, state, {})
        return LegacyContext(context, strategy=cast(Any, party), client_manager=cast(Any, party))
