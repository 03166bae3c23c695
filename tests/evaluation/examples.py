"""Predictions for tests: noisy scores around a drawn truth, subjects of unequal size and difficulty."""

import numpy as np

from hcqsfl.evaluation.predictions import Predictions


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
