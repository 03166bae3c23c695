"""Models of the trade, trained in one place on the same windows: what any network must be held against."""

from collections.abc import Callable

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from hcqsfl.registry import lookup

Reference = Callable[[np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]


def features(x: np.ndarray) -> np.ndarray:
    """Return ``(n, n_features)`` of windows ``(n, n_chans, n_times)``: the values themselves where a window is one row.

    Longer windows give, for each channel, mean, deviation, least and greatest value, mean absolute step, trend, and the
    strongest frequency with its share of the power.
    """
    n, _, n_times = x.shape
    if n_times == 1:
        return x.reshape(n, -1)
    time = np.linspace(-1, 1, n_times)
    centred = x - x.mean(axis=2, keepdims=True)
    power = np.abs(np.fft.rfft(centred * np.hanning(n_times), axis=2)) ** 2
    strongest = power.argmax(axis=2)
    share = power.max(axis=2) / np.maximum(power.sum(axis=2), 1e-12)
    trend = (centred * time).sum(axis=2) / (time**2).sum()
    steps = np.abs(np.diff(x, axis=2)).mean(axis=2)
    columns = [x.mean(axis=2), x.std(axis=2), x.min(axis=2), x.max(axis=2), steps, trend, strongest, share]
    return np.concatenate(columns, axis=1)


def random_forest(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, n_classes: int, seed: int, n_trees: int = 200
) -> np.ndarray:
    """Return ``(n, n_classes)`` log-probabilities of a forest on ``features``, classes weighted to balance.

    Source: Breiman (2001), Random forests; scikit-learn's implementation.
    """
    forest = RandomForestClassifier(n_trees, class_weight="balanced_subsample", random_state=seed)
    forest.fit(features(x), y)
    shares = np.zeros((len(x_test), n_classes))
    shares[:, forest.classes_] = forest.predict_proba(features(x_test))
    # a class that no tree voted for is very unlikely, not impossible
    log_shares: np.ndarray = np.log(np.maximum(shares, 1e-6))
    return log_shares


REFERENCES: dict[str, Reference] = {
    "random_forest": random_forest,
}


def scores(name: str, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Train the reference called ``name`` and return its scores of the test windows.

    Args:
        name: a name in ``REFERENCES``.
        x, y: scaled training windows ``(n, n_chans, n_times)`` and their classes.
        x_test: scaled test windows.
        n_classes: number of classes, those absent from ``y`` included.
        seed: of whatever is drawn.

    Raises:
        ValueError: there is no such reference.
    """
    return lookup("reference model", REFERENCES, name)(x, y, x_test, n_classes, seed)
