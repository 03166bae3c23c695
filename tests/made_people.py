"""Made-up people with two signals at 4 Hz, rest and stress, as a table on disk and the settings to train on it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w

SETTINGS: dict[str, dict[str, Any]] = {
    "data": {
        "name": "csv_table",
        "root": "table",
        "options": {
            "signal_columns": ["EDA", "TEMP"],
            "label_column": "state",
            "subject_column": "who",
            "sfreq": 4.0,
        },
    },
    "windows": {"seconds": 4.0},
    "split": {"scheme": "leave_one_subject_out", "only": ["P2"]},
    "model": {"front_options": {"width": 4, "n_layers": 2}, "n_smashed": 3, "n_features": 4},
    "trunk": {"n_qubits": 3, "n_layers": 1},
    "federation": {"rounds": 2, "batch_size": 8},
    "evaluation": {"seeds": [0], "controls": [], "n_resamples": 100},
}


def settings_text(name: str, **sections: dict[str, Any]) -> str:
    """Return the settings as TOML, with these keys of these sections on top."""
    settings = copy.deepcopy(SETTINGS)
    for section, entries in sections.items():
        settings.setdefault(section, {}).update(entries)
    return tomli_w.dumps({"name": name, **settings})


def write_table(folder: Path, people: int = 5, *, stress: float = 0.6, person: float = 0.5, noise: float = 0.8) -> None:
    """Write ``table.csv``: people P1, P2, ... whose skin conductance rises by ``stress`` and differs by ``person``."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(people):
        for state in ("rest", "stress", "rest", "stress"):
            eda = 2 + stress * (state == "stress") + person * i + rng.normal(0, noise, 64)
            rows.append(
                pd.DataFrame({"EDA": eda, "TEMP": 33 + rng.normal(0, 0.3, 64), "state": state, "who": f"P{i + 1}"})
            )
    folder.mkdir(parents=True)
    pd.concat(rows).to_csv(folder / "table.csv", index=False)
