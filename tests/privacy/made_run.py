"""A small finished run on made-up people, with what crossed recorded."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hcqsfl import build
from hcqsfl import config as settings
from hcqsfl.recipes.train import train
from hcqsfl.recipes.victim import Victim, victims

CONFIG = """
name = "Eight made-up people"
[data]
name = "csv_table"
root = "table"
options = { signal_columns = ["EDA", "PPG"], label_column = "state", subject_column = "who", sfreq = 8.0 }
[windows]
seconds = 8.0
[split]
scheme = "grouped_k_fold"
k = 2
n_validation = 1
only = ["P1+P2+P6+P8"]
[model]
front_options = { width = 8, n_layers = 2 }
n_smashed = 4
n_features = 6
[trunk]
n_qubits = 4
n_layers = 1
backend = "fused"
[federation]
protocol = "splitfed_v2"
rounds = 4
local_epochs = 2
batch_size = 8
[training]
learning_rate = 0.01
[evaluation]
seeds = [0]
controls = ["classical"]
references = []
n_resamples = 200
[recording]
tap = true
"""


def write_table(folder: Path, people: int = 8) -> None:
    """Write a table of people whose pulse and skin conductance differ, more under stress."""
    rng = np.random.default_rng(0)
    rows = []
    for person in range(people):
        for state in ("rest", "stress", "rest", "stress"):
            n = 8 * 8 * 8  # 8 windows of 8 s at 8 Hz
            t = np.arange(n) / 8.0
            rate = 1.0 + 0.06 * person + 0.3 * (state == "stress")
            ppg = np.sin(2 * np.pi * rate * t + rng.uniform(0, 6)) + rng.normal(0, 0.2, n)
            eda = 2 + 0.6 * (state == "stress") + 0.5 * person + 0.3 * np.sin(t / 9) + rng.normal(0, 0.1, n)
            rows.append(pd.DataFrame({"EDA": eda, "PPG": ppg, "state": state, "who": f"P{person + 1}"}))
    folder.mkdir(parents=True)
    pd.concat(rows).to_csv(folder / "table.csv", index=False)


def made_run(home: Path, monkeypatch, *overrides: str, out: str = "run") -> Path:
    """Train the run below ``home`` and return its folder."""
    if not (home / "data").exists():
        write_table(home / "data" / "table")
        (home / "c.toml").write_text(CONFIG)
    monkeypatch.setenv("HCQSFL_DATA", str(home / "data"))
    torch.set_num_threads(1)
    train(settings.load(home / "c.toml", overrides), home / out, cache=home / "cache")
    return home / out


def victim_of(run: Path, arm: str = "hybrid") -> Victim:
    """Return the run's training of one arm."""
    config = settings.load(run / "config.toml")
    windows = build.windows(config, run.parent / "cache")
    return victims(run, config, windows, [arm], 1, 1)[0]
