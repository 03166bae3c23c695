"""The ClientApp: one ``train`` message is a whole turn against the split server.

Set for each SuperNode (``--node-config``): ``client`` (its name), ``data`` (folder of its recordings or its share).
Set in the app's configuration: ``config``, ``server`` (``host:port`` of the split server) and ``cache``. Flower's mods
act on the client's half where ``register`` mounts them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from hcqsfl import config as settings
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.device import Device, shares_for
from hcqsfl.deployment.flower import sealed_client
from hcqsfl.deployment.flower.turns import ARRAYS, NAME, REST, from_records, to_records
from hcqsfl.deployment.frame import FrameError
from hcqsfl.deployment.journal import Journal

_devices: dict[tuple[str, ...], Device] = {}
"""Outlives a message where Flower keeps the process; where it does not, each turn opens its own stream."""


def device_of(context: Context) -> Device:
    """Return this node's device, made at its first message.

    Raises:
        ValueError, OSError: the settings, the data or the certificates do not allow it.
    """
    node, run = context.node_config, context.run_config
    if NAME not in node:
        raise ValueError("start the SuperNode with --node-config 'client=\"NAME\"', a name that windows are dealt to")
    given = (str(run["config"]), str(node[NAME]), str(node.get("data", "")), str(run.get("server", "")))
    if given not in _devices:
        path, name, data, server = given
        config = settings.load(Path(path))
        if data:
            root = {"root": Path(data).resolve(), "synthetic": None}
            config = config.model_copy(update={"data": config.data.model_copy(update=root)})
        shares = shares_for(config, name, Path(str(run.get("cache") or ".cache/hcqsfl")))
        address = Address.parse(server or config.deployment.server or config.deployment.listen)
        _devices[given] = Device(config, name, shares, address, Journal(who=name))
    return _devices[given]


def query(message: Message, context: Context) -> Message:
    """Say which client this node is."""
    return Message(RecordDict({REST: ConfigRecord({NAME: str(context.node_config[NAME])})}), reply_to=message)


def train(message: Message, context: Context) -> Message:
    """Train through one turn; or, where SecAgg+ asks for it, hand the update of the last one to its mod."""
    if sealed_client.asks(message):
        return sealed_client.hand_in(message, context)
    device = device_of(context)
    try:
        content = to_records(device.work(from_records(message.content)), reply=True)
        if (kept := device.worker.kept) is not None:
            sealed_client.keep(kept, context)
            content[ARRAYS] = message.content[ARRAYS]  # as it came: mods find what they look for, and nothing in it
    except (RuntimeError, ValueError, OSError, ArithmeticError) as error:
        told: dict[str, Any] = {"lost": isinstance(error, ConnectionError | FrameError), "text": str(error)[:500]}
        content = RecordDict({ARRAYS: message.content[ARRAYS], REST: ConfigRecord({"failed": json.dumps(told)})})
    finally:
        device.rest()
    return Message(content, reply_to=message)


def register(app: ClientApp, mods: Sequence[Mod] = ()) -> ClientApp:
    """Give an app these two answers; return it.

    Args:
        app: made without mods of its own: those would meet ``query`` too, and Flower's for privacy fail there.
        mods: around ``train``, as Flower's ``LocalDpMod``; with SecAgg+ they act before the masks.
    """
    app.query()(query)
    app.train(mods=[sealed_client.sealing, *mods])(train)
    return app


app = register(ClientApp())
