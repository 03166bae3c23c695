"""Flower's grid in one process: ClientApps that are called where messages would be sent."""

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key

from deployment.federations import Home
from hcqsfl.deployment.flower import client_app


class InProcess:
    """A grid whose nodes are ClientApps in this process.

    Attributes:
        contexts: of each node.
        lost: node to the step of SecAgg+ at which it falls silent.
        change: what becomes of an answer on its way.
        answers: every answer that the server got.
        mute: nodes that answer no question for now.
    """

    def __init__(self, contexts: dict[int, Context], app: ClientApp = client_app.app) -> None:
        self.contexts, self.app, self.sent = contexts, app, 0
        self.lost: dict[int, str] = {}
        self.change: Callable[[str, Message], None] = lambda stage, reply: None
        self.answers: list[Message] = []
        self.mute: set[int] = set()
        self._pushed: dict[str, Message] = {}

    def get_node_ids(self):
        return list(self.contexts)

    def push_messages(self, messages):
        for message in messages:
            for reply in self.send_and_receive([message]):
                self._pushed[message.metadata.message_id] = reply
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids):
        ready = [name for name in message_ids if name in self._pushed]
        ready = [name for name in ready if self._pushed[name].metadata.src_node_id not in self.mute]
        return [self._pushed.pop(name) for name in ready]

    def send_and_receive(self, messages, *, timeout=None):
        for message in messages:
            self.sent += 1
            metadata = message.metadata
            metadata.__dict__["_message_id"] = str(self.sent)
            stage = str(message.content.config_records.get(RECORD_KEY_CONFIGS, ConfigRecord()).get(Key.STAGE, ""))
            if stage and self.lost.get(metadata.dst_node_id) == stage:
                continue
            try:
                reply = self.app(_copied(message), self.contexts[metadata.dst_node_id])
            except Exception as error:  # as Flower's process does
                reply = Message(Error(code=0, reason=f"{type(error)}:<'{error}'>"), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = metadata.dst_node_id
            self.change(stage, reply)
            self.answers.append(reply)
            yield reply


def _copied(message: Message) -> Message:
    # a node gets bytes, and may change what it read of them
    content = message.content
    records = {
        name: ConfigRecord(dict(record)) if isinstance(record, ConfigRecord) else record
        for name, record in content.items()
    }
    return Message(content=RecordDict(records), metadata=message.metadata)


def contexts(home: Home, names: list[str], server: str) -> dict[int, Context]:
    run = {"config": str(home.path / "c.toml"), "server": server, "cache": str(home.path / "cache")}
    return {i: Context(1, i, {"client": name}, RecordDict(), run) for i, name in enumerate(names, start=1)}
