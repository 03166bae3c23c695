import logging
from datetime import date, time
from pathlib import Path

import numpy as np
import pytest
import wfdb

from hcqsfl.data import mimic_waveform
from hcqsfl.data.windows import slide_all

NAME = "p000001-2150-01-01-10-00"


def write(folder: Path, name: str, channels: list[str], digital: np.ndarray, **header: object) -> None:
    """Write a single-segment record of ``(n_samples, n_signals)`` digital values: format 16, 10 steps a unit."""
    n = len(channels)
    options = {
        "fs": 125,
        "units": ["mmHg"] * n,
        "adc_gain": [10.0] * n,
        "baseline": [0] * n,
        "fmt": ["16"] * n,
        **header,
    }
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(name, sig_name=channels, d_signal=np.asarray(digital, dtype=np.int64), write_dir=str(folder), **options)


def beats(n: int, mean: float = 20.0) -> np.ndarray:
    """Return ``(n, 1)`` digital values of a moving pressure around ``mean`` mmHg."""
    return np.round(10 * (mean + 5 * np.sin(np.arange(n) / 9)))[:, None]


def numerics(folder: Path, name: str, values: dict[str, list[float]], fs: float = 1 / 60, **header: object) -> None:
    digital = np.round(10 * np.array(list(values.values())).T)
    write(folder, name + "n", list(values), digital, fs=fs, **header)


