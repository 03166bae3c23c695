"""Train a run's federation once more behind a server that hijacks it, with clients that watch for it."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from hcqsfl import build
from hcqsfl.models.learner import Network
from hcqsfl.models.protocols import Setup
from hcqsfl.privacy.hijacking.detectors import GradientOutliers, SplitGuard, honest_gradients
from hcqsfl.privacy.hijacking.server import Hijacker
from hcqsfl.privacy.hijacking.watched import DETECTORS, Watch, Watched
from hcqsfl.randomness import torch_generator
from hcqsfl.recipes.job import Member, run_training
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.victim import Victim
from hcqsfl.registry import lookup
from hcqsfl.split import Transport

WRONG_SHARE = 0.1
"""Of batches that get wrong labels, as in the authors' released code of SplitGuard."""
HONEST_STEPS = 40
OWN_SHARE, OWN_LEAST = 0.01, 32
"""Of a client's windows that its honest copy is trained on, and at least so many."""


@dataclass(frozen=True, eq=False)
class Hijacked:
    """A training behind a server that may have hijacked it.

    Attributes:
        victim: the training, and what was recorded of it where the server was a hijacker.
        hijacker: the server; ``None`` where it was honest.
        watches: client to what its detectors found.
    """

    victim: Victim
    hijacker: Hijacker | None
    watches: Mapping[str, Watch]

    def rate(self, detector: str, threshold: float | None = None) -> float:
        """Return the share of clients that raised an alarm.

        Args:
            detector: one of ``DETECTORS``.
            threshold: of ``splitout``, in place of the published one.
        """
        return len(self._alarms(detector, threshold)) / len(self.watches)

    def first_round(self, detector: str, threshold: float | None = None) -> int | None:
        """Return the round of the first alarm of any client; the arguments are those of ``rate``."""
        rounds = self.victim.config.federation.rounds
        found = [-(-batch * rounds // watch.batches) for watch, batch in self._alarms(detector, threshold)]
        return min(found, default=None)

    def _alarms(self, detector: str, threshold: float | None) -> list[tuple[Watch, int]]:
        if threshold is not None and detector != "splitout":
            raise ValueError(f"only splitout takes a threshold; {detector} was asked for with one")
        lookup("detector of hijacking", dict.fromkeys(DETECTORS), detector)
        each = [
            (watch, watch.alarms.get(detector) if threshold is None else watch.below(threshold))
            for watch in self.watches.values()
        ]
        return [(watch, batch) for watch, batch in each if batch is not None]

    def lowest(self) -> float:
        """Return the threshold of ``splitout`` at which none of these clients would have raised an alarm."""
        return min((level for watch in self.watches.values() for level in watch.outliers.levels), default=-math.inf)

    def decoder(self, number: int | None = None) -> nn.Module:
        """Return the hijacker's decoder as after a round; the last unless given.

        Raises:
            ValueError: the server was honest.
        """
        if self.hijacker is None or self.hijacker.decoder is None:
            raise ValueError("an honest server has no decoder")
        made = copy.deepcopy(self.hijacker.decoder)
        if number is not None:
            made.load_state_dict(self.hijacker.decoders[number])
        return made.eval()

    def until(self, number: int) -> Victim:
        """Return what had been recorded by the end of a round."""
        made = replace(self.victim)
        record = self.victim.record
        made.record = replace(record, exchanges=[e for e in record.exchanges if e.round <= number])
        return made


def hijack(
    victim: Victim, folder: Path, rounds: int, *, hijacker: Hijacker | None, seed: int | None = None
) -> Hijacked:
    """Train as the victim was trained, its clients watching, and recorded where there is a hijacker.

    Args:
        victim: of a finished run.
        folder: an empty folder for the record.
        rounds: how many.
        hijacker: the server; ``None`` for the honest one, which tells the rate of false alarms.
        seed: of the training; the victim's unless given.
    """
    seed = victim.seed if seed is None else seed
    federation = victim.config.federation.model_copy(update={"rounds": rounds})
    recording = victim.config.recording.model_copy(update={"tap": hijacker is not None})
    config = victim.config.model_copy(update={"federation": federation, "recording": recording})
    watches: dict[str, Watch] = {}

    def set_up(wear) -> Setup:  # type: ignore[no-untyped-def]
        def through(client: str, transport: Transport) -> Transport:
            return wear(client, transport if hijacker is None else hijacker.wear(client, transport))

        setup = build.setup(config, victim.arm, seed, victim.prepared, through)
        watches.update(_watch(setup, config.training.learning_rate, len(victim.windows.classes), seed))
        return setup

    member = Member(victim.arm.name, victim.fold.name, victim.prepared, folder)
    run_training(config, seed, {"": member}, set_up, "hijacked", Progress())
    made = Victim(config, victim.arm, seed, victim.fold, folder, victim.windows, victim.prepared)
    return Hijacked(made, hijacker, watches)


def _watch(setup: Setup, learning_rate: float, n_outputs: int, seed: int) -> dict[str, Watch]:
    """Put every client's learner behind a watch; return the watches."""
    found = {}
    for client in setup.federation.clients:
        generator = torch_generator(seed, "own windows", client.name)
        n = min(len(client.y), max(OWN_LEAST, round(OWN_SHARE * len(client.y))))
        own = torch.randperm(len(client.y), generator=generator)[:n]
        network: Network = copy.deepcopy(setup.network)
        watched = _client_half(client.learner)
        joined = _as_cut(network, watched)
        honest = honest_gradients(
            joined, client.x[own], client.y[own], client.batch_size, HONEST_STEPS, learning_rate, generator
        )
        watch = Watch(SplitGuard(torch_generator(seed, "halves", client.name)), GradientOutliers(honest))
        found[client.name] = watch
        client.learner = Watched(watched, watch, n_outputs, WRONG_SHARE, seed, client.name)
    return found


def _client_half(learner: object) -> nn.Module:
    if not isinstance(learner, nn.Module):
        raise ValueError("this protocol's clients have no half of their own to watch")
    return learner


def _as_cut(network: Network, learner: nn.Module) -> Network:
    """Return the joined copy cut where the client's half is, so that its front makes what crosses."""
    held = learner.get_submodule("front")
    own = dict(network.front.named_children())
    inside = [name for name, _ in held.named_children()]
    if len(inside) < len(own):
        rest = nn.Sequential(*(block for name, block in own.items() if name not in inside))
        network.trunk = nn.Sequential(rest, network.trunk)
        network.front = nn.Sequential(*(own[name] for name in inside))
    return network
