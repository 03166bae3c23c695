import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hcqsfl.data import csv_table
from hcqsfl.data.windows import slide_all

OPTIONS = {"signal_columns": ["ecg", "eda"], "label_column": "label", "sfreq": 4.0}


def table(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def root(tmp_path):
    table(tmp_path / "S2_4hz.csv", "ecg,eda,label\n1,2,1\n3,,1\n5,6,2\n7,8,0\n")
    table(tmp_path / "S3_4hz.csv.gz", "ecg,eda,label\n0.5,1e1,2.0\n")
    return tmp_path


def test_the_file_name_says_who_was_recorded(root):
    first, second = csv_table.load(root, **OPTIONS, subject_pattern=r"^(S\d+)_")
    assert (first.subject, second.subject) == ("S2", "S3")
    assert [r.subject for r in csv_table.load(root, **OPTIONS, subject_pattern=r"S\d+")] == ["S2", "S3"]
    assert [r.subject for r in csv_table.load(root, **OPTIONS)] == ["S2_4hz", "S3_4hz"]
    assert first.source == "S2_4hz.csv"
    assert first.sfreq == 4.0
    np.testing.assert_array_equal(first.signal, [[1, 3, 5, 7], [2, np.nan, 6, 8]])
    assert second.signal.tolist() == [[0.5], [10.0]]


def test_values_are_named_may_share_a_name_and_the_rest_is_ignored(root):
    first, second = csv_table.load(root, **OPTIONS, classes={"1": "rest", "2": "stress"}, units={"ecg": "mV"})
    assert first.classes == second.classes == ("rest", "stress")
    assert first.labels.tolist() == [0, 0, 1, -1]
    assert second.labels.tolist() == [1]
    assert first.units == ("mV", "")
    joined, _ = csv_table.load(root, **OPTIONS, classes={"1": "calm", "0": "calm", "2": "stress"})
    assert joined.classes == ("calm", "stress")
    assert joined.labels.tolist() == [0, 0, 1, 0]


def test_without_names_every_value_is_its_own_class(root):
    first, second = csv_table.load(root, **OPTIONS)
    assert first.classes == ("0", "1", "2")
    assert first.labels.tolist() == [1, 1, 2, 0]
    assert second.labels.tolist() == [2]


def test_a_subject_column_groups_rows_and_rows_of_others_are_a_gap(tmp_path):
    table(tmp_path / "all.csv", "who,ecg,eda,label\na,1,1,x\na,2,2,x\nb,3,3,x\na,4,4,x\na,5,5,\n")
    a, b = csv_table.load(tmp_path, **OPTIONS, subject_column="who")
    assert (a.subject, a.position.tolist(), a.labels.tolist()) == ("a", [0, 1, 3, 4], [0, 0, 0, -1])
    assert b.signal.tolist() == [[3], [3]]
    assert slide_all([a, b], seconds=0.5).start.tolist() == [0]


def test_a_jump_in_time_ends_a_recording(tmp_path):
    table(tmp_path / "t.csv", "t,ecg,eda,label\n0,1,1,x\n0.25,2,2,x\n0.5,2,2,x\n3,4,4,x\n3.25,5,5,x\n3,6,6,x\n")
    recordings = csv_table.load(tmp_path, **OPTIONS, time_column="t")
    assert [r.position.tolist() for r in recordings] == [[0, 1, 2], [3, 4], [5]]
    with pytest.raises(ValueError, match=r"0.25 s apart \(median\), but at the stated 8 Hz they are 0.125 s"):
        csv_table.load(tmp_path, **{**OPTIONS, "sfreq": 8}, time_column="t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "lable"}, r"no column 'lable'; did you mean 'label'\? It has: ecg, eda, label"),
        ({"signal_columns": ["ecg", "bvp"]}, "no column 'bvp'"),
        ({"signal_columns": []}, "no signal column was named"),
        ({"signal_columns": ["ecg", "label"]}, "'label' is the label column"),
        ({"subject_column": "who"}, "no column 'who'"),
        ({"time_column": "when"}, "no column 'when'"),
        ({"subject_pattern": r"P\d"}, r"finds nothing in the file name 'S2_4hz.csv'"),
        ({"classes": {"7": "seven"}}, "label value '7', but column 'label' holds only 0, 1, 2"),
        ({"units": {"bvp": "mV"}}, "a unit was given for 'bvp'"),
        ({"sfreq": 0}, "must be above 0"),
    ],
)
def test_what_is_not_there_is_refused(root, options, message):
    with pytest.raises(ValueError, match=message):
        csv_table.load(root, **{**OPTIONS, **options})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ecg,eda,label\n1,2,1\n1,loud,1\n", "line 3: column 'eda' holds 'loud', which is not a finite number"),
        ("ecg,eda,label\n1,,1\n1,nan,1\n", "column 'eda' of subject bad holds no number at all"),
        ("ecg,eda,label\n1,2,1\n1,2\n", "line 3: the row has 2 values, but the header names 3"),
        ("ecg,ecg,label\n1,2,1\n", "the header names 'ecg' more than once"),
        ("", "the file is empty"),
        ("ecg,eda,label\n", "no rows below its header"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, message):
    table(tmp_path / "bad.csv", text)
    with pytest.raises(ValueError, match=message):
        csv_table.load(tmp_path, **OPTIONS)


