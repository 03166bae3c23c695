"""Predictions, rows and runs for tests: noisy scores around a drawn truth, subjects of unequal difficulty."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from hcqsfl.evaluation.classification import majority
from hcqsfl.evaluation.predictions import Predictions
from hcqsfl.evaluation.result import ArmRuns, Result, summarise


def noisy(
    seed: int = 0,
    n: int = 240,
    n_classes: int = 3,
    n_subjects: int = 8,
    skill: float = 1.0,
    unit: str = "subject",
    truth: int = 99,
) -> Predictions:
    """Draw predictions; ``truth`` alone decides ``y`` and ``subject``, so two arms can share their test rows."""
    fixed, free = np.random.default_rng(truth), np.random.default_rng(seed)
    y = fixed.integers(n_classes, size=n)
    subject = np.array([f"S{s}" for s in fixed.integers(n_subjects, size=n)])
    ability = dict(zip(np.unique(subject), fixed.uniform(0, 2, size=n_subjects), strict=False))
    scores = free.normal(size=(n, n_classes))
    scores[np.arange(n), y] += skill * np.array([ability[s] for s in subject])
    # coarse scores, so that there are ties
    return Predictions(y, np.round(scores, 1), subject, tuple(f"class {c}" for c in range(n_classes)), unit)


def rows(arm: str, seeds: tuple[int, ...] = (0,), folds: tuple[str, ...] = ("A", "B"), rounds: int = 4) -> list[dict]:
    """Metric rows of a run whose loss falls and whose validation score rises."""
    return [
        {
            "arm": arm,
            "seed": s,
            "fold": f,
            "round": r,
            "train_loss": 1.1 * 0.8**r + 0.02 * s,
            "validation": None
            if r == 0
            else {"loss": 1.0 / r, "macro_f1": 0.8 - 0.4 / (r + i), "accuracy": 0.7, "balanced_accuracy": 0.7},
            "bytes_up": 10_000 + 100 * i,
            "bytes_down": 20_000,
            "messages": 12,
            "seconds": 0.5,
            "events": [],
        }
        for s in seeds
        for i, f in enumerate(folds, start=1)
        for r in range(rounds)
    ]


def arm_runs(
    name: str,
    trunk: str = "hybrid",
    skill: float = 1.0,
    seeds: tuple[int, ...] = (0,),
    folds: tuple[str, ...] = ("A", "B"),
    n_classes: int = 3,
    n_subjects: int = 6,
    unit: str = "subject",
    n: int = 120,
    n_parameters: dict[str, int] | None = None,
    protocol: str = "splitfed_v1",
) -> ArmRuns:
    """Draw one arm; every arm of the same shape was tested on the same rows, each fold on its own subjects."""
    predictions, trivial = {}, {}
    for s in seeds:
        for i, f in enumerate(folds):
            p = noisy(1000 * s + 10 * i + len(name), n, n_classes, n_subjects, skill, unit, truth=i)
            p = replace(p, subject=np.char.add(f"{f}-", p.subject))
            predictions[s, f] = p
            trivial[s, f] = majority(noisy(n=n, n_classes=n_classes, truth=i + 50).y, p)
    sizes = n_parameters or {"front": 300, "trunk": 60, "head": 9}
    return ArmRuns(name, trunk, protocol, sizes, predictions, trivial, rows(name, seeds, folds))


def example(**changes: object) -> Result:
    """Summarise a hybrid, a classical and a frozen arm."""
    shape = {k: changes.pop(k) for k in ("seeds", "folds", "n_classes", "n_subjects", "unit", "n") if k in changes}
    arms = [
        arm_runs("hybrid", "hybrid", 1.1, **shape),
        arm_runs("classical", "classical", 1.2, **shape),
        arm_runs("frozen", "frozen", 0.9, **shape),
    ]
    k = arms[0].predictions[next(iter(arms[0].predictions))].n_classes
    settings = {
        "seed": 7,
        "synthetic": True,
        "config": {"train": {"rounds": 4, "lr": 0.01}, "data": {"dataset": "wesad", "channels": ["EDA", "BVP"]}},
        "versions": {"hcqsfl": "0.1.0", "numpy": np.__version__},
        "command": "hcqsfl train configs/example.toml --seed 0",
        "data": {
            "title": "WESAD, wrist, 4 Hz",
            "n_windows": 240,
            "n_subjects": 12,
            "channels": ["EDA", "BVP"],
            "window_seconds": 60.0,
            "class_counts": {
                f: {"train": [40, 30, 20][:k], "validation": [9, 8, 7][:k], "test": [9, 8, 7][:k]} for f in ("A", "B")
            },
            "clients": {f"S{i}": [10 + i, 5, 20 - i][:k] for i in range(8)},
        },
        "leaks": [],
        "n_resamples": 300,
        "created": "2026-01-02T03:04:05+00:00",
    }
    return summarise("example", arms, **(settings | changes))


def run_folder(path: Path, result: Result | None = None) -> Path:
    """Write a run as a training leaves it."""
    result = result or example()
    path.mkdir(parents=True)
    result.save(path / "result.json")
    (path / "config.toml").write_text('[train]\nrounds = 4\nname = "a & b <c>"\n')
    lines = [json.dumps(row) for arm in result.arms for row in rows(arm.name, tuple(result.seeds), tuple(result.folds))]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return path
