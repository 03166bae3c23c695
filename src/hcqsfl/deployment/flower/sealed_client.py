"""The client's side of SecAgg+: Flower's own mod, which gets to see no more than what the settings agree to.

A turn ends without the half that it reached: the update is kept in the node's own state. When the server then asks for
masked vectors, the mod takes it from there, once.
"""

import json
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType
from flwr.client.mod import secaggplus_mod
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, RECORD_KEY_STATE, Key, Stage
from flwr.compat.common.recorddict_compat import fitres_to_recorddict

from hcqsfl import config as settings
from hcqsfl.config import Config
from hcqsfl.deployment.flower import masks
from hcqsfl.deployment.flower.turns import ARRAYS
from hcqsfl.deployment.worker import Kept
from hcqsfl.federated.sealed import MIN_CLIENTS, MODULUS, SecAggPlus

KEPT, FITINS, SAME_TURN = "hcqsfl.kept", "fitins.config", ("arm", "seed", "fold", "round")

_masking: ContextVar[bool] = ContextVar("_masking", default=False)
"""Whether the mod is at work, that masks what it is handed."""

_mod = masks.finding(
    secaggplus_mod,
    _collect_masked_vectors=masks.finding(
        secaggplus_mod.__globals__["_collect_masked_vectors"], pseudo_rand_gen=masks.draw
    ),
)


def scheme_of(config: Config) -> SecAggPlus | None:
    """Return what the parties agree on for sealed sums, if the settings ask for them."""
    f = config.federation
    return SecAggPlus(**f.secure_options) if f.secure_aggregation == "secaggplus" else None


def sealing(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Carry SecAgg+ out where the settings ask for it, and let no turn hand in a half in clear; a mod, the outermost.

    Raises:
        ValueError: the server asks for something else than the settings agree to.
    """
    if message.metadata.message_type != MessageType.TRAIN:
        return call_next(message, context)
    scheme = scheme_of(settings.load(Path(str(context.run_config["config"]))))
    if asks(message):
        if scheme is None:
            raise ValueError("the server asks for SecAgg+, and federation.secure_aggregation here is another")
        check(scheme, message.content.config_records[RECORD_KEY_CONFIGS], context)
        token = _masking.set(True)
        try:
            return _mod(message, context, call_next)
        finally:
            _masking.reset(token)
    reply = call_next(message, context)
    if scheme is not None and reply.has_content():
        reply.content[ARRAYS] = ArrayRecord()
    return reply


def asks(message: Message) -> bool:
    """Return whether a message is one of the protocol's."""
    return RECORD_KEY_CONFIGS in message.content.config_records


def check(scheme: SecAggPlus, asked: ConfigRecord, context: Context) -> None:
    """Hold a step of the protocol against the settings, before any secret is made or shown.

    Raises:
        ValueError: the server would have fewer clients, a lower threshold or other ranges; or both secrets of one.
    """
    stage = asked.get(Key.STAGE)
    if stage == Stage.SETUP:
        n = cast(int, asked.get(Key.SAMPLE_NUMBER, 0))
        agreed: dict[str, Any] = {
            Key.SHARE_NUMBER: scheme.shares(n),
            Key.THRESHOLD: scheme.needed(n),
            Key.CLIPPING_RANGE: scheme.clipping_range,
            Key.TARGET_RANGE: scheme.target_range,
            Key.MOD_RANGE: MODULUS,
        }
        scheme.check(n)
        for key, value in agreed.items():
            if asked.get(key) != value:
                raise ValueError(
                    f"the server asks for SecAgg+ with {key} = {asked.get(key)}, settings here say {value}"
                )
    elif stage == Stage.SHARE_KEYS:
        held = context.state.config_records.get(RECORD_KEY_STATE, ConfigRecord())
        if len(asked) - 1 < max(2, cast(int, held.get(Key.THRESHOLD, MIN_CLIENTS))):
            raise ValueError(f"the server shows the keys of {len(asked) - 1} clients, too few to hide among")
    elif stage == Stage.UNMASK:
        active, dead = (
            set(cast(list[int], asked.get(key, []))) for key in (Key.ACTIVE_NODE_ID_LIST, Key.DEAD_NODE_ID_LIST)
        )
        if both := active & dead:
            raise ValueError(f"the server asks for both secrets of node {min(both)}, which would bare its update")


def keep(kept: Kept, context: Context) -> None:
    """Put an update away in the node's state, in place of what is there."""
    words = {**kept.where.words(), "num_examples": kept.num_examples}
    context.state[KEPT] = ArrayRecord({"update": Array(kept.update)})
    context.state[f"{KEPT}.turn"] = ConfigRecord({"words": json.dumps(words)})


def hand_in(message: Message, context: Context) -> Message:
    """Give the mod the update that is kept, as its ``FitRes``, and keep it no longer.

    Raises:
        ValueError: none of the turn that the server asks for is kept, or it does not fit the clipping range; the
            message says nothing of its numbers.
        RuntimeError: the app is made without the mod that would mask it.
    """
    if not _masking.get():
        raise RuntimeError("this app lacks the mod that masks an update; make it by client_app.register")
    asked = json.loads(str(message.content.config_records[FITINS]["turn"]))
    words = context.state.config_records.get(f"{KEPT}.turn")
    found = json.loads(str(words["words"])) if words else {}
    if any(found.get(key) != asked[key] for key in SAME_TURN):
        raise ValueError(f"no update of round {asked['round']} is kept here, or it was handed in before")
    update = cast(ArrayRecord, context.state[KEPT])["update"].numpy()
    del context.state[KEPT], context.state[f"{KEPT}.turn"]
    state = context.state.config_records[RECORD_KEY_STATE]
    most, clip = cast(float, state[Key.MAX_WEIGHT]), cast(float, state[Key.CLIPPING_RANGE])
    if not np.isfinite(update).all():
        raise ValueError("the update holds NaN or infinity; lower training.learning_rate")
    if found["num_examples"] > most:
        raise ValueError(f"{found['num_examples']} windows are more than the server says that any client has, {most:g}")
    if np.abs(update).max(initial=0) * found["num_examples"] / most > clip:
        raise ValueError(
            f"the update lies outside the clipping range, which would cut it short: raise "
            f"federation.secure_options.clipping_range above {clip:g}, or lower training.learning_rate"
        )
    result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([update]), found["num_examples"], {})
    return Message(fitres_to_recorddict(result, keep_input=True), reply_to=message)
