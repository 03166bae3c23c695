import pickle
from pathlib import Path

import numpy as np
import pytest

from hcqsfl.data import wesad
from hcqsfl.data.windows import slide_all

LABELS = [(0, 2), (1, 20), (5, 1), (2, 20), (0, 1), (3, 20), (4, 20), (7, 2)]  # label, seconds
SECONDS = sum(seconds for _, seconds in LABELS)


def subject(name: str = "S2") -> dict:
    """Return what an official pickle holds: chest at 700 Hz, wrist at 32, 64 and 4 Hz, labels at 700 Hz."""
    rng = np.random.default_rng(int(name[1:]))
    label = np.concatenate([np.full(700 * seconds, value, dtype=np.int32) for value, seconds in LABELS])
    n = len(label)
    chest = {
        "ACC": rng.normal(size=(n, 3)),
        **{modality: rng.normal(size=(n, 1)) for modality in ("ECG", "EMG", "EDA", "Resp")},
        "Temp": np.full((n, 1), 32.86, dtype=np.float32),
    }
    wrist = {
        "ACC": np.tile([64.0, -32.0, 0.0], (SECONDS * 32, 1)),
        "BVP": rng.normal(size=(SECONDS * 64, 1)),
        "EDA": np.linspace(1, 2, SECONDS * 4)[:, None],
        "TEMP": np.full((SECONDS * 4, 1), 34.5),
    }
    return {"subject": name, "signal": {"chest": chest, "wrist": wrist}, "label": label}


def write(root: Path, content: dict, name: str = "S2", protocol: int = 2) -> Path:
    path = root / name / f"{name}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def test_the_chest_is_read_in_its_order_and_units(tmp_path):
    content = subject()
    write(tmp_path, content)
    (recording,) = wesad.load(tmp_path, sfreq=700)
    chest = content["signal"]["chest"]
    assert recording.channels == ("ACC_x", "ACC_y", "ACC_z", "ECG", "EMG", "EDA", "Temp", "Resp")
    assert recording.units == ("g", "g", "g", "mV", "mV", "uS", "degC", "%")
    expected = np.hstack([chest[m] for m in ("ACC", "ECG", "EMG", "EDA", "Temp", "Resp")]).T
    np.testing.assert_allclose(recording.signal, expected, rtol=1e-6)
    assert (recording.subject, recording.source, recording.sfreq) == ("S2", "S2/S2.pkl", 700.0)


@pytest.mark.parametrize(
    ("task", "classes", "code"),
    [
        ("three_class", ("baseline", "stress", "amusement"), {1: 0, 2: 1, 3: 2}),
        ("binary", ("no stress", "stress"), {1: 0, 2: 1, 3: 0}),
        ("four_class", ("baseline", "stress", "amusement", "meditation"), {1: 0, 2: 1, 3: 2, 4: 3}),
    ],
)
def test_labels_are_those_of_the_task_and_all_others_are_ignored(tmp_path, task, classes, code):
    content = subject()
    write(tmp_path, content)
    (recording,) = wesad.load(tmp_path, sfreq=700, task=task, channels=["ECG"])
    assert recording.classes == classes
    assert recording.labels.tolist() == [code.get(int(label), -1) for label in content["label"]]


@pytest.mark.parametrize("sfreq", [4, 35, 64])
def test_no_window_at_another_rate_holds_two_states(tmp_path, sfreq):
    content = subject()
    write(tmp_path, content)
    recordings = wesad.load(tmp_path, sfreq=sfreq, task="four_class", channels=["EDA"])
    windows = slide_all(recordings, seconds=2, overlap=0.5)
    for start, y in zip(windows.start, windows.y, strict=True):
        first, last = int(np.ceil(start * 700 / sfreq)), int((start + 2 * sfreq - 1) * 700 / sfreq)
        assert set(content["label"][first : last + 1]) == {y + 1}
    assert np.bincount(windows.y).min() >= 17  # of 19 such windows in 20 s


def test_the_wrist_comes_to_one_grid_and_its_acceleration_to_g(tmp_path):
    write(tmp_path, subject())
    (recording,) = wesad.load(tmp_path, device="wrist", sfreq=32)
    assert recording.channels == ("ACC_x", "ACC_y", "ACC_z", "BVP", "EDA", "TEMP")
    assert recording.units == ("g", "g", "g", "", "uS", "degC")
    assert recording.n_samples == SECONDS * 32
    np.testing.assert_allclose(recording.signal[:3], np.tile([[1], [-0.5], [0]], SECONDS * 32), atol=1e-6)
    np.testing.assert_allclose(recording.signal[5], 34.5, rtol=1e-3)
    slope = np.linspace(1, 2, SECONDS * 4)
    np.testing.assert_allclose(recording.signal[4, ::8], slope, atol=5e-3)