def multi(folder: Path, name: str, segments: list[tuple[str, int]], n_sig: int = 1, start: str = "") -> None:
    total = sum(length for _, length in segments)
    lines = [f"{name}/{len(segments)} {n_sig} 125 {total} {start}".strip(), *(f"{s} {n}" for s, n in segments)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")


def layout(folder: Path, name: str, channels: list[str], gain: str = "10") -> None:
    lines = [f"{name} {len(channels)} 125 0", *(f"~ 0 {gain}/mmHg 14 0 -8192 0 0 {c}" for c in channels)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")


@pytest.fixture
def single(tmp_path):
    folder = tmp_path / "p00" / "p000001"
    write(folder, NAME, ["PAP"], beats(4 * 60 * 125))
    numerics(folder, NAME, {"PAP MEAN": [20, 25, 24.9, 0], "HR": [90, 101, 0, 100]})
    return tmp_path


def per_minute(labels: np.ndarray) -> list[int]:
    """Return the label of each minute at 125 Hz, which all its samples must share."""
    minutes = labels.reshape(-1, 60 * 125)
    assert (minutes == minutes[:, :1]).all()
    return minutes[:, 0].tolist()


def test_every_sample_carries_the_numerics_of_its_minute_and_0_is_missing(single):
    (recording,) = mimic_waveform.load(single)
    assert recording.classes == ("no tachycardia", "tachycardia")
    assert per_minute(recording.labels) == [0, 1, -1, 0]
    assert (recording.subject, recording.sfreq, recording.units) == ("p000001", 125.0, ("mmHg",))
    assert recording.source == f"p00/p000001/{NAME}.hea"
    np.testing.assert_allclose(recording.signal[0], beats(30_000)[:, 0] / 10, rtol=1e-6)
    assert not recording.synthetic


def test_mean_pulmonary_pressure_of_25_is_hypertension(single):
    (recording,) = mimic_waveform.load(single, task="pulmonary_hypertension")
    assert per_minute(recording.labels) == [0, 1, 0, -1]


def test_another_threshold_may_be_asked_for(single):
    (recording,) = mimic_waveform.load(single, threshold=89.5)
    assert per_minute(recording.labels) == [1, 1, -1, 1]


@pytest.mark.parametrize(
    ("task", "name", "values", "expected"),
    [
        ("hypotension", "ABPMean", [64.9, 65, 0, 300], [1, 0, -1, -1]),
        ("hypotension", "ABP Mean", [64.9, 65, 0, 300], [1, 0, -1, -1]),
        ("desaturation", "SpO2", [89.9, 90, 0, 100], [1, 0, -1, 0]),
        ("tachycardia", "PULSE", [101, 100, 0, 400], [1, 0, -1, -1]),
    ],
)
def test_each_task_reads_its_numerics_by_any_spelling(tmp_path, task, name, values, expected):
    write(tmp_path, NAME, ["ABP"], beats(30_000, 80))
    numerics(tmp_path, NAME, {name: values})
    (recording,) = mimic_waveform.load(tmp_path, channels=["ABP"], task=task)
    assert per_minute(recording.labels) == expected


def test_numerics_each_second_are_averaged_over_the_minute(tmp_path):
    write(tmp_path, NAME, ["PAP"], beats(2 * 7500))
    numerics(tmp_path, NAME, {"HR": [0.0] * 30 + [104.0] * 15 + [98.0] * 15 + [0.0] * 60}, fs=1)
    (recording,) = mimic_waveform.load(tmp_path)
    assert per_minute(recording.labels) == [1, -1]  # (104 + 98) / 2 = 101, zeros do not count


def test_clocks_of_waveform_and_numerics_are_compared(tmp_path):
    write(tmp_path, NAME, ["PAP"], beats(3 * 7500), base_time=time(0, 1), base_date=date(2150, 1, 2))
    numerics(tmp_path, NAME, {"HR": [90, 90, 101, 90]}, base_time=time(23, 59), base_date=date(2150, 1, 1))
    (recording,) = mimic_waveform.load(tmp_path)
    assert per_minute(recording.labels) == [1, 0, -1]


@pytest.fixture
def segmented(tmp_path):
    """Gap 500, segment 1 (gain 10), segment 2 (gain 2, baseline -100), absent, no PAP, gap, segment 5."""
    folder = tmp_path / "p000001"
    write(folder, "100_0001", ["PAP"], beats(1000))
    write(folder, "100_0002", ["II", "PAP"], np.tile(2 * 22.5 - 100, (750, 2)) + [[0, 10], [0, -10], [0, 0]] * 250,
          adc_gain=[5.0, 2.0], baseline=[0, -100])  # fmt: skip
    write(folder, "100_0004", ["II"], beats(600))
    write(folder, "100_0005", ["PAP"], beats(7500))
    layout(folder, "100_layout", ["II", "PAP"])
    segments = [("100_layout", 0), ("~", 500), ("100_0001", 1000), ("100_0002", 750), ("100_0003", 5_000)]
    multi(folder, NAME, [*segments, ("100_0004", 600), ("~", 100), ("100_0005", 7500)], n_sig=2)
    numerics(folder, NAME, {"HR": [90, 110, 90]})
    return tmp_path


def test_gaps_and_absent_segments_end_a_recording_and_lose_nothing_else(segmented, caplog):
    with caplog.at_level(logging.WARNING):
        first, second = mimic_waveform.load(segmented)
    assert "1 segments (40 s) are absent" in caplog.text
    assert (first.position[0], first.n_samples) == (500, 1750)
    assert (second.position[0], second.n_samples) == (7950, 7500)
    assert (np.diff(first.position) == 1).all()
    # minute 1 begins at sample 7500 of the record, so 450 before the second stretch
    assert second.labels.tolist() == [1] * (15_000 - 7950) + [0] * 450


def test_gain_and_baseline_are_each_segments_own(segmented):
    first, _ = mimic_waveform.load(segmented)
    np.testing.assert_allclose(first.signal[0, :1000], beats(1000)[:, 0] / 10, rtol=1e-6)
    np.testing.assert_allclose(first.signal[0, 1000:1006], [27.5, 17.5, 22.5] * 2)


def test_only_files_that_are_read_are_listed(segmented):
    names = {p.name for p in mimic_waveform.files(segmented)}
    assert names == {
        *(f"100_000{i}.{end}" for i in (1, 2, 5) for end in ("hea", "dat")),
        "100_layout.hea",
        *(f"{NAME}{end}" for end in (".hea", "n.hea", "n.dat")),
    }


def test_several_channels_come_from_the_segments_that_have_all(segmented):
    (recording,) = mimic_waveform.load(segmented, channels=["PAP", "II"], mask_implausible=False)
    assert recording.channels == ("PAP", "II")
    assert (recording.position[0], recording.n_samples) == (1500, 750)
    np.testing.assert_allclose(recording.signal[1], -55 / 5)


def test_a_segment_that_is_not_calibrated_is_left_out(tmp_path, caplog):
    write(tmp_path, "100_0001", ["PAP"], beats(1000), adc_gain=[1.0])
    write(tmp_path, "100_0002", ["PAP"], beats(2000))
    layout(tmp_path, "100_layout", ["PAP"])
    multi(tmp_path, NAME, [("100_layout", 0), ("100_0001", 1000), ("100_0002", 2000)])
    numerics(tmp_path, NAME, {"HR": [90]})
    with caplog.at_level(logging.WARNING):
        (recording,) = mimic_waveform.load(tmp_path)
    assert recording.position[0] == 1000
    assert "not calibrated" in caplog.text
    layout(tmp_path, "100_layout", ["PAP"], gain="1")  # then a gain of 1 is what the monitor means
    (recording,) = mimic_waveform.load(tmp_path, mask_implausible=False)
    assert recording.position[0] == 0


def test_a_missing_sample_is_nan(single):
    digital = beats(30_000)
    digital[[5, 6, 29_999]] = -32768
    write(single / "p00" / "p000001", NAME, ["PAP"], digital)
    (recording,) = mimic_waveform.load(single)
    assert np.flatnonzero(np.isnan(recording.signal[0])).tolist() == [5, 6, 29_999]


def test_flushes_and_flat_lines_are_masked(single):
    digital = beats(30_000)
    digital[1000:1010] = 2800  # 280 mmHg
    digital[2000:2125] = 900  # one second at the end of the scale
    digital[3000:3124] = 900  # a little less
    write(single / "p00" / "p000001", NAME, ["PAP"], digital)
    (recording,) = mimic_waveform.load(single)
    assert np.flatnonzero(np.isnan(recording.signal[0])).tolist() == [*range(1000, 1010), *range(2000, 2125)]
    (recording,) = mimic_waveform.load(single, mask_implausible=False)
    assert np.isfinite(recording.signal).all()


def test_another_rate_keeps_minutes_and_places(segmented):
    first, second = mimic_waveform.load(segmented, sfreq=25)
    assert (first.sfreq, first.n_samples, first.position[0]) == (25.0, 350, 100)
    assert (second.n_samples, second.position[0]) == (1500, 1590)
    assert second.labels.tolist() == [1] * (3000 - 1590) + [0] * 90


@pytest.mark.parametrize("change", [-10, 10])
def test_a_header_that_lies_about_its_length_is_refused(single, change):
    path = single / "p00" / "p000001" / f"{NAME}.dat"
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    with pytest.raises(
        ValueError, match=f"states 30000 samples of 1 signals, which are 60000 bytes, .* {60000 + change}"
    ):
        mimic_waveform.load(single)


def test_a_length_beyond_all_memory_is_refused_before_anything_is_read(single):
    path = single / "p00" / "p000001" / f"{NAME}.hea"
    path.write_text(path.read_text().replace("30000", "300000000000000"))
    with pytest.raises(ValueError, match="states 300000000000000 samples"):
        mimic_waveform.load(single)


def test_a_changed_sample_is_refused_by_the_checksum(single):
    path = single / "p00" / "p000001" / f"{NAME}.dat"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="samples of PAP do not add up to the checksum"):
        mimic_waveform.load(single)


def test_segments_that_contradict_the_record_are_refused(segmented):
    path = segmented / "p000001" / f"{NAME}.hea"
    text = path.read_text()
    path.write_text(text.replace("100_0002 750", "100_0002 751"))
    with pytest.raises(ValueError, match=r"states 15450 samples, but its segments have 15451"):
        mimic_waveform.load(segmented)
    path.write_text(text.replace("100_0002 750", "100_0002 751").replace("15450", "15451"))
    with pytest.raises(ValueError, match=r"100_0002.hea states 750 samples at 125 Hz, but .* 751"):
        mimic_waveform.load(segmented)


def test_a_header_that_is_no_header_or_points_elsewhere_is_refused(single):
    path = single / "p00" / "p000001" / f"{NAME}.hea"
    text = path.read_text()
    path.write_text("<html>404</html>\n")
    with pytest.raises(ValueError, match="not a WFDB header"):
        mimic_waveform.load(single)
    path.write_text(text.replace(f"{NAME}.dat", "../secret.dat"))
    with pytest.raises(ValueError, match="not a WFDB header"):
        mimic_waveform.load(single)


def test_missing_numerics_and_channels_are_named(single, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ValueError, match="needs numerics ABPMEAN or ARTMEAN, which none of the records"):
        mimic_waveform.load(single, task="hypotension")
    with pytest.raises(ValueError, match=r"no record .* has calibrated samples of ABP. .* are there: PAP"):
        mimic_waveform.load(single, channels=["ABP"])
    with pytest.raises(ValueError, match=r"no subject 'p000002' .* there are p000001"):
        mimic_waveform.load(single, subjects=["p000002"])
    with pytest.raises(ValueError, match="no channel was named"):
        mimic_waveform.load(single, channels=[])
    with pytest.raises(ValueError, match="no MIMIC-III task is called 'tachycard'; did you mean 'tachycardia'"):
        mimic_waveform.load(single, task="tachycard")
    with pytest.raises(FileNotFoundError, match=r"WFDB headers \(.hea\) in .* holds nothing. Get records"):
        mimic_waveform.files(empty)


def test_only_the_subjects_asked_for_are_read(single):
    other = NAME.replace("p000001", "p000002")
    write(single, other, ["PAP"], beats(7500))
    numerics(single, other, {"HR": [90]})
    assert [r.subject for r in mimic_waveform.load(single)] == ["p000001", "p000002"]
    assert [r.subject for r in mimic_waveform.load(single, subjects=["p000002"])] == ["p000002"]


@pytest.mark.real
def test_real_pulmonary_pressures_are_read_as_wfdb_reads_them(real_data):
    root = real_data / "mimic3wdb" / "pap"
    recordings = mimic_waveform.load(root, subjects=["p000772", "p008432", "p026105"], mask_implausible=False)
    assert [r.subject for r in recordings] == ["p000772", "p008432", "p026105"]
    for recording in recordings:
        record = wfdb.rdrecord(str(root / recording.source.removesuffix(".hea")))
        np.testing.assert_allclose(recording.signal, record.p_signal.T, rtol=1e-6)
        rate = wfdb.rdrecord(str(root / (recording.source.removesuffix(".hea") + "n"))).p_signal[:50, 3]
        expected = np.where((rate < 20) | (rate > 300), -1, rate > 100)
        assert per_minute(recording.labels) == expected.tolist()


@pytest.mark.real
def test_all_thirty_real_subjects_have_windows_of_10_s(real_data):
    recordings = mimic_waveform.load(real_data / "mimic3wdb" / "pap", sfreq=25)
    windows = slide_all(recordings, seconds=10)
    assert len(set(windows.subject)) == 30
    assert np.isfinite(windows.x).all()
    assert 0.3 < windows.y.mean() < 0.6


@pytest.mark.real
def test_the_real_record_with_absent_and_uncalibrated_segments_is_read(real_data):
    root = real_data / "mimic3wdb" / "p000020"
    (pap,) = mimic_waveform.load(root)
    assert (pap.position[0], pap.n_samples) == (93 + 3811 + 124 + 8, 380)  # the others' PAP is in ADC units or absent
    abp = mimic_waveform.load(root, channels=["ABP"], task="hypotension")
    assert [r.n_samples for r in abp] == [124 + 8 + 380, 30_000]
    segment = wfdb.rdrecord(str(root / "3544749_0004")).p_signal[:, 3]
    np.testing.assert_allclose(pap.signal[0], segment, rtol=1e-6)


@pytest.mark.real
def test_real_records_without_numerics_say_so(real_data):
    with pytest.raises(ValueError, match="needs numerics HR or PULSE"):
        mimic_waveform.load(real_data / "mimic3wdb" / "p000878", channels=["PLETH"])
