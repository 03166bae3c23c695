"""What is installed, and what there is to choose from."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hcqsfl.adversarial.detection import DETECTORS
from hcqsfl.adversarial.poisoning import ATTACKS as POISONINGS
from hcqsfl.config import data_home
from hcqsfl.data import DATASETS
from hcqsfl.data.partition import PARTITIONERS
from hcqsfl.data.scaling import METHODS
from hcqsfl.data.synthetic import WRITERS
from hcqsfl.federated.aggregation import AGGREGATORS
from hcqsfl.models.fronts import FRONTS
from hcqsfl.models.plan import PROTOCOLS
from hcqsfl.models.references import REFERENCES
from hcqsfl.models.trunks import TRUNKS
from hcqsfl.quantum.backend import BACKENDS
from hcqsfl.quantum.circuits import CIRCUITS

PACKAGES = ("hcqsfl", "torch", "pennylane", "numba", "numpy", "scipy", "scikit-learn", "pandas", "wfdb", "neurokit2")


def describe() -> dict[str, dict[str, Any]]:
    """Return versions, the machine, and the names in every registry."""
    registries: dict[str, Mapping[str, Any]] = {
        "data sets": DATASETS,
        "synthetic": WRITERS,
        "scaling": METHODS,
        "partitioners": PARTITIONERS,
        "fronts": FRONTS,
        "trunks": TRUNKS,
        "circuits": CIRCUITS,
        "backends": BACKENDS,
        "protocols": PROTOCOLS,
        "references": REFERENCES,
        "aggregation": AGGREGATORS,
        "detectors": DETECTORS,
        "poisoning": POISONINGS,
    }
    return {
        "versions": {"python": platform.python_version()} | versions(),
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "data home": str(Path(data_home()).resolve()),
        },
        "choices": {name: ", ".join(sorted(table)) for name, table in registries.items()},
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result may depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
