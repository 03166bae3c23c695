from pathlib import Path

import numpy as np
import pytest

from hcqsfl.data import pamap2
from hcqsfl.data.windows import slide_all


def rows(activities: list[int], start: float = 8.38) -> np.ndarray:
    """Return ``(n, 54)`` rows at 100 Hz: column ``c`` of row ``r`` is ``c + r / 1000``, heart rate every 11th row."""
    n = len(activities)
    grid = np.arange(54) + np.arange(n)[:, None] / 1000
    grid[:, 0] = np.round(start + np.arange(n) / 100, 2)
    grid[:, 1] = activities
    grid[:, 2] = np.where(np.arange(n) % 11 == 0, 100 + np.arange(n), np.nan)
    return grid


def write(root: Path, grid: np.ndarray, subject: int = 101, part: str = "Protocol") -> Path:
    """Write rows as the authors do: blanks, no header, ``NaN``."""
    path = root / part / f"subject{subject}.dat"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(" ".join("NaN" if v != v else f"{v:g}" for v in row) + "\n" for row in grid))
    return path


def channel(recording, name: str) -> np.ndarray:
    return recording.signal[recording.channels.index(name)]


def test_columns_are_those_of_the_official_description():
    assert pamap2.COLUMNS["heart_rate"] == (2, "bpm")
    assert pamap2.COLUMNS["hand_temp"] == (3, "degC")
    assert pamap2.COLUMNS["hand_acc16_x"] == (4, "m/s^2")
    assert pamap2.COLUMNS["hand_orientation_3"] == (19, "")
    assert pamap2.COLUMNS["chest_temp"][0] == 20
    assert pamap2.COLUMNS["chest_gyro_z"] == (29, "rad/s")
    assert pamap2.COLUMNS["ankle_mag_z"] == (49, "uT")
    assert pamap2.COLUMNS["ankle_orientation_3"][0] == 53
    assert len(pamap2.DEFAULT_CHANNELS) == 28
    assert not any("acc6" in name or "orientation" in name or "temp" in name for name in pamap2.DEFAULT_CHANNELS)


@pytest.mark.real
def test_the_official_row_is_read_into_the_right_columns(real_data, tmp_path):
    line = (real_data / "pamap2" / "specimen_subject101_row1.dat").read_text()
    folder = tmp_path / "Protocol"
    folder.mkdir()
    (folder / "subject101.dat").write_text(line.replace("8.38 0 ", "8.38 4 ", 1))
    (recording,) = pamap2.load(tmp_path, channels=["heart_rate", "hand_temp", "hand_acc16_x", "ankle_mag_z"])
    np.testing.assert_allclose(recording.signal[:, 0], [104, 30, 2.37223, -58.1438], rtol=1e-6)


def test_transient_moments_are_dropped_and_end_a_recording(tmp_path):
    write(tmp_path, rows([0] * 5 + [4] * 20 + [0] * 3 + [4] * 10 + [17] * 10 + [9] * 5))
    recordings = pamap2.load(tmp_path)
    assert [(r.classes[r.labels[0]], r.n_samples) for r in recordings] == [
        ("walking", 20),
        ("walking", 10),
        ("ironing", 10),
    ]
    assert {r.subject for r in recordings} == {"subject101"}
    assert recordings[0].classes == tuple(pamap2.PROTOCOL.values())
    assert [int(r.position[0]) for r in recordings] == [843, 866, 876]
    assert recordings[0].units[0] == "bpm"
    np.testing.assert_allclose(channel(recordings[0], "chest_acc16_x"), 21 + np.arange(5, 25) / 1000, rtol=1e-4)


def test_heart_rate_is_carried_forward_inside_a_file_only_and_never_back(tmp_path):
    first = rows([4] * 30)
    first[0, 2] = np.nan  # the first measurement is row 11
    write(tmp_path, first, subject=101)
    write(tmp_path, rows([4] * 5, start=9), subject=102)
    one, two = pamap2.load(tmp_path, channels=["heart_rate"])
    np.testing.assert_array_equal(one.signal[0], [*[np.nan] * 11, *[111] * 11, *[122] * 8])
    assert two.signal[0].tolist() == [100] * 5


