"""A client's turn as one Flower ``train`` message.

The client's half travels as an ``ArrayRecord``, where Flower's mods look for it; what else a task or a result says
travels as bytes beside it.
"""

import json
import threading
import time
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from hcqsfl.deployment import record
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.plane import ClientLostError

ARRAYS, REST, METRICS = "arrays", "config", "metrics"
NAME, TURN = "client", "turn"
_STATE = "state/"


def to_records(data: bytes, *, reply: bool) -> RecordDict:
    """Return a task or a result as Flower's records."""
    words, tensors = record.unpack(data)
    state = record.below(tensors, _STATE)
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(_STATE)}
    found = RecordDict({ARRAYS: ArrayRecord(state), REST: ConfigRecord({TURN: record.pack(words, rest)})})
    if reply:
        found[METRICS] = MetricRecord({"num-examples": words["num_examples"], "loss": words["loss"]})
    return found


def from_records(content: RecordDict) -> bytes:
    """Return the task or the result that records hold.

    Raises:
        ValueError: they hold none.
    """
    try:
        state = cast(ArrayRecord, content[ARRAYS]).to_torch_state_dict()
        words, rest = record.unpack(cast(bytes, cast(ConfigRecord, content[REST])[TURN]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the message is no turn: {error}") from None
    return record.pack(words, rest | {_STATE + name: tensor for name, tensor in state.items()})


class FlowerRounds:
    """Hands tasks to clients through a Flower grid.

    Args:
        grid: of the ServerApp.
        journal: where events go.
        ask_seconds: until a node that has not said which client it is, or not as it should, is asked again.
    """

    def __init__(self, grid: Grid, journal: Journal, ask_seconds: float = 300.0) -> None:
        self.grid, self.journal, self.ask_seconds = grid, journal, ask_seconds
        self._nodes: dict[str, int] = {}
        self._asked: dict[int, tuple[str, float]] = {}  # node: the question, and until when none other is put
        self._lock = threading.Lock()

    def wait_for(self, client: str, seconds: float) -> bool:
        """Wait until a client's node is there; return whether it came."""
        until = time.monotonic() + seconds
        while True:
            with self._lock:
                self._meet()
                if client in self._nodes:
                    return True
            if time.monotonic() >= until:
                return False
            time.sleep(min(1.0, max(until - time.monotonic(), 0.0)))

    def nodes(self) -> dict[str, int]:
        """Return the node of each client that is there."""
        with self._lock:
            return dict(self._nodes)

    def _meet(self) -> None:
        # a node starts a process for each question: on a busy host more of them would only make it busier
        now, present = time.monotonic(), set(self.grid.get_node_ids())
        self._nodes = {client: node for client, node in self._nodes.items() if node in present}
        self._asked = {node: (q, until) for node, (q, until) in self._asked.items() if node in present and now < until}
        questions = [
            Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY, ttl=self.ask_seconds)
            for node in sorted(present - set(self._nodes.values()) - self._asked.keys())
        ]
        if questions:
            pushed = zip(questions, self.grid.push_messages(questions), strict=False)
            self._asked |= {q.metadata.dst_node_id: (name, now + self.ask_seconds) for q, name in pushed if name}
        nodes = {name: node for node, (name, _) in self._asked.items() if name}
        for reply in self.grid.pull_messages(list(nodes)) if nodes else ():
            node = nodes.get(reply.metadata.reply_to_message_id)
            if node is None:
                continue
            if why := self._introduce(node, reply):
                self.journal("refused", "warning", **why)
                self._asked[node] = "", self._asked[node][1]
            else:
                del self._asked[node]

    def _introduce(self, node: int, reply: Message) -> dict[str, str]:
        if reply.has_error():
            return {"reason": "node", "text": str(reply.error.reason)[:300]}
        name = str(cast(ConfigRecord, reply.content[REST])[NAME])
        if name in self._nodes:
            return {"reason": "twice", "client": name, "text": "two nodes say they are this client"}
        self._nodes[name] = node
        self.journal("joined", client=name, node=node)
        return {}

    def ask(self, client: str, task: bytes, until: float, *, silence: float | None = None) -> bytes:
        """Hand a client a task and return its result.

        Raises:
            ClientLostError: its node is gone, or its app failed.
            TimeoutError: nothing came in time.
            RuntimeError: it could not do it.
        """
        node = self._nodes.get(client)
        if node is None:
            raise ClientLostError(f"client {client} has no node")
        left = max(until - time.monotonic(), 1.0)
        message = Message(to_records(task, reply=False), dst_node_id=node, message_type=MessageType.TRAIN, ttl=left)
        replies = list(self.grid.send_and_receive([message], timeout=left))
        if not replies:
            raise TimeoutError(f"client {client} did not finish its turn in time")
        (reply,) = replies
        if reply.has_error():
            with self._lock:
                self._nodes.pop(client, None)
            raise ClientLostError(f"the node of client {client} failed: {str(reply.error.reason)[:300]}")
        if failed := cast(ConfigRecord, reply.content[REST]).get("failed"):
            told = json.loads(str(failed))
            raise (ClientLostError if told["lost"] else RuntimeError)(told["text"])
        return from_records(reply.content)
