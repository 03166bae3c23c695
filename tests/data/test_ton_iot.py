import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hcqsfl.data import ton_iot
from hcqsfl.data.windows import slide_all

HEADER = (
    "src_ip,src_port,dst_ip,dst_port,proto,service,duration,src_bytes,dst_bytes,conn_state,missed_bytes,src_pkts,"
    "src_ip_bytes,dst_pkts,dst_ip_bytes,dns_query,dns_qclass,dns_qtype,dns_rcode,dns_AA,dns_RD,dns_RA,dns_rejected,"
    "ssl_version,ssl_cipher,ssl_resumed,ssl_established,ssl_subject,ssl_issuer,http_trans_depth,http_method,http_uri,"
    "http_version,http_request_body_len,http_response_body_len,http_status_code,http_user_agent,http_orig_mime_types,"
    "http_resp_mime_types,weird_name,weird_addl,weird_notice,label,type"
)
BLANK = dict.fromkeys(HEADER.split(","), "-") | dict.fromkeys(ton_iot.NETWORK_NUMBERS, "0")


def network(root: Path, rows: list[dict[str, str]], name: str = "train_test_network.csv") -> Path:
    """Write a file as the authors do: byte order mark, CRLF, '-' for what does not apply."""
    lines = [HEADER, *(",".join({**BLANK, **row}.values()) for row in rows)]
    (root / name).write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    return root


def flow(host: str, kind: str, **columns: str) -> dict[str, str]:
    return {"src_ip": host, "type": kind, "label": str(int(kind != "normal")), **columns}


def telemetry(root: Path, source: str, header: str, rows: list[str]) -> Path:
    text = "\ufeff" + "\r\n".join([header, *rows]) + "\r\n"
    (root / ton_iot.FILES[source]).write_bytes(text.encode())
    return root


def test_hosts_group_the_flows_and_are_no_feature(tmp_path):
    network(
        tmp_path,
        [
            flow("10.0.0.1", "normal", proto="tcp", duration="1.5", src_port="80"),
            flow("10.0.0.2", "dos", proto="udp", duration="2"),
            flow("10.0.0.1", "xss", proto="udp", duration="0"),
        ],
    )
    first, second = ton_iot.load(tmp_path)
    assert (first.subject, second.subject) == ("10.0.0.1", "10.0.0.2")
    assert first.classes == ("normal", "dos", "xss")
    assert first.labels.tolist() == [0, 2]
    assert first.position.tolist() == [0, 2]
    assert not set(first.channels) & {*ton_iot.IDENTITY, *ton_iot.FREE_TEXT}
    assert len(first.channels) == 32
    assert first.signal[first.channels.index("duration")].tolist() == [1.5, 0.0]
    assert first.categories["proto"] == ("tcp", "udp")
    assert first.signal[first.channels.index("proto")].tolist() == [0, 1]
    assert first.units[first.channels.index("proto")] == "category"
    assert not first.synthetic


def test_a_dash_is_a_category_of_its_own_and_a_missing_number(tmp_path):
    network(tmp_path, [flow("a", "normal", dns_AA="-", src_bytes="-"), flow("a", "normal", dns_AA="T")])
    (recording,) = ton_iot.load(tmp_path)
    assert recording.categories["dns_AA"] == ("-", "T")
    assert np.isnan(recording.signal[recording.channels.index("src_bytes")]).tolist() == [True, False]


def test_each_vector_is_kept_once_with_the_type_of_most_of_its_rows(tmp_path):
    kinds = ["dos", "xss", "xss", "dos", "mitm", "mitm"]
    network(tmp_path, [flow(f"h{i}", kind, duration="12"[i == 5]) for i, kind in enumerate(kinds)])
    kept = ton_iot.load(tmp_path)
    # five equal rows: dos twice, xss twice, mitm once; dos stands first. One row of its own.
    assert [(r.subject, r.position.tolist(), r.classes[r.labels[0]]) for r in kept] == [
        ("h0", [0], "dos"),
        ("h5", [5], "mitm"),
    ]
    assert len(ton_iot.load(tmp_path, deduplicate=False)) == 6


def test_majority_beats_the_first_row():
    rows, types = ton_iot.distinct_vectors(np.array([[1.0, 2.0, 1.0, 1.0], [np.nan] * 4]), np.array(list("abcc")))
    assert rows.tolist() == [0, 1]
    assert types.tolist() == ["c", "b"]


def test_the_binary_target_says_normal_or_attack(tmp_path):
    network(tmp_path, [flow("h", "xss", duration="1"), flow("h", "normal", duration="2")])
    (recording,) = ton_iot.load(tmp_path, target="label")
    assert recording.classes == ("normal", "attack")
    assert recording.labels.tolist() == [1, 0]