def test_a_heart_rate_from_before_the_activity_serves_but_not_an_old_one(tmp_path):
    grid = rows([0] * 2 + [4] * 2000)
    grid[:, 2] = np.nan
    grid[1, 2] = 77
    write(tmp_path, grid)
    (recording,) = pamap2.load(tmp_path, channels=["heart_rate", "hand_gyro_x"])
    # 10 s after the measurement in row 1 it is stale: rows 2 ... 1001 have it
    assert np.isfinite(recording.signal[0]).sum() == 1000
    assert set(recording.signal[0, :1000]) == {77}


def test_short_losses_inside_an_activity_are_interpolated_and_long_ones_are_not(tmp_path):
    grid = rows([4] * 200)
    value = grid[:, 4].copy()
    grid[20:25, 4:20] = np.nan
    grid[100:160, 4:20] = np.nan
    grid[198:, 4:20] = np.nan
    write(tmp_path, grid)
    (recording,) = pamap2.load(tmp_path, channels=["hand_acc16_x", "chest_acc16_x"], max_gap_s=0.5)
    got = channel(recording, "hand_acc16_x")
    np.testing.assert_allclose(got[:100], value[:100], rtol=1e-4)
    assert np.flatnonzero(np.isnan(got)).tolist() == [*range(100, 160), 198, 199]
    assert np.isfinite(channel(recording, "chest_acc16_x")).all()
    (whole,) = pamap2.load(tmp_path, channels=["hand_acc16_x"], max_gap_s=1)
    assert np.isfinite(whole.signal[0, :198]).all()
    (none,) = pamap2.load(tmp_path, channels=["hand_acc16_x"], max_gap_s=0)
    assert np.isnan(none.signal).sum() == 67


def test_a_jump_of_time_ends_a_recording_and_a_few_absent_rows_do_not(tmp_path):
    grid = rows([4] * 100)
    grid[60:, 0] += 2  # two seconds are missing
    grid[80:, 0] -= 30  # and the clock goes back
    kept = np.delete(grid, slice(10, 15), axis=0)
    write(tmp_path, kept)
    recordings = pamap2.load(tmp_path, channels=["chest_mag_x"])
    assert [r.n_samples for r in recordings] == [60, 20, 20]
    np.testing.assert_allclose(recordings[0].signal[0], 30 + np.arange(60) / 1000, rtol=1e-4)
    assert slide_all(recordings, seconds=0.3).start.tolist() == [838, 868]


def test_classes_may_be_chosen_and_ordered(tmp_path):
    write(tmp_path, rows([4] * 10 + [24] * 10 + [7] * 10))
    recordings = pamap2.load(tmp_path, classes=["rope jumping", "walking"])
    assert [(r.classes, int(r.labels[0])) for r in recordings] == [
        (("rope jumping", "walking"), 1),
        (("rope jumping", "walking"), 0),
    ]


def test_protocol_and_optional_files_are_found_inside_the_extracted_folder(tmp_path):
    write(tmp_path / "PAMAP2_Dataset", rows([4] * 10), 101, "Protocol")
    write(tmp_path / "PAMAP2_Dataset", rows([20] * 10), 101, "Optional")
    assert [r.source for r in pamap2.load(tmp_path)] == ["PAMAP2_Dataset/Protocol/subject101.dat"]
    (optional,) = pamap2.load(tmp_path, part="optional")
    assert optional.classes == tuple(pamap2.OPTIONAL.values())
    assert optional.classes[optional.labels[0]] == "playing soccer"
    both = pamap2.load(tmp_path / "PAMAP2_Dataset", part="both")
    assert {r.classes[r.labels[0]] for r in both} == {"walking", "playing soccer"}
    assert len(both[0].classes) == 18