def test_a_lower_rate_does_not_alias(tmp_path):
    content = subject()
    t = np.arange(SECONDS * 700) / 700
    content["signal"]["chest"]["ECG"] = np.sin(2 * np.pi * 5 * t)[:, None]  # 5 Hz cannot be seen at 4 Hz
    write(tmp_path, content)
    (recording,) = wesad.load(tmp_path, sfreq=4, channels=["ECG"])
    assert recording.signal[0, 10:-10].std() < 0.01 < content["signal"]["chest"]["ECG"][::175].std()


def test_subjects_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("S10", "S2", "S3"):
        write(tmp_path / "WESAD", subject(name), name, protocol=0)
    assert [r.subject for r in wesad.load(tmp_path, sfreq=4)] == ["S2", "S3", "S10"]
    (only,) = wesad.load(tmp_path, sfreq=4, subjects=["S10"])
    assert only.source == "WESAD/S10/S10.pkl"
    with pytest.raises(ValueError, match=r"no subject 'S1' .* There: S2, S3, S10"):
        wesad.load(tmp_path, subjects=["S1"])
    write(tmp_path, subject("S2"), "S2")
    with pytest.raises(ValueError, match="are of the same subject; keep one"):
        wesad.files(tmp_path)


def test_channels_may_be_chosen_and_ordered(tmp_path):
    content = subject()
    write(tmp_path, content)
    (recording,) = wesad.load(tmp_path, sfreq=700, channels=["Resp", "ACC_y"])
    assert recording.channels == ("Resp", "ACC_y")
    np.testing.assert_allclose(recording.signal[1], content["signal"]["chest"]["ACC"][:, 1], rtol=1e-6)
    with pytest.raises(ValueError, match="no channel of WESAD's chest device is called 'BVP'"):
        wesad.load(tmp_path, channels=["BVP"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("label"), "no entry 'label' where WESAD has one; there is signal, subject"),
        (lambda c: c["signal"].pop("chest"), "no entry 'chest' where WESAD has one; there is wrist"),
        (lambda c: c["signal"]["chest"].pop("ECG"), "the chest has no signal 'ECG'; there is ACC, EDA"),
        (lambda c: c.update(subject="S3"), "the file is called S2, but says that it is of subject S3"),
        (lambda c: c.update(signal=[1]), "no entry 'chest'"),
        (lambda c: c.update(label=c["label"][:-3000]), r"chest ACC lasts 86.00 s at 700 Hz, but the labels 81.71 s"),
        (lambda c: c.update(label=c["label"] + 1), "labels must be 0 to 7; there is 8"),
        (lambda c: c.update(label=c["label"] * 1.0), "not one row of whole numbers"),
        (lambda c: c.update(label=c["label"].reshape(-1, 2)), "not one row of whole numbers"),
        (lambda c: c["signal"]["chest"]["EMG"].fill(np.nan), "chest EMG holds no number at all"),
        (
            lambda c: c["signal"]["chest"].update(ACC=np.zeros((86 * 700, 2))),
            r"must be of shape \(n_samples, 3\), not \(6",
        ),
        (lambda c: c["signal"]["chest"].update(EDA="none"), r"chest EDA must be of shape \(n_samples, 1\), not none"),
    ],
)
def test_a_pickle_that_is_not_wesads_is_refused(tmp_path, change, message):
    content = subject()
    change(content)
    write(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        wesad.load(tmp_path)


def test_the_wrist_must_last_as_long_as_the_labels(tmp_path):
    content = subject()
    content["signal"]["wrist"]["EDA"] = content["signal"]["wrist"]["EDA"][:-6]  # 1.5 s is let pass
    write(tmp_path, content)
    (recording,) = wesad.load(tmp_path, device="wrist")
    assert recording.n_samples == round((SECONDS - 1.5) * 64)
    content["signal"]["wrist"]["EDA"] = content["signal"]["wrist"]["EDA"][:-6]
    write(tmp_path, content)
    with pytest.raises(ValueError, match=r"wrist EDA lasts 83.00 s at 4 Hz, but the labels 86.00 s"):
        wesad.load(tmp_path, device="wrist")


def test_a_truncated_pickle_is_refused(tmp_path):
    path = write(tmp_path, subject())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"S2.pkl: refused, the file ends after \d+ bytes, .* cut short"):
        wesad.load(tmp_path)


def test_missing_files_and_unknown_options_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"looked for SX/SX.pkl .* holds nothing. Get WESAD.zip"):
        wesad.files(tmp_path)
    write(tmp_path, subject())
    with pytest.raises(ValueError, match="no WESAD device is called 'chst'; did you mean 'chest'"):
        wesad.load(tmp_path, device="chst")
    with pytest.raises(ValueError, match="no WESAD task is called 'binry'; did you mean 'binary'"):
        wesad.load(tmp_path, task="binry")
    assert not wesad.load(tmp_path, sfreq=4)[0].synthetic
    (tmp_path / "SYNTHETIC").touch()
    assert wesad.load(tmp_path, sfreq=4)[0].synthetic