def test_free_text_is_a_category_only_when_asked_for(tmp_path):
    network(tmp_path, [flow("h", "xss", dns_query="b.org"), flow("h", "normal", dns_query="a.org")])
    (recording,) = ton_iot.load(tmp_path, channels=["dns_query", "duration"])
    assert recording.channels == ("dns_query", "duration")
    assert recording.signal[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ["src_ip"]}, "never a feature"),
        ({"channels": ["type"]}, "never a feature"),
        ({"channels": ["duratoin"]}, "did you mean 'duration'"),
        ({"channels": []}, "no channel"),
        ({"target": "kind"}, "no TON_IoT target is called 'kind'"),
        ({"source": "netwrok"}, "did you mean 'network'"),
    ],
)
def test_an_option_that_asks_for_what_is_not_there_is_refused(tmp_path, options, message):
    network(tmp_path, [flow("h", "normal")])
    with pytest.raises(ValueError, match=message):
        ton_iot.load(tmp_path, **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (flow("h", "normal", duration="fast"), r"line 3: column 'duration' holds 'fast'"),
        (flow("h", "normal", duration="inf"), r"line 3: column 'duration' holds 'inf'"),
        (flow("h", "injektion"), r"line 3: no attack type is called 'injektion'; did you mean 'injection'"),
        (flow("h", "normal") | {"label": "1"}, r"line 3: label is '1' but type is 'normal'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    network(tmp_path, [flow("h", "normal"), row])
    with pytest.raises(ValueError, match=message):
        ton_iot.load(tmp_path)


def test_a_missing_column_is_named(tmp_path):
    network(tmp_path, [flow("h", "normal")])
    path = tmp_path / "train_test_network.csv"
    path.write_bytes(path.read_bytes().replace(b"conn_state", b"conn_stat"))
    with pytest.raises(ValueError, match="no column 'conn_state'; did you mean 'conn_stat'"):
        ton_iot.load(tmp_path)


@pytest.mark.parametrize("cut", [1, 20])
def test_a_row_of_another_length_is_refused(tmp_path, cut):
    network(tmp_path, [flow("h", "normal"), flow("h", "dos")])
    path = tmp_path / "train_test_network.csv"
    lines = path.read_bytes().split(b"\r\n")
    path.write_bytes(b"\r\n".join([*lines[:2], b",".join(lines[2].split(b",")[:-cut]), b""]))
    with pytest.raises(ValueError, match=f"line 3: the row has {44 - cut} values, but the header names 44"):
        ton_iot.load(tmp_path)
    path.write_bytes(b"\r\n".join([*lines[:2], lines[2] + b",1", b""]))
    with pytest.raises(ValueError, match="line 3: the row has 45 values, but the header names 44"):
        ton_iot.load(tmp_path)


def test_a_compressed_file_cut_short_is_refused(tmp_path):
    network(tmp_path, [flow("h", "normal", duration=str(i)) for i in range(200)])
    path = tmp_path / "train_test_network.csv"
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    (tmp_path / "train_test_network.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short or damaged"):
        ton_iot.load(tmp_path)


def test_files_are_found_at_any_depth_and_two_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train_test_network.csv or .* holds nothing. Get the Train_Test"):
        ton_iot.files(tmp_path)
    deep = tmp_path / "Train_Test_datasets" / "Train_Test_Network_dataset"
    deep.mkdir(parents=True)
    network(deep, [flow("h", "normal")], name="Train_Test_Network.csv")
    assert ton_iot.files(tmp_path) == [deep / "Train_Test_Network.csv"]
    assert ton_iot.load(tmp_path)[0].source == "Train_Test_datasets/Train_Test_Network_dataset/Train_Test_Network.csv"
    network(tmp_path, [flow("h", "normal")])
    with pytest.raises(ValueError, match="2 times"):
        ton_iot.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a folder"):
        ton_iot.load(tmp_path / "nowhere")


def test_the_synthetic_marker_is_carried(tmp_path):
    (tmp_path / "SYNTHETIC").touch()
    network(tmp_path, [flow("h", "normal")])
    assert ton_iot.load(tmp_path)[0].synthetic


def test_spellings_of_a_category_are_one(tmp_path):
    rows = [f"31-Mar-19, 12:00:0{i} ,{i},{text},0,normal" for i, text in enumerate(["high", "low ", "high  ", " LOW"])]
    telemetry(tmp_path, "fridge", "date,time,fridge_temperature,temp_condition,label,type", rows)
    (recording,) = ton_iot.load(tmp_path, source="fridge")
    assert recording.channels == ("fridge_temperature", "temp_condition")
    assert recording.categories == {"temp_condition": ("high", "low")}
    assert recording.signal.tolist() == [[0, 1, 2, 3], [0, 1, 0, 1]]
    assert recording.subject == "fridge"


def test_a_phone_signal_of_0_and_1_or_of_true_and_false_is_the_same(tmp_path):
    states = ["true", "false  ", "1", "0", "TRUE"]
    rows = [f"31-Mar-19,12:00:0{i},closed,{text},0,normal" for i, text in enumerate(states)]
    telemetry(tmp_path, "garage_door", "date,time,door_state,sphone_signal,label,type", rows)
    (recording,) = ton_iot.load(tmp_path, source="garage_door")
    assert recording.categories["sphone_signal"] == ("0", "1")
    assert recording.signal[1].tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("source", list(ton_iot.TELEMETRY))
def test_all_seven_services_are_read(tmp_path, source):
    columns = ton_iot.TELEMETRY[source]
    row = ",".join(["1-Apr-19", "12:00:00", *("on" if unit == "category" else "3.5" for unit in columns.values())])
    telemetry(tmp_path, source, ",".join(["date", "time", *columns, "label", "type"]), [row + ",0,normal"])
    (recording,) = ton_iot.load(tmp_path, source=source)
    assert recording.channels == tuple(columns)


def test_telemetry_is_in_order_of_time_inside_each_type_and_a_silence_is_a_gap(tmp_path):
    rows = [
        "25-Apr-19,10:00:00,1,0,0,1,ddos",
        "31-Mar-19,10:10:01,4,0,0,0,normal",
        "31-Mar-19,10:00:01,2,0,0,0,normal",
        "31-Mar-19,10:00:01,3,0,0,0,normal",
        "31-Mar-19,10:00:00,1,0,0,0,normal",
        "25-Apr-19,10:00:01,2,0,0,1,ddos",
    ]
    telemetry(tmp_path, "weather", "date,time,temperature,pressure,humidity,label,type", rows)
    normal, ddos = ton_iot.load(tmp_path, source="weather")
    assert normal.signal[0].tolist() == [1, 2, 3, 4]
    assert normal.position.tolist() == [0, 1, 2, 4]  # ten minutes before the last row
    assert ddos.signal[0].tolist() == [1, 2]
    assert ddos.position.tolist() == [6, 7]
    windows = slide_all([normal, ddos], seconds=2)
    assert windows.start.tolist() == [0, 6]


def test_a_date_of_another_form_is_refused(tmp_path):
    telemetry(
        tmp_path,
        "weather",
        "date,time,temperature,pressure,humidity,label,type",
        ["2019-04-25,10:00:00,1,0,0,1,ddos"],
    )
    with pytest.raises(ValueError, match=r"line 2: date and time are '2019-04-25 10:00:00'"):
        ton_iot.load(tmp_path, source="weather")


@pytest.fixture(scope="module")
def real_network(real_data):
    return ton_iot.load(real_data / "ton_iot", deduplicate=False)


@pytest.mark.real
def test_the_published_network_file_is_read_whole(real_network):
    assert sum(r.n_samples for r in real_network) == 211_043
    assert len(real_network) == 51
    labels = np.concatenate([r.labels for r in real_network])
    sizes = dict(zip(real_network[0].classes, np.bincount(labels).tolist(), strict=True))
    assert sizes == dict.fromkeys(ton_iot.TYPES, 20_000) | {"normal": 50_000, "mitm": 1_043}


@pytest.mark.real
def test_the_published_network_file_repeats_itself_as_often_as_pandas_counts(real_data, real_network):
    every = [*real_network[0].channels, *ton_iot.FREE_TEXT]
    kept = ton_iot.load(real_data / "ton_iot", channels=every)
    table = pd.read_csv(real_data / "ton_iot" / "train_test_network.csv.gz", dtype=str, encoding="utf-8-sig")
    assert table.duplicated([*every, "type"]).sum() == 117_118
    types = table.groupby(every, dropna=False)["type"].agg(["nunique"])["nunique"]
    assert (len(types), int((types > 1).sum())) == (93_726, 162)
    # without addresses and ports 93,726 vectors are left, and each is kept once
    assert sum(r.n_samples for r in kept) == 93_726
    vectors = pd.DataFrame(np.concatenate([r.signal for r in kept], axis=1).T)
    assert not vectors.duplicated().any()


@pytest.mark.real
@pytest.mark.parametrize(
    ("source", "rows", "n_types"),
    [("fridge", 39_944, 7), ("gps_tracker", 38_960, 8), ("modbus", 31_106, 6), ("weather", 39_260, 8)],
)
def test_published_telemetry_is_read_whole_and_no_window_holds_two_types(real_data, source, rows, n_types):
    recordings = ton_iot.load(real_data / "ton_iot", source=source)
    assert sum(r.n_samples for r in recordings) == rows
    assert len(recordings) == len(recordings[0].classes) == n_types
    assert all(len(set(r.labels)) == 1 for r in recordings)
    assert all((np.diff(r.position) >= 1).all() for r in recordings)
    windows = slide_all(recordings, seconds=30)
    assert set(windows.y) == set(range(n_types))
