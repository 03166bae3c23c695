"""Detection of intrusions and of malicious clients, by detectors that have seen normal rows only.

A detector is one module with a class ``Detector``, and one line here. All take the same reduced features, quantum and
classical alike; ``reduction``, ``feature_map`` and ``rates`` serve them, ``clients`` judges clients by them.
"""

import inspect
from typing import Any, Protocol

import numpy as np

from hcqsfl.registry import load_object, lookup

DETECTORS = {
    "autoencoder": "hcqsfl.adversarial.detection.autoencoder",
    "isolation_forest": "hcqsfl.adversarial.detection.isolation_forest",
    "mahalanobis": "hcqsfl.adversarial.detection.mahalanobis",
    "quantum_autoencoder": "hcqsfl.adversarial.detection.quantum_autoencoder",
    "quantum_ocsvm": "hcqsfl.adversarial.detection.quantum_ocsvm",
    "rbf_ocsvm": "hcqsfl.adversarial.detection.rbf_ocsvm",
    "reference_state": "hcqsfl.adversarial.detection.reference_state",
}

QUANTUM = ("quantum_autoencoder", "quantum_ocsvm", "reference_state")
"""The detectors that run a circuit; the others are their classical peers."""


class AnomalyDetector(Protocol):
    """Learns what is normal, then says how far rows are from it."""

    def fit(self, x: np.ndarray) -> "AnomalyDetector":
        """Learn from normal rows ``(n, n_features)``, and return itself."""
        ...

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return one score a row ``(n,)``; the higher, the less normal."""
        ...


def make(name: str, **options: Any) -> AnomalyDetector:
    """Return the detector called ``name``, not yet fitted.

    Args:
        name: a key of ``DETECTORS``.
        options: what the detector takes; ``seed`` for every one.

    Raises:
        ValueError: the detector or an option is unknown or out of range.
    """
    kind = load_object(lookup("detector", DETECTORS, name)).Detector
    known = dict.fromkeys(inspect.signature(kind).parameters)
    for option in options:
        lookup(f"option of detector {name}", known, option)
    made: AnomalyDetector = kind(**options)
    return made


def check_rows(x: np.ndarray, fewest: int = 2) -> np.ndarray:
    """Return rows as float64 ``(n, n_features)``.

    Raises:
        ValueError: there are too few, they have no features, or a number is not finite.
    """
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < fewest or not rows.shape[1]:
        raise ValueError(f"a detector needs at least {fewest} rows (n, n_features) to learn from, not {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"{int((~np.isfinite(rows)).sum())} of {rows.size} features are NaN or infinite")
    return rows
