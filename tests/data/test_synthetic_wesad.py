import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import find_peaks
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from hcqsfl.data import synthetic
from hcqsfl.data import wesad as loader
from hcqsfl.data.synthetic import physiology, python2_pickle, wesad

CHEST = {"ACC": 3, "ECG": 1, "EMG": 1, "EDA": 1, "Temp": 1, "Resp": 1}
WRIST = {"ACC": (3, 32), "BVP": (1, 64), "EDA": (1, 4), "TEMP": (1, 4)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return synthetic.write("wesad", tmp_path_factory.mktemp("wesad"), size="tiny")


def read(path: Path) -> dict:
    with path.open("rb") as file:
        return pickle.load(file, encoding="latin1")


def test_python_reads_the_tree_of_the_official_files(tiny: list[Path]) -> None:
    assert [path.as_posix().rsplit("/", 2)[1:] for path in tiny] == [[f"S{n}", f"S{n}.pkl"] for n in (2, 3, 4)]
    for path in tiny:
        content = read(path)
        assert list(content) == ["subject", "signal", "label"]
        assert content["subject"] == path.stem
        chest, wrist, label = content["signal"]["chest"], content["signal"]["wrist"], content["label"]
        assert label.dtype == np.int32
        assert {name: array.shape for name, array in chest.items()} == {n: (len(label), k) for n, k in CHEST.items()}
        assert {name: array.dtype for name, array in chest.items()} == {
            name: np.dtype("f4" if name == "Temp" else "f8") for name in CHEST
        }
        seconds = len(label) / 700
        assert {name: array.shape for name, array in wrist.items()} == {
            name: (seconds * rate, k) for name, (k, rate) in WRIST.items()
        }
        assert all(array.dtype == np.float64 for array in wrist.values())
        assert all(np.isfinite(array).all() for array in (*chest.values(), *wrist.values()))


def test_the_pickle_is_protocol_2_with_byte_strings_and_the_globals_of_numpy_1(tiny: list[Path]) -> None:
    opcodes = [(code.name, value) for code, value, _ in pickletools.genops(tiny[0].read_bytes())]
    assert opcodes[0] == ("PROTO", 2)
    assert {value for name, value in opcodes if name == "GLOBAL"} == {
        "numpy.core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
    }
    assert {name for name, _ in opcodes} & {"BINUNICODE", "BINBYTES", "SHORT_BINBYTES"} == set()


def test_the_loader_reads_what_python_reads_and_says_it_is_made_up(tiny: list[Path]) -> None:
    recordings = loader.load(tiny[0].parents[1], device="chest", sfreq=700.0)
    assert {recording.subject for recording in recordings} == {"S2", "S3", "S4"}
    assert all(recording.synthetic for recording in recordings)
    content = read(tiny[0])
    (first,) = [recording for recording in recordings if recording.subject == "S2"]
    ecg = first.signal[[channel.lower().startswith("ecg") for channel in first.channels].index(True)]
    np.testing.assert_allclose(ecg, content["signal"]["chest"]["ECG"][:, 0], atol=1e-5)


def test_labels_run_through_the_protocol_with_transients_between(tiny: list[Path]) -> None:
    for path, order in zip(tiny, ("stress", "amusement", "stress"), strict=True):
        label = read(path)["label"]
        runs = label[np.flatnonzero(np.diff(label, prepend=-1))].tolist()
        first, second = (2, 3) if order == "stress" else (3, 2)
        assert [run for run in runs if 1 <= run <= 4] == [1, *([first, 4, second, 4])]
        assert set(runs) == {0, 1, 2, 3, 4, 5, 6, 7}
        assert runs[0] == runs[-1] == 0


def test_values_lie_on_the_sensors_grids_and_in_their_ranges(tiny: list[Path]) -> None:
    for path in tiny:
        chest, wrist = read(path)["signal"]["chest"], read(path)["signal"]["wrist"]
        assert np.array_equal(wrist["ACC"], np.round(wrist["ACC"]))
        assert np.abs(wrist["ACC"]).max() <= 128
        codes = chest["ECG"] / 3 * 2**16
        assert np.allclose(codes, np.round(codes), atol=1e-6)
        assert 0.85 < np.linalg.norm(chest["ACC"].mean(axis=0)) < 1.0
        assert 29 < chest["Temp"].mean() < 38
        assert chest["EDA"].min() >= 0
        assert np.abs(chest["Resp"]).max() <= 50


def test_the_pulse_wave_reaches_the_wrist_a_quarter_of_a_second_after_each_beat(tiny: list[Path]) -> None:
    signal = read(tiny[0])["signal"]
    ecg, pulse = signal["chest"]["ECG"][:, 0], signal["wrist"]["BVP"][:, 0]
    beats, _ = find_peaks(ecg, height=0.6 * ecg.max(), distance=250)
    assert 40 < 60 * 700 / np.median(np.diff(beats)) < 120
    lags = np.arange(0, 0.6, 1 / 64)
    after_beat = np.interp(beats[:-1, None] / 700 + lags, np.arange(len(pulse)) / 64, pulse).mean(axis=0)
    assert lags[after_beat.argmin()] == pytest.approx(0.25, abs=0.05)
    assert np.ptp(after_beat) > 2 * np.abs(after_beat).min()


def features(window: np.ndarray) -> np.ndarray:
    """Mean, spread and slope of each channel, and the heart rate from a plain peak search."""
    ecg = window[::4, 3]
    beats, _ = find_peaks(ecg, height=ecg.mean() + 2 * ecg.std(), distance=50)
    fifth = len(window) // 5
    slope = window[-fifth:].mean(0) - window[:fifth].mean(0)
    rate = 60 * 175 / np.diff(beats).mean() if len(beats) > 1 else 0.0
    return np.concatenate([window.mean(0), window.std(0), slope, [rate]])


def table(files: list[Path], seconds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, labels, subjects = [], [], []
    for path in files:
        content = read(path)
        signal = np.concatenate([content["signal"]["chest"][name] for name in CHEST], axis=1)
        for label in (1, 2, 3):
            run = signal[content["label"] == label]
            for start in range(0, len(run) - 700 * seconds + 1, 700 * seconds):
                rows.append(features(run[start : start + 700 * seconds]))
                labels.append(label)
                subjects.append(path.stem)
    return np.array(rows), np.array(labels), np.array(subjects)


def test_honest_scores_lie_between_trivial_and_perfect(tmp_path: Path) -> None:
    x, y, subject = table(wesad.write(tmp_path, n_subjects=10, scale=0.1), seconds=10)
    forest = RandomForestClassifier(100, min_samples_leaf=2, random_state=0)
    for target, score in ((np.where(y == 2, 1, 0), accuracy_score), (y, lambda *a: f1_score(*a, average="macro"))):
        trivial, honest = (
            score(target, cross_val_predict(model, x, target, groups=subject, cv=LeaveOneGroupOut()))
            for model in (DummyClassifier(), forest)
        )
        assert trivial + 0.1 < honest < 0.97


def test_a_pickle_of_our_own_is_read_by_python_as_it_was(tmp_path: Path) -> None:
    tree = {"a": "S2", "b": {"x": np.arange(6.0).reshape(3, 2), "empty": np.zeros((0, 1), "<f4")}}
    tree["long"] = np.arange(300, dtype="<i4")
    with (tmp_path / "tree.pkl").open("wb") as file:
        python2_pickle.dump(tree, file)
    back = read(tmp_path / "tree.pkl")
    assert back["a"] == "S2"
    np.testing.assert_array_equal(back["b"]["x"], tree["b"]["x"])
    assert back["b"]["empty"].shape == (0, 1)
    np.testing.assert_array_equal(back["long"], tree["long"])


def test_an_array_type_the_study_does_not_have_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file, pytest.raises(ValueError, match="not int64"):
        python2_pickle.dump(np.arange(3), file)


@pytest.mark.parametrize("options", [{"n_subjects": 0}, {"n_subjects": 16}, {"scale": 0.0}, {"scale": 99.0}])
def test_counts_out_of_range_are_refused_before_anything_is_written(options: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="asked for"):
        wesad.write(tmp_path / "root", **options)
    assert not (tmp_path / "root").exists()


def test_a_replayed_cycle_at_its_own_rate_is_the_cycle() -> None:
    cycle = np.sin(2 * np.pi * np.arange(100) / 100)
    phases = physiology.phase(np.full(80, 60.0), 500, rate=100.0)
    np.testing.assert_allclose(physiology.replay(cycle, phases), np.tile(cycle, 5), atol=1e-9)


def test_wander_has_the_spread_and_the_memory_it_was_given() -> None:
    path = physiology.wander(200_000, seconds=2.0, std=3.0, generator=np.random.default_rng(0))
    assert path.std() == pytest.approx(3.0, rel=0.05)
    apart = 16  # 2 s at 8 Hz
    assert np.corrcoef(path[:-apart], path[apart:])[0, 1] == pytest.approx(np.exp(-1), abs=0.03)
