import re
from pathlib import Path

import numpy as np
import pytest
import wfdb
from scipy.signal import find_peaks
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from hcqsfl.data import mimic_waveform as loader
from hcqsfl.data.synthetic import mimic_waveform, physiology
from hcqsfl.data.windows import slide_all

NAME = re.compile(r"(p09)/(p\d{6})/\2-\d{4}-\d\d-\d\d-\d\d-\d\d\.hea")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mimic_waveform")
    mimic_waveform.write(folder, n_subjects=10, minutes=8)
    return folder


def records(root: Path) -> list[Path]:
    return [p.with_suffix("") for p in sorted(root.rglob("p*.hea")) if NAME.search(p.as_posix())]


def test_each_patient_has_a_multi_segment_record_and_its_numerics(root: Path) -> None:
    assert len(records(root)) == 10
    for record in records(root):
        header = wfdb.rdheader(str(record))
        assert header.seg_name[0].endswith("_layout")
        assert header.seg_len[0] == 0
        assert header.fs == 125
        assert sum(header.seg_len) == header.sig_len == 8 * 60 * 125
        assert header.seg_name.count("~") == 2
        numerics = wfdb.rdheader(f"{record}n")
        assert numerics.fs == pytest.approx(1 / 60)
        assert numerics.sig_len == 8
        assert (numerics.base_date, numerics.base_time) == (header.base_date, header.base_time)


def test_wfdb_reads_the_segments_as_one_record_and_the_absent_one_is_listed(root: Path) -> None:
    record = records(root)[0]
    header = wfdb.rdheader(str(record))
    absent = [n for n in header.seg_name if n != "~" and not (record.parent / f"{n}.hea").exists()]
    assert len(absent) == 1
    end = int(np.cumsum(header.seg_len)[header.seg_name.index(absent[0]) - 1])
    whole = wfdb.rdrecord(str(record), sampto=end)
    assert whole.sig_name == ["II", "ABP", "PAP", "PLETH"]
    pressure = whole.p_signal[:, 1]
    assert np.isnan(pressure[:93]).all()  # the gap before the monitor was connected
    assert 40 < np.nanmedian(pressure) < 160


def test_samples_add_up_to_the_checksums_of_their_headers(root: Path) -> None:
    for header in root.rglob("*.hea"):
        if header.stem.endswith("_layout") or NAME.search(header.as_posix()):
            continue
        record = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
        stated = [int(checksum) % 65536 for checksum in record.checksum]
        assert [int(c) % 65536 for c in record.calc_checksum()] == stated, header.name
        assert record.init_value == record.d_signal[0].tolist()


def test_gain_and_baseline_change_and_the_first_segment_is_not_calibrated(root: Path) -> None:
    folder = records(root)[0].parent
    lines = {p.stem[-4:]: p.read_text() for p in folder.glob("39*_0*.hea")}
    assert "80 1/mmHg" in lines["0001"]
    assert "80 2.5(-100)/mmHg 8 0" in lines["0002"]
    assert "PAP" not in lines["0003"]
    assert "80 1.25(-100)/mmHg" in lines["0004"].splitlines()[3]
    assert set(lines) == {"0001", "0002", "0003", "0004", "0006"}  # the fifth is absent


def test_every_header_says_that_it_is_made_up(root: Path) -> None:
    headers = list(root.rglob("*.hea"))
    assert all("# SYNTHETIC" in header.read_text() for header in headers)
    assert any("SYNTHETIC" in comment for comment in wfdb.rdheader(str(records(root)[0]) + "n").comments)


def test_missing_numerics_are_zero_and_the_cuffs_are_nan(root: Path) -> None:
    for record in records(root):
        numerics = wfdb.rdrecord(f"{record}n")
        values = dict(zip(numerics.sig_name, numerics.p_signal.T, strict=True))
        assert values["HR"][0] == 0
        assert np.isnan(values["NBPMean"][[0, 1, 2, 4]]).all()
        assert not any(np.isnan(values[name]).any() for name in values if not name.startswith("NBP"))
        known = values["HR"][values["HR"] > 0]
        assert ((known > 30) & (known < 230)).all()


@pytest.mark.parametrize("task", ["tachycardia", "pulmonary_hypertension", "desaturation"])
def test_the_loader_reads_pressure_with_labels_and_knows_that_it_is_made_up(root: Path, task: str) -> None:
    recordings = loader.load(root, channels=("PAP",), task=task)
    assert len({recording.subject for recording in recordings}) == 10
    assert all(recording.synthetic for recording in recordings)
    assert set(np.concatenate([recording.labels for recording in recordings])) >= {0, 1}


@pytest.mark.parametrize("n_subjects", [3, 4, 7])
def test_of_three_patients_or_more_some_hearts_are_fast_and_some_are_not(tmp_path: Path, n_subjects: int) -> None:
    for seed in range(3):
        mimic_waveform.write(tmp_path, n_subjects=n_subjects, minutes=4, seed=seed)
        fast = [
            np.median(wfdb.rdrecord(f"{record}n", channel_names=["PULSE"]).p_signal) > 100
            for record in records(tmp_path)
        ]
        assert 0 < sum(fast) < n_subjects


def features(window: np.ndarray) -> list[float]:
    centred = window - window.mean()
    beats, _ = find_peaks(centred, prominence=max(4.0, 0.5 * centred.std()), distance=41)
    spectrum = np.abs(np.fft.rfft(centred, 2 * len(centred))) ** 2
    alike = np.fft.irfft(spectrum)[42:167]  # lags of 45 to 180 beats a minute
    rate = 7500 / np.median(np.diff(beats)) if len(beats) > 1 else 0.0
    return [rate, 7500 / (42 + alike.argmax()), window.mean(), window.std(), *np.percentile(window, (5, 50, 95))]


def test_honest_scores_lie_between_trivial_and_perfect(root: Path) -> None:
    windows = slide_all(loader.load(root, channels=("PAP",), task="tachycardia"), 10.0)
    x = np.array([features(window[0]) for window in windows.x])
    forest = RandomForestClassifier(100, min_samples_leaf=3, random_state=0)
    chance = cross_val_predict(forest, x, windows.y, groups=windows.subject, cv=GroupKFold(5), method="predict_proba")[
        :, 1
    ]
    assert 0.75 < roc_auc_score(windows.y, chance) < 0.99


def test_the_beats_of_lead_ii_and_of_the_artery_keep_the_same_rate(root: Path) -> None:
    header = min((p for p in root.rglob("39*_0002.hea")), key=lambda p: p.name)
    record = wfdb.rdrecord(str(header.with_suffix("")))
    lead, artery = record.p_signal[:7500, 0], record.p_signal[:7500, 1]
    beats, _ = find_peaks(lead, height=0.5 * np.nanmax(lead), distance=35)
    waves, _ = find_peaks(physiology.lag(artery, 0.05, 125.0), prominence=0.5 * np.ptp(artery) / 2, distance=35)
    assert np.median(np.diff(beats)) == pytest.approx(np.median(np.diff(waves)), rel=0.06)


@pytest.mark.parametrize("options", [{"n_subjects": 0}, {"minutes": 3}])
def test_counts_out_of_range_are_refused(options: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="were asked for"):
        mimic_waveform.write(tmp_path / "root", **options)
