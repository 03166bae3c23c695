"""From settings to a network."""

from torch import nn

from hcqsfl.build.arms import Arm
from hcqsfl.config import Config
from hcqsfl.data.windows import Windows
from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.models.parties import PartiesFront
from hcqsfl.quantum import circuits
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.randomness import torch_seeded
from hcqsfl.registry import lookup


def circuit(config: Config) -> Circuit:
    """Return the circuit that ``trunk`` describes.

    Raises:
        ValueError: there is no such circuit, or it cannot have this size.
    """
    t = config.trunk
    return circuits.make(t.circuit, t.n_qubits, t.n_layers, **t.circuit_options)


def network(config: Config, arm: Arm, seed: int, like: Windows, n_chans: int) -> Network:
    """Return the joined network of an arm, initialised by the seed alone: arms share their front and head.

    Args:
        config: settings.
        arm: whose trunk.
        seed: root seed.
        like: windows that tell channels, length and classes.
        n_chans: channels after scaling.

    Raises:
        ValueError: a name is unknown, or sizes do not fit.
    """
    m = config.model
    width = m.n_smashed * max(len(m.parties), 1)
    with torch_seeded(seed, "init", "front"):
        front = _parties(config, like, n_chans) if m.parties else _front(config, n_chans, like.n_times)
    with torch_seeded(seed, "init", "trunk"):
        trunk = trunks.make(arm.trunk, width, m.n_features, circuit(config), config.trunk.backend, config.trunk.angles)
    with torch_seeded(seed, "init", "head"):
        head = linear_head(m.n_features, len(like.classes))
    return Network(front, trunk, head)


def _front(config: Config, n_chans: int, n_times: int) -> nn.Module:
    m = config.model
    return fronts.make(m.front, n_chans, n_times, m.n_smashed, **m.front_options)


def _parties(config: Config, like: Windows, n_chans: int) -> PartiesFront:
    if n_chans != len(like.channels):
        raise ValueError("a vertical split needs numeric channels: categories would be spread over several columns")
    index = {channel: i for i, channel in enumerate(like.channels)}
    held = {party: [lookup("channel", index, c) for c in own] for party, own in config.model.parties.items()}
    return PartiesFront({party: _front(config, len(own), like.n_times) for party, own in held.items()}, held)