def test_a_blank_subject_is_refused(tmp_path):
    table(tmp_path / "bad.csv", "who,ecg,eda,label\na,1,1,x\n ,2,2,x\n")
    with pytest.raises(ValueError, match="line 3: column 'who' does not say who was recorded"):
        csv_table.load(tmp_path, **OPTIONS, subject_column="who")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "bad.csv").write_bytes("ecg,eda,label\n1,2,é\n".encode("latin1"))
    with pytest.raises(ValueError, match=r"bad.csv: .*UTF-?8"):
        csv_table.load(tmp_path, **OPTIONS)


def test_only_tables_that_match_are_read(root):
    (root / "notes.txt").touch()
    assert [p.name for p in csv_table.files(root)] == ["S2_4hz.csv", "S3_4hz.csv.gz"]
    assert [p.name for p in csv_table.files(root, pattern="S3*")] == ["S3_4hz.csv.gz"]
    with pytest.raises(FileNotFoundError, match=r"tables called X\*.* which holds S2_4hz.csv, S3_4hz.csv.gz, notes"):
        csv_table.load(root, **OPTIONS, pattern="X*")


@pytest.mark.real
def test_real_wesad_at_4_hz_is_read_as_pandas_reads_it(real_data):
    channels = ["ECG_chest", "EDA_chest", "Temp_chest"]
    recordings = csv_table.load(
        real_data / "wesad_4hz",
        signal_columns=channels,
        label_column="label",
        sfreq=4.0,
        subject_pattern=r"^(S\d+)_",
        classes={"1": "baseline", "2": "stress", "3": "amusement"},
    )
    assert [r.subject for r in recordings] == ["S14", "S15", "S16"]
    expected = pd.read_csv(real_data / "wesad_4hz" / "S15_4hz.csv.gz")
    np.testing.assert_array_equal(recordings[1].signal, expected[channels].to_numpy().T)
    np.testing.assert_array_equal(recordings[1].labels, expected["label"].to_numpy() - 1)
    windows = slide_all(recordings, seconds=60)
    assert set(zip(windows.subject.tolist(), windows.y.tolist(), strict=True)) == {
        (subject, label) for subject in ("S14", "S15", "S16") for label in range(3)
    }


@pytest.mark.real
def test_real_wesad_features_are_grouped_by_their_subject_column(real_data):
    recordings = csv_table.load(
        real_data / "wesad_features",
        signal_columns=["EDA_mean", "BVP_std"],
        label_column="label",
        subject_column="subject",
        sfreq=1.0,
        classes={"0": "amusement", "1": "baseline", "2": "stress"},
    )
    assert len(recordings) == 12
    assert {r.classes for r in recordings} == {("amusement", "baseline", "stress")}
