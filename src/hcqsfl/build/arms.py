"""Which networks and protocols an experiment sets side by side."""

from dataclasses import dataclass

from hcqsfl.config import Config, CrossConfig
from hcqsfl.models.plan import PROTOCOLS
from hcqsfl.models.references import REFERENCES
from hcqsfl.registry import lookup


@dataclass(frozen=True)
class Arm:
    """One of the networks or protocols that an experiment sets side by side.

    Attributes:
        name: in tables and file names.
        trunk: kind of trunk; ``"none"`` for a reference model.
        protocol: who holds what.
        reference: name of the reference model that it is, if it is one.
    """

    name: str
    trunk: str
    protocol: str
    reference: str = ""


def arms(config: Config) -> list[Arm]:
    """Return the arms of an experiment, the chosen one first.

    Raises:
        ValueError: a protocol or a reference is unknown.
    """
    chosen = Arm(config.trunk.kind, config.trunk.kind, config.federation.protocol)
    lookup("protocol", PROTOCOLS, chosen.protocol)
    for protocol in config.evaluation.baselines:
        lookup("protocol", PROTOCOLS, protocol)
    controls = [Arm(kind, kind, chosen.protocol) for kind in config.evaluation.controls if kind != chosen.trunk]
    baselines = [
        Arm(f"{chosen.trunk}-{protocol}", chosen.trunk, protocol)
        for protocol in config.evaluation.baselines
        if protocol != chosen.protocol
    ]
    for name in config.evaluation.references:
        lookup("reference model", REFERENCES, name)
    references = [
        Arm(name.replace("_", " "), "none", "centralised", reference=name) for name in config.evaluation.references
    ]
    return list(dict.fromkeys([chosen, *controls, *baselines, *references]))


def cross_arms(config: CrossConfig) -> list[Arm]:
    """Return the arms in which data sets share a trunk: the chosen one and its controls.

    Raises:
        ValueError: the protocol is unknown, or has no trunk to share.
    """
    protocol = config.federation.protocol
    if lookup("protocol", PROTOCOLS, protocol).trunk is None:
        raise ValueError(f"{protocol} cuts nothing, so that data sets have no trunk to share")
    kinds = dict.fromkeys([config.trunk.kind, *config.evaluation.controls])
    return [Arm(kind, kind, protocol) for kind in kinds]


def alone_arms(config: Config) -> list[Arm]:
    """Return the arms that a data set of several is held against: the same network on its own, and references."""
    kind, protocol = config.trunk.kind, config.federation.protocol
    return [Arm("alone", kind, protocol), *(arm for arm in arms(config) if arm.reference)]
