"""The client's process: builds its own half as the simulation does, and trains it against the server's."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data.folds import Fold
from hcqsfl.data.scaling import Scaler
from hcqsfl.deployment import record, turn
from hcqsfl.deployment.share import Share, Shares
from hcqsfl.federated.aggregation.flat import Layout
from hcqsfl.federated.client import Client
from hcqsfl.models.protocols import Setup, set_up
from hcqsfl.registry import lookup
from hcqsfl.split import RemoteLoss, RemoteTrunk, Transport


def client_setup(config: Config, arm: build.Arm, seed: int, share: Share) -> Setup:
    """Return the federation of one client that the simulation would make, out of the client's share alone.

    Its trunk is initialised as the server's and never used.
    """
    # a client aggregates nothing, and the rule might ask for windows of the server's
    own = config.model_copy(
        update={"federation": config.federation.model_copy(update={"aggregator": "fedavg", "aggregator_options": {}})}
    )
    index = share.like.y  # without a row
    fold = Fold(share.fold, index, index, index, "subject")
    prepared = build.Prepared(
        fold=fold,
        x={"train": share.x},
        y={"train": share.y},
        training=share.like,
        test=share.like,
        class_weights=share.class_weights,
        scaler=Scaler("none", index, index, index, None, ()),  # the windows are scaled
    )
    joined = build.network(own, arm, seed, share.like, share.x.shape[1])
    joined.class_weights = copy.copy(share.class_weights)
    plan = build.plan(own, arm, seed, prepared)
    return set_up(arm.protocol, joined, {share.client: (share.x, share.y)}, plan)


@dataclass(frozen=True, eq=False)
class Kept:
    """What a turn did to a half that the server is not to see.

    Attributes:
        where: the turn.
        update: ``(n_values,)`` float64, the state it reached minus the one it was handed.
        num_examples: windows that the client trained on.
    """

    where: turn.Where
    update: np.ndarray
    num_examples: int


class Worker:
    """Does the tasks that the fed server hands out.

    Args:
        config: settings.
        client: whose process this is.
        shares: its windows.
        connect: opens the way to the trunk, when a turn first needs it.

    Attributes:
        kept: the update of the last turn, where it is to be sealed.
    """

    def __init__(self, config: Config, client: str, shares: Shares, connect: Callable[[], Transport]) -> None:
        self.config, self.client, self.shares, self.connect = config, client, shares, connect
        self.arms = {arm.name: arm for arm in build.arms(config) if not arm.reference}
        self._built: tuple[tuple[str, int, str], Setup] | None = None
        self.kept: Kept | None = None
        torch.set_num_threads(config.training.threads)

    def run(self, task: bytes) -> bytes:
        """Do a task and return its result.

        Raises:
            ValueError: it is none, or not one for this client.
            ConnectionError: the way to the trunk broke.
            FloatingPointError, RuntimeError: the training failed, or the server refused a step.
        """
        self.kept = None
        words, tensors = record.unpack(task)
        where = turn.Where.of(words)
        federation = self._setup(where).federation
        (client,) = federation.clients
        part = turn.client_part(federation, self.client)
        memory = turn.memory_of(federation, self.client)
        if part.rule != turn.LASTING:
            part.hand_out(self.client)  # a new optimiser
        turn.set_down(part, memory, self.client, tensors)
        part.begin_turn(self.client, where.round)
        self._wire(client)
        training = client.train(part.optimizers[self.client], where.seed, where.round)
        if turn.sealed(part):
            base, reached = record.below(tensors, "state/"), part.modules[self.client].state_dict()
            layout = Layout.of(reached)
            update = (layout.flatten(reached) - layout.flatten(base)).numpy()
            self.kept = Kept(where, update, training.num_examples)
        return turn.result(where, training, federation, self.client)

    def _wire(self, client: Client) -> None:
        if isinstance(client.wire, RemoteTrunk | RemoteLoss):
            client.wire.transport = self.connect()

    def _setup(self, where: turn.Where) -> Setup:
        key = (where.arm, where.seed, where.fold)
        if self._built is None or self._built[0] != key:
            arm = lookup("arm", self.arms, where.arm)
            self._built = key, client_setup(self.config, arm, where.seed, self.shares.of(where.fold))
        return self._built[1]
