import csv
import gzip
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from hcqsfl.data import ton_iot as loader
from hcqsfl.data.synthetic import ton_iot


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ton_iot")
    ton_iot.write(folder, scale=0.05)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def official(real_data: Path, name: str) -> Iterator[str]:
    with gzip.open(real_data / "ton_iot" / f"{name}.csv.gz", "rt", encoding="utf-8-sig", newline="") as file:
        yield from file


@pytest.mark.real
@pytest.mark.parametrize(
    ("made_up", "name"),
    [
        (ton_iot.NETWORK_FILE, "train_test_network"),
        *(
            (f"Train_Test_IoT_dataset/Train_Test_IoT_{service}.csv", f"Train_Test_IoT_{service}")
            for service in ("Fridge", "GPS_Tracker", "Modbus", "Weather")
        ),
    ],
)
def test_headers_are_the_official_ones(root: Path, real_data: Path, made_up: str, name: str) -> None:
    (header,) = islice(official(real_data, name), 1)
    content = (root / made_up).read_bytes()
    assert content.startswith(b"\xef\xbb\xbf" + header.encode())
    assert header.endswith("\r\n")


def test_files_have_a_byte_order_mark_and_end_lines_as_windows_does(root: Path) -> None:
    paths = list(root.rglob("*.csv"))
    assert len(paths) == 8
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\xef\xbb\xbf")
        assert content.count(b"\n") == content.count(b"\r\n") > 100


def test_the_loader_reads_every_file_and_says_it_is_made_up(root: Path) -> None:
    for source in loader.FILES:
        recordings = loader.load(root, source=source)
        assert all(recording.synthetic for recording in recordings)
        assert recordings[0].classes[0] == "normal"
        assert all(np.isfinite(recording.signal).all() for recording in recordings)


def test_flows_are_sorted_by_type_in_the_official_proportions(root: Path) -> None:
    table = rows(root / ton_iot.NETWORK_FILE)
    types = [row["type"] for row in table]
    assert list(dict.fromkeys(types)) == sorted(set(types)) == list(ton_iot.NETWORK_ROWS)
    assert types.count("normal") == 2500
    assert types.count("mitm") == 52
    assert sum(types[i] != types[i - 1] for i in range(1, len(types))) == 9
    assert {(row["label"], row["type"] == "normal") for row in table} == {("0", True), ("1", False)}


def test_bytes_on_the_wire_include_the_payload_and_a_header_a_packet(root: Path) -> None:
    for row in rows(root / ton_iot.NETWORK_FILE):
        for side in ("src", "dst"):
            packets, payload = int(row[f"{side}_pkts"]), int(row[f"{side}_bytes"])
            assert int(row[f"{side}_ip_bytes"]) - payload >= 20 * packets
            assert packets > 0 or payload == 0
        assert (row["dns_query"] == "-") == (row["service"] != "dns")


def test_the_sender_alone_gives_the_attack_away(root: Path) -> None:
    table = rows(root / ton_iot.NETWORK_FILE)
    votes: dict[str, list[int]] = {}
    for row in table:
        votes.setdefault(row["src_ip"], [0, 0])[int(row["label"])] += 1
    assert 0.98 < sum(max(pair) for pair in votes.values()) / len(table) < 1.0


def test_many_vectors_repeat_and_some_carry_two_types(root: Path) -> None:
    everything = loader.load(root, deduplicate=False)
    signal = np.concatenate([r.signal for r in everything], axis=1).T
    labels = np.concatenate([r.labels for r in everything])
    vectors, where = np.unique(signal, axis=0, return_inverse=True)
    assert 0.3 < 1 - len(vectors) / len(signal) < 0.7
    types_of = np.zeros((len(vectors), 10), bool)
    types_of[where.ravel(), labels] = True
    assert 1 <= (types_of.sum(axis=1) > 1).sum() < 0.02 * len(vectors)


def test_honest_scores_lie_between_trivial_and_perfect(root: Path) -> None:
    recordings = loader.load(root)
    x = np.concatenate([r.signal for r in recordings], axis=1).T
    y = np.concatenate([r.labels for r in recordings])
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)

    def macro_f1(model: DummyClassifier | RandomForestClassifier) -> float:
        guesses = model.fit(train_x, train_y).predict(test_x)
        return float(f1_score(test_y, guesses, average="macro", labels=range(10), zero_division=0))

    assert macro_f1(DummyClassifier()) + 0.1 < macro_f1(RandomForestClassifier(50, random_state=0)) < 0.97


def test_blanks_after_a_category_tell_normal_from_attack_as_they_did(root: Path) -> None:
    table = rows(root / "Train_Test_IoT_dataset" / "Train_Test_IoT_Fridge.csv")
    spellings = {(row["type"] == "normal", row["temp_condition"]) for row in table}
    assert {word for is_normal, word in spellings if is_normal} == {"high ", "high  ", "low ", "low  "}
    assert {word for is_normal, word in spellings if not is_normal} == {"high", "low"}


def test_the_phone_signal_mixes_digits_with_words(root: Path) -> None:
    table = rows(root / "Train_Test_IoT_dataset" / "Train_Test_IoT_Garage_Door.csv")
    assert {row["sphone_signal"].strip() for row in table} == {"0", "1", "true", "false"}


def test_dates_tell_normal_from_attack_as_they_did(root: Path) -> None:
    for path in (root / "Train_Test_IoT_dataset").iterdir():
        table = rows(path)
        assert {row["date"].split("-")[1] for row in table if row["type"] == "normal"} <= {"Mar", "Apr"}
        days = {row["date"] for row in table if row["type"] == "normal"} & {
            row["date"] for row in table if row["type"] != "normal"
        }
        assert days == set()


def test_a_scale_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scale of 9 was asked for"):
        ton_iot.write(tmp_path / "root", scale=9)
