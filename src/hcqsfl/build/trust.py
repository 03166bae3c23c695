"""From settings to a detector that weighs the clients' updates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hcqsfl.adversarial.detection import make
from hcqsfl.adversarial.detection.clients import ClientMonitor
from hcqsfl.adversarial.detection.trust_watch import TrustWatch
from hcqsfl.build.arms import Arm
from hcqsfl.config import Config
from hcqsfl.models.plan import PROTOCOLS
from hcqsfl.models.protocols import Setup
from hcqsfl.registry import lookup


@dataclass(frozen=True)
class Options:
    """What ``federation.aggregator_options`` may hold with ``trust_weighted``.

    Attributes:
        detector: a key of ``hcqsfl.adversarial.detection.DETECTORS``.
        detector_options: what it takes.
        calibration_seeds: of runs without attackers, of which none is evaluated.
        calibration_rounds: of each of them; as many as are trained if None.
        false_alarms, strikes, window: as in ``ClientMonitor``.
    """

    detector: str
    detector_options: dict[str, Any] = field(default_factory=dict)
    calibration_seeds: tuple[int, ...] = (101, 102)
    calibration_rounds: int | None = None
    false_alarms: float = 0.02
    strikes: int = 3
    window: int = 5


def options(config: Config) -> Options:
    """Return the checked options.

    Raises:
        ValueError: there is no detector, an option is unknown, the updates of whole rounds are never averaged, or a
            seed is both calibrated on and evaluated.
    """
    f = config.federation
    given = dict(f.aggregator_options)
    known = dict.fromkeys(Options.__dataclass_fields__)
    for key in given:
        lookup("option of trust_weighted", known, key)
    if "detector" not in given:
        raise ValueError(
            "trust_weighted needs a detector that tells whom to trust: set federation.aggregator_options.detector, for "
            "example to 'quantum_ocsvm' or 'mahalanobis'"
        )
    asked = Options(**(given | {"calibration_seeds": tuple(given.get("calibration_seeds", (101, 102)))}))
    if both := set(asked.calibration_seeds) & set(config.evaluation.seeds):
        raise ValueError(f"seed {min(both)} is both calibrated on and evaluated; take different calibration_seeds")
    if not averages(f.protocol):
        raise ValueError(f"trust_weighted weighs what is averaged, and {f.protocol} averages nothing")
    if f.buffer_size is not None:
        raise ValueError("trust_weighted judges the clients of whole rounds; federation.buffer_size makes none")
    return asked


def averages(protocol: str) -> bool:
    """Return whether a protocol averages any part."""
    rules = lookup("protocol", PROTOCOLS, protocol)
    return "average" in (rules.client, rules.trunk)


def watch(config: Config, arm: Arm, seed: int, rehearse: Callable[[int, TrustWatch], Setup]) -> TrustWatch | None:
    """Return what watches the clients of a federation, calibrated when the first round is to be judged.

    Args:
        config: settings.
        arm: which network and protocol.
        seed: of the detector.
        rehearse: makes the same federation of another seed without attackers, aggregated by what watches it.

    Raises:
        ValueError: as ``options``, or the detector is unknown.
    """
    if config.federation.aggregator != "trust_weighted":
        return None
    asked = options(config)
    if not averages(arm.protocol):  # a baseline that has nothing to weigh
        return None

    def calibrate() -> Sequence[np.ndarray]:
        found: list[np.ndarray] = []
        for each in asked.calibration_seeds:
            recorder = ClientMonitor(make("mahalanobis"))
            listener = TrustWatch(recorder, recorder.record)
            federation = rehearse(each, listener).federation
            for _ in range(asked.calibration_rounds or config.federation.rounds):
                federation.run_round()
            found += recorder.recorded
        return found

    detector = make(asked.detector, **({"seed": seed} | asked.detector_options))
    monitor = ClientMonitor(detector, false_alarms=asked.false_alarms, strikes=asked.strikes, window=asked.window)
    return TrustWatch(monitor, calibrate=calibrate)