def test_another_rate_is_reached_through_a_filter(tmp_path):
    grid = rows([4] * 1000)
    grid[:, 21] = np.sin(2 * np.pi * 30 * np.arange(1000) / 100)  # 30 Hz, above the new Nyquist frequency
    grid[:, 22] = np.sin(2 * np.pi * 1 * np.arange(1000) / 100)
    write(tmp_path, grid)
    (recording,) = pamap2.load(tmp_path, sfreq=25, channels=["chest_acc16_x", "chest_acc16_y"])
    assert (recording.sfreq, recording.n_samples, recording.position[0]) == (25.0, 250, round(838 / 4))
    assert np.abs(recording.signal[0, 20:-20]).max() < 0.02
    np.testing.assert_allclose(recording.signal[1, 20:-20], np.sin(2 * np.pi * np.arange(250) / 25)[20:-20], atol=5e-3)


def test_a_bout_without_a_unit_is_left_out_and_a_file_without_one_is_refused(tmp_path, caplog):
    grid = rows([4] * 100 + [7] * 100)
    grid[:100, 37:] = np.nan
    write(tmp_path, grid)
    (recording,) = pamap2.load(tmp_path)
    assert recording.classes[recording.labels[0]] == "Nordic walking"
    assert "walking without ankle_acc16_x" in caplog.text
    grid[:, 37:] = np.nan
    write(tmp_path, grid)
    with pytest.raises(
        ValueError, match="channel ankle_acc16_x holds no number at all; leave the channel out or the sub"
    ):
        pamap2.load(tmp_path)
    assert len(pamap2.load(tmp_path, channels=["hand_acc16_x"])) == 2


def test_a_short_row_is_refused_naming_file_and_line(tmp_path):
    path = write(tmp_path, rows([4] * 10))
    lines = path.read_text().splitlines()
    lines[6] = " ".join(lines[6].split(" ")[:40])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"subject101.dat, line 7: the row has 40 numbers, but every row must have 54"):
        pamap2.load(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (1, 8, "no activity 8"),
        (1, 4.5, "no activity 4.5"),
        (1, np.nan, "no activity nan"),
        (0, np.nan, "time stamp is missing"),
    ],
)
def test_an_impossible_row_is_named(tmp_path, column, value, message):
    grid = rows([4] * 10)
    grid[3, column] = value
    write(tmp_path, grid)
    with pytest.raises(ValueError, match=rf"line 4: .*{message}"):
        pamap2.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "protocoll"}, "did you mean 'protocol'"),
        ({"classes": ["walkin"]}, "did you mean 'walking'"),
        ({"classes": ["running"]}, "none of the 1 files holds any of running"),
        ({"classes": []}, "classes must name each activity once"),
        ({"channels": ["hand_acc16_w"]}, "did you mean 'hand_acc16"),
        ({"channels": ["hand_orientation_0"]}, "marked invalid"),
        ({"channels": []}, "no channel was named"),
        ({"subjects": ["subject111"]}, "no subject 'subject111'"),
        ({"max_gap_s": -1}, "at least 0"),
        ({"sfreq": 0}, "cannot resample"),
    ],
)
def test_an_option_that_asks_for_what_is_not_there_is_refused(tmp_path, options, message):
    write(tmp_path, rows([4] * 20))
    with pytest.raises(ValueError, match=message):
        pamap2.load(tmp_path, **options)


def test_missing_and_doubled_files_are_told(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"looked for Protocol/subject\*.dat in .* unpack the PAMAP2_Dataset.zip"
    ):
        pamap2.load(tmp_path)
    write(tmp_path / "a", rows([4] * 20))
    write(tmp_path / "b", rows([4] * 20))
    with pytest.raises(ValueError, match="are the same file of PAMAP2"):
        pamap2.files(tmp_path)
    write(tmp_path / "a", rows([4] * 20), 102)
    assert [p.name for p in pamap2.files(tmp_path / "a", subjects=["subject102"])] == ["subject102.dat"]
    assert not pamap2.load(tmp_path / "a")[0].synthetic
    (tmp_path / "a" / "SYNTHETIC").touch()
    assert pamap2.load(tmp_path / "a")[0].synthetic
