"""The ClientApp: one ``train`` message is a whole turn against the split server.

Set for each SuperNode (``--node-config``): ``client`` (its name), ``data`` (folder of its recordings or its share).
Set in the app's configuration: ``config``, ``server`` (``host:port`` of the split server) and ``cache``. Flower's mods
act on the client's half if the app is made with them: ``ClientApp(mods=[...])`` and ``register``.
"""

import json
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hcqsfl import config as settings
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.device import Device, shares_for
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
    """Train through one turn."""
    device = device_of(context)
    try:
        content = to_records(device.work(from_records(message.content)), reply=True)
    except (RuntimeError, ValueError, OSError, ArithmeticError) as error:
        told: dict[str, Any] = {"lost": isinstance(error, ConnectionError | FrameError), "text": str(error)[:500]}
        content = RecordDict({ARRAYS: message.content[ARRAYS], REST: ConfigRecord({"failed": json.dumps(told)})})
    finally:
        device.rest()
    return Message(content, reply_to=message)


def register(app: ClientApp) -> ClientApp:
    """Give an app these two answers; return it."""
    app.query()(query)
    app.train()(train)
    return app


app = register(ClientApp())
