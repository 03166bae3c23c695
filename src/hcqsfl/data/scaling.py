"""Turn raw windows into network input, by statistics of the training windows alone."""

from dataclasses import dataclass

import numpy as np

from hcqsfl.data.quantiles import Quantiles
from hcqsfl.data.windows import Windows
from hcqsfl.registry import lookup

METHODS = {
    "standard": "each channel to mean 0 and deviation 1 over the training windows",
    "log": "signed log(1 + |x|), then standard: for counts over many orders of magnitude",
    "quantile": "each channel to a normal distribution by its training quantiles, then standard",
    "window": "each channel of each window to mean 0 and deviation 1 on its own; nothing is fitted",
    "none": "as recorded",
}


@dataclass(frozen=True, eq=False)
class Scaler:
    """What was learnt from the training windows. Make one with ``fit``.

    Numeric channels are scaled; a categorical channel becomes one column for each value seen in training, and a value
    not seen there becomes all zeros.

    Attributes:
        method: one of ``METHODS``.
        numeric: indices of the numeric channels.
        centre, scale: ``(n_numeric,)`` statistics after the method's first step.
        quantiles: of the training windows, for ``quantile``.
        seen: for each categorical channel, its index and the values seen in training.
    """

    method: str
    numeric: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    quantiles: Quantiles | None
    seen: tuple[tuple[int, np.ndarray], ...]

    @classmethod
    def fit(cls, training: Windows, method: str = "standard", seed: int = 0) -> "Scaler":
        """Learn from training windows.

        Raises:
            ValueError: there is no such method, or no window to learn from.
        """
        lookup("scaling method", METHODS, method)
        if not len(training):
            raise ValueError("there is no training window to fit the scaler on")
        categorical = np.array([unit == "category" for unit in training.units])
        numeric = np.flatnonzero(~categorical)
        x = training.x[:, numeric].astype(np.float64)
        values = x.transpose(0, 2, 1).reshape(x.shape[0] * x.shape[2], x.shape[1])
        quantiles = None
        if method == "quantile" and len(numeric):
            quantiles = Quantiles.fit(values, seed)
            values = quantiles.transform(values)
        elif method == "log":
            values = _signed_log(values)
        fitted = method in ("standard", "log", "quantile")
        centre = values.mean(axis=0) if fitted else np.zeros(len(numeric))
        deviation = values.std(axis=0) if fitted else np.ones(len(numeric))
        seen = tuple((int(c), np.unique(training.x[:, c])) for c in np.flatnonzero(categorical))
        # a channel that never moved in training has nothing to be scaled by
        return cls(method, numeric, centre, np.where(deviation > 1e-12, deviation, 1.0), quantiles, seen)

    @property
    def n_outputs(self) -> int:
        """Channels of what ``__call__`` returns."""
        return len(self.numeric) + sum(len(values) for _, values in self.seen)

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """Scale the numeric channels alone: ``(n, n_numeric)`` to the same, in double precision.

        Raises:
            ValueError: the method scales each window by itself, which single rows do not have.
        """
        self._refuse_windows()
        if self.method == "log":
            values = _signed_log(values)
        elif self.quantiles is not None and len(values):
            values = self.quantiles.transform(values)
        scaled: np.ndarray = (values - self.centre) / self.scale
        return scaled

    def back(self, scaled: np.ndarray) -> np.ndarray:
        """Undo ``numbers``; where many training values are one, the quantile scale has a step and gives its middle.

        Raises:
            ValueError: as ``numbers``.
        """
        self._refuse_windows()
        values: np.ndarray = scaled * self.scale + self.centre
        if self.method == "log":
            return np.sign(values) * np.expm1(np.abs(values))
        if self.quantiles is not None and len(values):
            return self.quantiles.inverse_transform(values)
        return values

    def _refuse_windows(self) -> None:
        if self.method == "window":
            raise ValueError(
                "scaled by window, each window has a mean and deviation of its own: nothing fitted undoes it"
            )

    def __call__(self, windows: Windows) -> np.ndarray:
        """Return ``(n_windows, n_outputs, n_times)`` float32."""
        x = windows.x[:, self.numeric].astype(np.float64)
        if self.method == "window":
            x = x - x.mean(axis=2, keepdims=True)
            deviation = x.std(axis=2, keepdims=True)
            x = x / np.where(deviation > 1e-12, deviation, 1.0)
        elif self.method == "log":
            x = _signed_log(x)
        elif self.quantiles is not None and len(x):
            n, c, t = x.shape
            x = self.quantiles.transform(x.transpose(0, 2, 1).reshape(-1, c)).reshape(n, t, c).transpose(0, 2, 1)
        x = (x - self.centre[:, None]) / self.scale[:, None]
        one_hot = [(windows.x[:, c, None] == values[:, None]) for c, values in self.seen]  # (n, n_values, n_times)
        return np.concatenate([x, *one_hot], axis=1).astype(np.float32)


def _signed_log(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.log1p(np.abs(x))


def class_weights(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Return ``(n_classes,)`` weights inverse to each class's share of the training labels, their mean over windows 1.

    A class without a training window has weight 0.

    Source: King & Zeng (2001), Logistic regression in rare events data, section 4.2; scikit-learn's ``balanced``.
    """
    counts = np.bincount(y, minlength=n_classes)
    present = counts > 0
    weights = np.zeros(n_classes)
    weights[present] = len(y) / (present.sum() * counts[present])
    return weights
