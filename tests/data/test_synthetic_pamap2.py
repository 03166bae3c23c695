from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from hcqsfl.data import pamap2 as loader
from hcqsfl.data.synthetic import pamap2

TWELVE = {1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 17, 24}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    files = pamap2.write(tmp_path_factory.mktemp("pamap2"), n_subjects=9, scale=0.04, optional=True)
    return {f"{f.parent.name}/{f.stem}": pd.read_csv(f, sep=" ", header=None) for f in files}


@pytest.fixture(scope="module")
def protocol(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {name[-3:]: table for name, table in tables.items() if name.startswith("Protocol")}


def test_there_is_a_file_for_everyone_and_an_optional_one_for_those_five(tables: dict[str, pd.DataFrame]) -> None:
    assert {name for name in tables if name.startswith("Protocol")} == {f"Protocol/subject{n}" for n in range(101, 110)}
    assert {name[-3:] for name in tables if name.startswith("Optional")} == {"101", "105", "106", "108", "109"}


def test_only_five_subjects_have_all_twelve_activities(protocol: dict[str, pd.DataFrame]) -> None:
    activities = {subject: set(table[1]) - {0} for subject, table in protocol.items()}
    assert {subject for subject, done in activities.items() if done == TWELVE} == {"101", "102", "105", "106", "108"}
    assert activities["109"] == {24}
    assert set().union(*activities.values()) == TWELVE


def test_activities_last_their_share_of_the_studys_seconds(protocol: dict[str, pd.DataFrame]) -> None:
    assert (protocol["101"][1] == 1).sum() == round(271.86 * 0.04 * 100)
    assert (protocol["107"][1] == 5).sum() == round(36.91 * 0.04 * 100)
    runs = protocol["101"][1].to_numpy()
    runs = runs[np.flatnonzero(np.diff(runs, prepend=-1))]
    assert set(runs[::2]) == {0}
    assert runs[1::2].tolist() == [1, 2, 3, 17, 16, 12, 13, 12, 13, 4, 7, 6, 5, 24]


def test_a_row_is_54_numbers_as_a_stream_prints_them(tmp_path: Path) -> None:
    (file,) = pamap2.write(tmp_path, n_subjects=1, scale=0.01, optional=False)
    content = file.read_bytes().decode("ascii")
    assert content.endswith("\n")
    assert "\r" not in content
    for line in content.splitlines():
        fields = line.split(" ")
        assert len(fields) == 54
        assert all(field == "NaN" or field == f"{float(field):.6g}" for field in fields)


def test_the_loader_reads_every_subject_and_says_it_is_made_up(tmp_path: Path) -> None:
    files = pamap2.write(tmp_path, n_subjects=2, scale=0.02, optional=True)
    recordings = loader.load(tmp_path, part="both")
    assert len({recording.subject for recording in recordings}) == 2
    assert len({recording.source for recording in recordings}) == len(files) == 3
    assert all(recording.synthetic for recording in recordings)
    assert set(np.concatenate([recording.labels for recording in recordings])) >= {0, 1, 2}


@pytest.mark.real
def test_the_specimen_line_is_printed_the_same_way(real_data: Path, tmp_path: Path) -> None:
    specimen = (real_data / "pamap2" / "specimen_subject101_row1.dat").read_text().strip()
    row = np.array([[float(field) for field in specimen.split(" ")]])
    pamap2._save(row, tmp_path / "row.dat")
    assert (tmp_path / "row.dat").read_text() == specimen + "\n"


def test_the_clock_ticks_a_hundred_times_a_second(protocol: dict[str, pd.DataFrame]) -> None:
    for table in protocol.values():
        np.testing.assert_allclose(np.diff(table[0]), 0.01, atol=1e-6)


def test_values_are_missing_as_often_as_published(protocol: dict[str, pd.DataFrame]) -> None:
    everyone = pd.concat(protocol.values())
    assert everyone[2].notna().mean() == pytest.approx(262_268 / 2_872_533, rel=0.01)
    for first, published in ((3, 2_859_392), (20, 2_868_970), (37, 2_860_784)):
        columns = everyone[range(first, first + 17)].isna()
        assert columns.any(axis=1).equals(columns.all(axis=1))  # a lost sample takes the whole sensor with it
        assert columns[first].mean() == pytest.approx(1 - published / 2_872_533, rel=0.6)
    assert everyone[[0, 1]].notna().all(axis=None)


@pytest.mark.real
def test_columns_have_the_published_means_and_spreads(protocol: dict[str, pd.DataFrame], real_data: Path) -> None:
    published = pd.read_csv(real_data / "pamap2" / "reference_stats_protocol_54cols.csv")
    found = pd.concat(protocol.values()).describe().T
    for column, row in published.iterrows():
        if row["column"] in ("timestamp", "activityID") or "orient" in row["column"]:
            continue  # the recordings are shorter here, and the original's orientation is invalid
        assert abs(found.loc[column, "mean"] - row["mean"]) < 0.5 * row["std"], row["column"]
        assert 0.6 < found.loc[column, "std"] / row["std"] < 1.5, row["column"]


def test_a_body_at_rest_feels_gravity(protocol: dict[str, pd.DataFrame]) -> None:
    for subject in ("101", "102", "105"):
        lying = protocol[subject][protocol[subject][1] == 1]
        for first in (4, 21, 38):
            assert np.linalg.norm(lying[[first, first + 1, first + 2]].mean()) == pytest.approx(9.81, abs=0.6)


def test_the_narrow_accelerometer_saturates_and_the_wide_one_goes_on(protocol: dict[str, pd.DataFrame]) -> None:
    everyone = pd.concat(protocol.values())
    narrow, wide = everyone[[41, 42, 43]].abs().max(), everyone[[38, 39, 40]].abs().max()
    assert narrow.max() == pytest.approx(61.9)
    assert wide.max() > 65


def test_honest_scores_lie_between_trivial_and_perfect(protocol: dict[str, pd.DataFrame]) -> None:
    columns = [17 * sensor + axis for sensor in range(3) for axis in (4, 5, 6, 10, 11, 12)]
    x, y, who = [], [], []
    for subject, table in protocol.items():
        for activity in sorted(set(table[1]) - {0}):
            run = table.loc[table[1] == activity, columns].ffill().bfill().to_numpy()
            for start in range(0, len(run) - 199, 200):
                x.append(np.concatenate([run[start : start + 200].mean(0), run[start : start + 200].std(0)]))
                y.append(activity)
                who.append(subject)
    x, y, who = np.array(x), np.array(y), np.array(who)
    guesses = [
        cross_val_predict(model, x, y, groups=who, cv=LeaveOneGroupOut())
        for model in (DummyClassifier(), RandomForestClassifier(50, random_state=0))
    ]
    trivial, honest = ((guess == y).mean() for guess in guesses)
    assert trivial + 0.1 < honest < 0.93
    assert honest > 0.6


@pytest.mark.parametrize("options", [{"n_subjects": 0}, {"n_subjects": 10}, {"scale": 0.0}])
def test_counts_out_of_range_are_refused(options: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="asked for"):
        pamap2.write(tmp_path / "root", **options)
