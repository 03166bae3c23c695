"""From settings to a network."""

from torch import nn

from hcqsfl.build.arms import Arm
from hcqsfl.config import CircuitNoise, Config
from hcqsfl.data.windows import Windows
from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.models.parties import PartiesFront
from hcqsfl.quantum import circuits
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.quantum.noise import Noise, NoisyLayer
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
        ValueError: a name is unknown, sizes do not fit, or a batch of noisy circuits does not fit into memory.
    """
    m = config.model
    width = m.n_smashed * max(len(m.parties), 1)
    with torch_seeded(seed, "init", "front"):
        front = _parties(config, like, n_chans) if m.parties else _front(config, n_chans, like.n_times)
    with torch_seeded(seed, "init", "trunk"):
        trunk = trunks.make(arm.trunk, width, m.n_features, circuit(config), config.trunk.backend, config.trunk.angles)
    if config.trunk.noise is not None and isinstance(trunk.middle, QuantumLayer):
        trunk.middle = _noisy(config.trunk.noise, trunk.middle, seed, config.federation.batch_size)
    with torch_seeded(seed, "init", "head"):
        head = linear_head(m.n_features, len(like.classes))
    return Network(front, trunk, head)


def _noisy(settings: CircuitNoise, layer: QuantumLayer, seed: int, batch_size: int) -> NoisyLayer:
    noisy = NoisyLayer(
        layer,
        Noise(**settings.strengths),
        shots=settings.shots,
        method=settings.method,
        n_trajectories=settings.n_trajectories,
        seed=seed,
        fresh=False,
    )
    noisy.check_memory(batch_size)
    return noisy


def _front(config: Config, n_chans: int, n_times: int) -> nn.Module:
    m = config.model
    return fronts.make(m.front, n_chans, n_times, m.n_smashed, **m.front_options)


def _parties(config: Config, like: Windows, n_chans: int) -> PartiesFront:
    if n_chans != len(like.channels):
        raise ValueError("a vertical split needs numeric channels: categories would be spread over several columns")
    index = {channel: i for i, channel in enumerate(like.channels)}
    held = {party: [lookup("channel", index, c) for c in own] for party, own in config.model.parties.items()}
    return PartiesFront({party: _front(config, len(own), like.n_times) for party, own in held.items()}, held)
