"""Measure how hard the synthetic recordings are: an honest random forest on simple features, beside the trivial score.

``python -m hcqsfl.data.synthetic.measure wesad --seeds 3`` prints what ``docs/synthetic-data.md`` records.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.signal import find_peaks
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import (
    BaseCrossValidator,
    GroupKFold,
    LeaveOneGroupOut,
    StratifiedShuffleSplit,
    cross_val_predict,
)

from hcqsfl.data import dataset
from hcqsfl.data.synthetic import WRITERS
from hcqsfl.data.windows import Windows, slide_all
from hcqsfl.registry import load_object, lookup

Scores = Iterator[tuple[str, float, float]]
"""Name of a score, its value for the trivial guess, its value for the forest."""


def _forest() -> RandomForestClassifier:
    return RandomForestClassifier(200, min_samples_leaf=2, random_state=0)


def _macro_f1(y: np.ndarray, guess: np.ndarray) -> float:
    return float(f1_score(y, guess, average="macro", labels=np.unique(y), zero_division=0))


def _both(x: np.ndarray, y: np.ndarray, subject: np.ndarray, folds: BaseCrossValidator) -> list[np.ndarray]:
    return [cross_val_predict(m, x, y, groups=subject, cv=folds) for m in (DummyClassifier(), _forest())]


def _moments(windows: Windows) -> np.ndarray:
    """Return ``(n_windows, 3 n_chans)`` mean, spread, and change from the first fifth to the last."""
    fifth = max(1, windows.n_times // 5)
    change = windows.x[:, :, -fifth:].mean(2) - windows.x[:, :, :fifth].mean(2)
    return np.concatenate([windows.x.mean(2), windows.x.std(2), change], axis=1)


def _rate(wave: np.ndarray, sfreq: float) -> list[float]:
    """Return beats a minute by the distance of peaks and by likeness to itself a beat later."""
    wave = wave - wave.mean()
    peaks, _ = find_peaks(wave, prominence=max(1e-6, 0.9 * wave.std()), distance=int(0.33 * sfreq))
    alike = np.fft.irfft(np.abs(np.fft.rfft(wave, 2 * len(wave))) ** 2)
    first, last = round(sfreq / 3), round(sfreq * 4 / 3)
    by_peaks = 60 * sfreq / float(np.median(np.diff(peaks))) if len(peaks) > 1 else 0.0
    return [by_peaks, 60 * sfreq / (first + int(alike[first:last].argmax()))]


def _wesad(root: Path) -> Scores:
    windows = slide_all(dataset("wesad").load(root, device="chest", sfreq=70.0), 20.0)
    ecg = windows.x[:, windows.channels.index("ECG")]
    x = np.concatenate([_moments(windows), [_rate(wave, windows.sfreq) for wave in ecg]], axis=1)
    stress = (windows.y == windows.classes.index("stress")).astype(int)
    trivial, forest = _both(x, stress, windows.subject, LeaveOneGroupOut())
    yield "binary accuracy, leave one subject out", accuracy_score(stress, trivial), accuracy_score(stress, forest)
    yield "binary macro-F1, leave one subject out", _macro_f1(stress, trivial), _macro_f1(stress, forest)
    trivial, forest = _both(x, windows.y, windows.subject, LeaveOneGroupOut())
    yield "3-class macro-F1, leave one subject out", _macro_f1(windows.y, trivial), _macro_f1(windows.y, forest)


def _pamap2(root: Path) -> Scores:
    windows = slide_all(dataset("pamap2").load(root), 5.0)
    trivial, forest = _both(_moments(windows), windows.y, windows.subject, LeaveOneGroupOut())
    y = windows.y
    yield "12-class accuracy, leave one subject out", accuracy_score(y, trivial), accuracy_score(y, forest)
    yield "12-class macro-F1, leave one subject out", _macro_f1(y, trivial), _macro_f1(y, forest)


def _mimic_waveform(root: Path) -> Scores:
    windows = slide_all(dataset("mimic_waveform").load(root, channels=("PAP",), task="tachycardia"), 10.0)
    rates = [_rate(wave, windows.sfreq) for wave in windows.x[:, 0]]
    x = np.concatenate([_moments(windows), rates, np.percentile(windows.x[:, 0], (5, 50, 95), axis=1).T], axis=1)
    chance = cross_val_predict(
        _forest(), x, windows.y, groups=windows.subject, cv=GroupKFold(5), method="predict_proba"
    )[:, 1]
    yield "tachycardia AUROC, 5 folds of subjects", 0.5, roc_auc_score(windows.y, chance)
    trivial = np.full(len(windows), np.bincount(windows.y).argmax())
    yield (
        "tachycardia macro-F1, 5 folds of subjects",
        _macro_f1(windows.y, trivial),
        _macro_f1(windows.y, (chance > 0.5).astype(int)),
    )


def _ton_iot(root: Path) -> Scores:
    rows = dataset("ton_iot").load(root)
    x = np.concatenate([r.signal for r in rows], axis=1).T
    y = np.concatenate([r.labels for r in rows])
    ((train, test),) = StratifiedShuffleSplit(1, test_size=0.3, random_state=0).split(x, y)
    trivial, forest = (m.fit(x[train], y[train]).predict(x[test]) for m in (DummyClassifier(), _forest()))
    yield "10-class macro-F1, distinct vectors", _macro_f1(y[test], trivial), _macro_f1(y[test], forest)
    normal = y[test] == 0
    yield (
        "binary accuracy, distinct vectors",
        max(normal.mean(), 1 - normal.mean()),
        float(np.mean(normal == (forest == 0))),
    )
    every = dataset("ton_iot").load(root, deduplicate=False)
    right = sum(max(np.mean(r.labels == 0), np.mean(r.labels != 0)) * r.n_samples for r in every)
    n_rows = sum(r.n_samples for r in every)
    share = sum(float(np.sum(r.labels != 0)) for r in every) / n_rows
    yield "binary accuracy of the sender's address alone", max(share, 1 - share), right / n_rows


_MEASURES: dict[str, Callable[[Path], Scores]] = {
    "mimic_waveform": _mimic_waveform,
    "pamap2": _pamap2,
    "ton_iot": _ton_iot,
    "wesad": _wesad,
}


def main(arguments: list[str] | None = None) -> None:
    """Write recordings for each seed into a temporary folder, and print the scores of a forest trained on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(WRITERS))
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--size", default="small", help="tiny, small or full")
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=NUMBER", help="options of the writer")
    given = parser.parse_args(arguments)
    writer = load_object(WRITERS[given.name])
    options = dict(lookup("size", writer.SIZES, given.size))
    for text in given.set:
        option, _, number = text.partition("=")
        options[option] = float(number) if "." in number else int(number)
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            writer.write(Path(folder), seed=seed, **options)
            for score, trivial, forest in _MEASURES[given.name](Path(folder)):
                print(f"seed {seed}  {score:<46} trivial {trivial:.3f}  forest {forest:.3f}", flush=True)


if __name__ == "__main__":
    main()
