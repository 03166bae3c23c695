"""Write made-up TON_IoT Train_Test files: the network flows and the telemetry of seven services.

The traps of the original are laid out again: addresses that give the attack away, flows that repeat exactly, a few
vectors that carry more than one type, category spellings and clock times that tell normal from attack.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hcqsfl.data.synthetic.folder import Progress, SyntheticFolder
from hcqsfl.data.synthetic.physiology import wander
from hcqsfl.randomness import numpy_generator

SIZES = {"tiny": {"scale": 0.01}, "small": {"scale": 0.1}, "full": {"scale": 1.0}}

NETWORK_FILE = "Train_Test_Network_dataset/train_test_network.csv"

NETWORK_COLUMNS = (
    "src_ip", "src_port", "dst_ip", "dst_port", "proto", "service", "duration", "src_bytes", "dst_bytes", "conn_state",
    "missed_bytes", "src_pkts", "src_ip_bytes", "dst_pkts", "dst_ip_bytes", "dns_query", "dns_qclass", "dns_qtype",
    "dns_rcode", "dns_AA", "dns_RD", "dns_RA", "dns_rejected", "ssl_version", "ssl_cipher", "ssl_resumed",
    "ssl_established", "ssl_subject", "ssl_issuer", "http_trans_depth", "http_method", "http_uri", "http_version",
    "http_request_body_len", "http_response_body_len", "http_status_code", "http_user_agent", "http_orig_mime_types",
    "http_resp_mime_types", "weird_name", "weird_addl", "weird_notice", "label", "type",
)  # fmt: skip
"""The header of the official network file, in its order."""

_ZERO = {"dns_qclass", "dns_qtype", "dns_rcode", "http_request_body_len", "http_response_body_len", "http_status_code"}
"""Columns that hold 0, not ``-``, where the protocol does not apply."""

NETWORK_ROWS = {
    "backdoor": 20_000, "ddos": 20_000, "dos": 20_000, "injection": 20_000, "mitm": 1_043, "normal": 50_000,
    "password": 20_000, "ransomware": 20_000, "scanning": 20_000, "xss": 20_000,
}  # fmt: skip


@dataclass(frozen=True)
class _Flow:
    """One kind of connection, as Zeek would log it.

    Sizes are lognormal around a median and rounded to a common grid, as pages and requests come in few sizes.
    """

    weight: float
    proto: str
    service: str
    state: str
    ports: tuple[int, ...]
    seconds: tuple[float, float] | None = None  # median, log spread; None where Zeek logs 0
    packets: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (0, 0))  # source and destination, least and most
    payload: tuple[float, float] = (0.0, 0.0)  # median bytes, source and destination
    spread: float = 0.3
    headers: tuple[int, ...] = (52, 54)  # bytes a packet


def _dns(weight: float, seconds: float, spread: float = 1.0, state: str = "SF", size: float = 45.0) -> _Flow:
    answer = 2.5 * size if state == "SF" else 0.0
    asked = ((1, 3), (1, 3)) if state == "SF" else ((1, 2), (0, 0))
    return _Flow(weight, "udp", "dns", state, (53,), (seconds, spread), asked, (size, answer), 0.5, (28,))


def _http(
    weight: float,
    seconds: float,
    spread: float,
    payload: tuple[float, float],
    state: str = "SF",
    headers: tuple[int, ...] = (52, 54),
) -> _Flow:
    packets = ((4, 6), (3, 9)) if state == "SF" else ((3, 8), (2, 8))
    return _Flow(weight, "tcp", "http", state, (80,), (seconds, spread), packets, payload, 0.42, headers)


_OWN = (40, 41, 42, 43, 44, 52)
"""Bytes of header a packet of the test bed's own clients; the attackers' system sends longer ones."""

_FLOWS: Mapping[str, tuple[_Flow, ...]] = {
    "backdoor": (
        _Flow(0.965, "tcp", "-", "REJ", (8080, 80), (0.00016, 0.9), ((1, 1), (1, 1)), headers=(48,)),
        _Flow(0.012, "tcp", "-", "REJ", (8080, 80), (0.00013, 0.4), ((1, 1), (1, 1)), headers=(40, 44)),
        _Flow(0.008, "tcp", "smb", "RSTR", (445,), (0.05, 0.8), ((6, 7), (4, 5)), (4200.0, 40.0), 0.1),
        _Flow(0.010, "tcp", "-", "SF", (4444, 8080), (20.0, 2.0), ((4, 60), (3, 60)), (900.0, 4000.0), 1.5),
        _Flow(0.005, "tcp", "-", "S1", (4444,), (200.0, 2.0), ((4, 60), (3, 60)), (900.0, 4000.0), 1.5),
    ),
    "ddos": (
        _Flow(0.35, "tcp", "-", "S1", (80, 443), (0.0002, 0.7), ((2, 2), (1, 1)), headers=(56, 60)),
        _Flow(0.14, "tcp", "-", "S1", (80, 443), (0.01, 2.2), ((1, 3), (1, 2)), headers=(56, 60)),
        _dns(0.25, 0.000005, 0.7, size=54.0),
        _Flow(0.15, "tcp", "-", "S3", (80, 443), (12.0, 1.3), ((2, 4), (1, 3)), headers=(52, 56)),
        _http(0.07, 2.0, 1.1, (190.0, 800.0)),
        _http(0.03, 25.0, 1.2, (260.0, 900.0), "S3"),
        _Flow(0.01, "tcp", "-", "S0", (80, 443), None, ((1, 2), (0, 0)), headers=(40, 60)),
    ),
    "dos": (
        _Flow(0.80, "tcp", "-", "REJ", tuple(range(1, 90)), (0.00008, 1.9), ((1, 2), (1, 1)), headers=(40,)),
        _Flow(0.03, "tcp", "-", "REJ", tuple(range(1, 90)), (0.0001, 0.6), ((1, 1), (1, 1)), headers=(44, 48)),
        _dns(0.075, 0.0006, 1.2, size=30.0),
        _Flow(0.05, "tcp", "-", "RSTO", (22, 80), (0.01, 1.0), ((2, 4), (1, 2)), headers=(40, 44)),
        _Flow(0.04, "tcp", "-", "S0", (22, 53), None, ((1, 1), (0, 0)), headers=(40,)),
        _http(0.005, 1.5, 1.5, (200.0, 1500.0)),
    ),
    "injection": (
        _http(0.80, 0.25, 1.3, (260.0, 3200.0)),
        _Flow(0.08, "tcp", "-", "SF", (80,), (0.2, 1.3), ((3, 6), (2, 6)), (50.0, 40.0), 0.5),
        _dns(0.035, 0.05, 0.8, size=38.0),
        _http(0.05, 2.0, 1.2, (260.0, 3000.0), "S3"),
        _http(0.035, 4.0, 1.5, (260.0, 3000.0), "S1"),
    ),
    "mitm": (
        _dns(0.52, 0.02, 1.0, size=84.0),
        _Flow(0.25, "tcp", "ssl", "SF", (443,), (20.0, 1.0), ((9, 40), (8, 40)), (2200.0, 4000.0), 0.5),
        _Flow(0.06, "icmp", "-", "OTH", (0, 1, 3), (2.0, 2.0), ((1, 8), (0, 2)), (70.0, 0.0), 0.6, (28,)),
        _Flow(0.08, "tcp", "-", "SF", (443, 80), (10.0, 1.4), ((6, 12), (4, 12)), (170.0, 300.0), 0.6),
        _http(0.05, 1.0, 1.6, (480.0, 700.0)),
        _Flow(0.04, "tcp", "ssl", "RSTR", (443,), (60.0, 1.2), ((9, 40), (8, 40)), (1300.0, 4200.0), 0.8),
    ),
    "normal": (
        _Flow(0.20, "udp", "dns", "S0", (53, 5353), None, ((0, 2), (0, 0)), (0.0, 0.0), 0.0, (59, 65)),
        _dns(0.24, 0.3, 0.3, state="S0", size=130.0),
        _Flow(0.13, "tcp", "-", "S0", (1880, 10502), (0.00003, 0.3), ((1, 2), (0, 0)), headers=(52, 60)),
        _Flow(0.12, "tcp", "-", "OTH", (51782, 80), (0.0004, 1.5), ((118, 120), (0, 0)), headers=(40,)),
        _dns(0.09, 0.003, 1.5, size=62.0),
        _Flow(0.09, "udp", "dns", "SHR", (53,), (0.0003, 1.0), ((0, 0), (1, 2)), (0.0, 89.0), 0.15, (28,)),
        _Flow(0.04, "udp", "-", "S0", (1900, 137), (3.0, 2.0), ((1, 5), (0, 0)), (170.0, 0.0), 0.7, (28,)),
        _Flow(0.03, "tcp", "-", "SF", (80, 1883), (1.0, 2.2), ((3, 12), (2, 12)), (320.0, 700.0), 0.8, _OWN),
        _http(0.02, 0.3, 1.8, (110.0, 1100.0), headers=_OWN),
        _Flow(0.012, "tcp", "ssl", "SF", (443,), (4.0, 2.0), ((9, 40), (8, 40)), (800.0, 5000.0), 0.6, _OWN),
        _Flow(0.02, "tcp", "-", "REJ", (80, 443), (0.0001, 0.8), ((1, 1), (1, 1)), headers=(52, 66)),
        _Flow(0.002, "icmp", "-", "OTH", (0, 3), (2.0, 2.0), ((1, 3), (0, 2)), (50.0, 0.0), 0.6, (28,)),
        _Flow(0.015, "tcp", "-", "S1", (1883, 443), (60.0, 2.0), ((2, 60), (1, 60)), (300.0, 600.0), 1.4, _OWN),
    ),
    "password": (
        _http(0.69, 0.004, 0.9, (155.0, 1000.0)),
        _Flow(0.225, "tcp", "-", "REJ", (21, 80), (0.00002, 0.5), ((1, 1), (1, 1)), headers=(60,)),
        _Flow(0.05, "tcp", "ftp", "SF", (21,), (3.0, 0.6), ((8, 14), (8, 16)), (90.0, 300.0), 0.4),
        _Flow(0.02, "tcp", "ftp", "RSTR", (21,), (3.0, 0.9), ((6, 12), (6, 14)), (60.0, 250.0), 0.4),
        _dns(0.009, 0.0015, 1.3, size=40.0),
        _Flow(0.006, "tcp", "-", "S0", (80,), (3.0, 0.5), ((1, 3), (0, 0)), headers=(60,)),
    ),
    "ransomware": (
        _Flow(0.70, "tcp", "-", "OTH", (445, 4444), None, ((1, 1), (0, 0)), headers=tuple(range(41, 241))),
        _Flow(0.12, "tcp", "-", "OTH", (445,), None, ((0, 0), (1, 1)), headers=tuple(range(40, 130, 2))),
        _Flow(0.08, "tcp", "-", "S0", (445, 135), None, ((1, 1), (0, 0)), headers=(52,)),
        _Flow(0.08, "tcp", "-", "SH", (445,), None, ((1, 1), (0, 0)), headers=(46, 62)),
        _Flow(0.02, "tcp", "gssapi", "OTH", (445,), None, ((1, 1), (0, 0)), (0.0, 0.0), 0.0, (208, 210)),
    ),
    "scanning": (
        _Flow(0.75, "tcp", "-", "S0", tuple(range(1, 1000)), None, ((1, 1), (0, 0)), headers=(44,)),
        _Flow(0.02, "tcp", "-", "S0", tuple(range(1, 1000)), (0.4, 1.2), ((1, 2), (0, 0)), headers=(44, 60)),
        _Flow(0.185, "tcp", "-", "REJ", tuple(range(1, 1000)), (0.05, 1.5), ((1, 1), (1, 1)), headers=(44,)),
        _dns(0.03, 0.0002, 1.2, size=60.0),
        _Flow(0.010, "tcp", "-", "RSTO", (22, 993), (0.05, 1.2), ((2, 4), (1, 2)), headers=(44,)),
        _Flow(0.005, "tcp", "ssl", "SF", (443, 993), (3.0, 1.5), ((7, 14), (6, 12)), (700.0, 2500.0), 0.8),
    ),
    "xss": (
        _Flow(0.53, "tcp", "-", "SH", (80,), None, ((1, 1), (0, 0)), headers=(46, 52)),
        _http(0.13, 28.0, 1.1, (2000.0, 900.0), "S3"),
        _Flow(0.09, "tcp", "-", "S0", (80,), (2.0, 1.5), ((1, 4), (0, 0)), headers=(52, 60)),
        _dns(0.07, 0.25, 0.8, size=38.0),
        _http(0.08, 12.0, 1.3, (1100.0, 1500.0), "RSTR"),
        _http(0.05, 3.0, 1.2, (800.0, 1200.0)),
        _Flow(0.03, "tcp", "-", "SHR", (80,), (10.0, 1.5), ((0, 0), (1, 6)), (0.0, 1200.0), 0.8),
        _http(0.02, 10.0, 1.4, (900.0, 1500.0), "S1"),
    ),
}  # fmt: skip

# who sends what, by last byte of 192.168.1.x: the hosts of the test bed each played one part or few
_SENDERS: Mapping[str, Mapping[int, float]] = {
    "backdoor": {193: 0.993, 33: 0.0045, 37: 0.0025},
    "ddos": {30: 0.833, 31: 0.166, 38: 0.001},
    "dos": {30: 0.934, 39: 0.035, 31: 0.031},
    "injection": {31: 0.607, 30: 0.393},
    "mitm": {34: 0.506, 31: 0.494},
    "normal": {152: 0.44, 195: 0.10, 180: 0.10, 190: 0.10, 49: 0.08, 79: 0.08, 186: 0.05, 46: 0.04, 193: 0.039},
    "password": {31: 0.51, 30: 0.49},
    "ransomware": {33: 0.47, 37: 0.37, 193: 0.16},
    "scanning": {30: 0.433, 32: 0.393, 31: 0.174},
    "xss": {32: 0.968, 36: 0.032},
}
# share of name queries that want recursion, and of answers that offer it: each type asked other resolvers
_RECURSION: Mapping[str, tuple[float, float]] = {
    "backdoor": (1.0, 0.0), "ddos": (1.0, 0.01), "dos": (0.98, 0.02), "injection": (1.0, 0.95), "mitm": (1.0, 0.97),
    "normal": (0.15, 0.02), "password": (1.0, 0.93), "ransomware": (1.0, 0.0), "scanning": (0.9, 0.1),
    "xss": (1.0, 0.9),
}  # fmt: skip
_RECEIVERS = (190, 193, 152, 195, 184, 33, 1, 194, 49, 133)

_SERVICES = (
    "Fridge", "Garage_Door", "GPS_Tracker", "Modbus", "Motion_Light", "Thermostat", "Weather",
)  # fmt: skip

# day of April (0 is 31 March) and hour at which each type was recorded
_WHEN = {
    "ddos": (25, 17.5), "backdoor": (28, 7.0), "injection": (25, 8.5), "normal": (0, 12.6), "password": (26, 13.6),
    "ransomware": (28, 3.9), "scanning": (23, 20.3), "xss": (27, 4.9),
}  # fmt: skip
_TELEMETRY_ROWS = {
    "ddos": 5000, "backdoor": 5000, "injection": 5000, "normal": 15_000, "password": 5000, "ransomware": 2850,
    "scanning": 529, "xss": 866,
}  # fmt: skip


def write(root: Path, *, seed: int = 0, progress: Progress | None = None, scale: float = 0.1) -> list[Path]:
    """Write the network file and the seven telemetry files under the names of the Train_Test sets.

    Args:
        root: folder to write into.
        seed: root seed.
        progress: called after each file.
        scale: rows of each type as a share of the original's; 1 gives 211,043 flows.

    Returns:
        The eight files.

    Raises:
        ValueError: ``scale`` is out of range, or ``root`` holds files of another origin.

    Source:
        Columns, counts and mixture of connections: Moustafa (2021), Sustainable Cities and Society 72, 102994; the
        telemetry: Alsaedi et al. (2020), IEEE Access 8, 165130.
    """
    if not 0.001 <= scale <= 2:
        raise ValueError(f"a scale of {scale} was asked for; 0.001 to 2 times the original's rows are possible")
    folder = SyntheticFolder(root, "ton_iot", seed, {"scale": scale}, 1 + len(_SERVICES), progress)
    network = pd.concat(
        [
            _flows(kind, _scaled(rows, scale), numpy_generator(seed, "synthetic ton_iot network", kind))
            for kind, rows in NETWORK_ROWS.items()
        ]
    )
    _save(network, folder.path(NETWORK_FILE))
    folder.tell()
    for service in _SERVICES:
        table = _telemetry(service, scale, numpy_generator(seed, "synthetic ton_iot", service))
        _save(table, folder.path(f"Train_Test_IoT_dataset/Train_Test_IoT_{service}.csv"))
        folder.tell()
    return folder.finish()


def _scaled(rows: int, scale: float) -> int:
    return max(12, round(rows * scale))


def _save(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")


def _flows(kind: str, n_rows: int, generator: np.random.Generator) -> pd.DataFrame:
    """Return ``n_rows`` connections of one type, all columns as text."""
    flows = _FLOWS[kind]
    weights = np.array([flow.weight for flow in flows])
    which = generator.choice(len(flows), n_rows, p=weights / weights.sum())
    table = pd.DataFrame({name: np.full(n_rows, "0" if name in _ZERO else "-", object) for name in NETWORK_COLUMNS})
    for index, flow in enumerate(flows):
        rows = np.flatnonzero(which == index)
        for name, values in _connections(flow, _RECURSION[kind], len(rows), generator).items():
            table.iloc[rows, NETWORK_COLUMNS.index(name)] = values
    hosts, shares = zip(*_SENDERS[kind].items(), strict=True)
    table["src_ip"] = _addresses(generator.choice(hosts, n_rows, p=np.array(shares) / sum(shares)))
    # each type went for its own few targets, in an order of preference
    preference = np.roll(_RECEIVERS, list(_FLOWS).index(kind))[:5]
    table["dst_ip"] = _addresses(generator.choice(preference, n_rows, p=[0.5, 0.25, 0.15, 0.07, 0.03]))
    asks = (table["service"] == "dns").to_numpy()
    suffix = "iot.example.com" if kind == "normal" else f"{kind}.example.net"
    table.loc[asks, "dns_query"] = [f"host{n}.{suffix}" for n in generator.integers(0, 40, asks.sum())]
    _annotate(table, kind, generator)
    table["label"] = "0" if kind == "normal" else "1"
    table["type"] = kind
    return table


def _addresses(last_bytes: np.ndarray) -> list[str]:
    return [f"192.168.1.{last}" for last in last_bytes]


def _connections(
    flow: _Flow, recursion: tuple[float, float], n_rows: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the columns that a kind of connection settles, as text."""
    (least, most), (least_back, most_back) = flow.packets
    sent = generator.integers(least, most + 1, n_rows)
    received = generator.integers(least_back, most_back + 1, n_rows)
    source = np.where(sent > 0, _sizes(flow.payload[0], flow.spread, n_rows, generator), 0)
    back = np.where(received > 0, _sizes(flow.payload[1], flow.spread, n_rows, generator), 0)
    header = generator.choice(flow.headers, n_rows)
    lost = np.where(generator.random(n_rows) < 0.01 * (back > 500), back // 2, 0)
    columns = {
        "proto": np.full(n_rows, flow.proto, object),
        "service": np.full(n_rows, flow.service, object),
        "conn_state": np.full(n_rows, flow.state, object),
        "src_port": generator.integers(32768, 61000, n_rows),
        "dst_port": generator.choice(flow.ports, n_rows),
        "duration": _durations(flow.seconds, n_rows, generator),
        "src_bytes": source,
        "dst_bytes": back,
        "missed_bytes": lost,
        "src_pkts": sent,
        "src_ip_bytes": source + header * sent,
        "dst_pkts": received,
        "dst_ip_bytes": back + header * received,
    }
    if flow.service == "dns":
        failed = generator.random(n_rows) < 0.2
        columns |= {
            "dns_qclass": np.full(n_rows, "1", object),
            "dns_qtype": generator.choice([1, 28, 12], n_rows, p=[0.7, 0.22, 0.08]),
            "dns_rcode": np.where(failed, "3", "0"),
            "dns_AA": generator.choice(["F", "T"], n_rows, p=[0.96, 0.04]),
            "dns_RD": np.where(generator.random(n_rows) < recursion[0], "T", "F"),
            "dns_RA": np.where(generator.random(n_rows) < recursion[1], "T", "F"),
            "dns_rejected": np.where(failed, "T", "F"),
        }
    return {name: values.astype(str).astype(object) for name, values in columns.items()}


def _sizes(median: float, spread: float, n_rows: int, generator: np.random.Generator) -> np.ndarray:
    """Return whole bytes, on a grid of steps of 2 %, so that flows repeat."""
    if median == 0:
        return np.zeros(n_rows, dtype=np.int64)
    steps = np.round((np.log(median) + spread * generator.standard_normal(n_rows)) / 0.02)
    return np.round(np.exp(0.02 * steps)).astype(np.int64)


def _durations(seconds: tuple[float, float] | None, n_rows: int, generator: np.random.Generator) -> np.ndarray:
    """Return text in s with up to six decimals, as Zeek's log has it."""
    if seconds is None:
        return np.full(n_rows, "0", object)
    median, spread = seconds
    micros = np.round(1e6 * median * np.exp(spread * generator.standard_normal(n_rows))).astype(np.int64)
    return np.array([f"{n // 10**6}.{n % 10**6:06d}".rstrip("0").rstrip(".") for n in micros], object)


def _annotate(table: pd.DataFrame, kind: str, generator: np.random.Generator) -> None:
    """Fill in the few rows for which Zeek logged the content of a TLS or HTTP exchange, or an oddity."""
    draw = generator.random(len(table))
    seen = table.index[(table["service"] == "ssl").to_numpy() & (draw < 0.4)]
    table.loc[seen, "ssl_version"] = generator.choice(["TLSv12", "TLSv13"], len(seen), p=[0.6, 0.4])
    table.loc[seen, "ssl_cipher"] = "TLS_AES_128_GCM_SHA256"
    table.loc[seen, ["ssl_resumed", "ssl_established"]] = ["F", "T"]
    seen = table.index[(table["service"] == "http").to_numpy() & (draw < (0.2 if kind == "normal" else 0.001))]
    table.loc[seen, ["http_trans_depth", "http_method", "http_version", "http_status_code"]] = [
        "1",
        "GET",
        "1.1",
        "200",
    ]
    table.loc[seen, "http_uri"] = "/index.html" if kind == "normal" else f"/{kind}.php"
    table.loc[seen, "http_user_agent"] = "Updater/1.0" if kind == "normal" else "Ruby"
    table.loc[seen, "http_resp_mime_types"] = "text/html"
    seen = table.index[draw > 0.993] if kind == "normal" else table.index[:0]
    table.loc[seen, "weird_name"] = generator.choice(["DNS_RR_unknown_type", "data_before_established"], len(seen))
    table.loc[seen, "weird_notice"] = "F"


def _telemetry(service: str, scale: float, generator: np.random.Generator) -> pd.DataFrame:
    parts = []
    for kind, rows in _TELEMETRY_ROWS.items():
        n_rows = _scaled(rows, scale)
        is_attack = kind != "normal"
        date, time = _clock(service, kind, n_rows, generator)
        values = _READINGS[service](kind, n_rows, generator)
        parts.append(pd.DataFrame({"date": date, "time": time, **values, "label": int(is_attack), "type": kind}))
    return pd.concat(parts)


def _clock(service: str, kind: str, n_rows: int, generator: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return dates and times of rows some seconds apart, padded with blanks in each file's own way."""
    day, hour = _WHEN[kind]
    start = pd.Timestamp("2019-03-31") + pd.Timedelta(days=day, hours=hour)
    moments = start + pd.to_timedelta(np.cumsum(generator.choice([0, 1, 4, 5, 5, 10], n_rows)), unit="s")
    pad = " " * (_SERVICES.index(service) % 3)
    dates = [f"{moment.day}-{moment:%b-%y}" for moment in moments]
    return dates, [f"{pad if n % 3 else ''}{moment:%H:%M:%S}{pad}" for n, moment in enumerate(moments)]


def _spelled(words: np.ndarray, kind: str, generator: np.random.Generator) -> np.ndarray:
    """Return ``words`` with the blanks that trail them: the normal rows were exported otherwise than the attacks."""
    blanks = generator.choice(["  ", " "], len(words)) if kind == "normal" else np.full(len(words), "")
    return np.char.add(words.astype(str), blanks)


_Values = Mapping[str, np.ndarray]


def _fridge(kind: str, n_rows: int, generator: np.random.Generator) -> _Values:
    temperature = generator.integers(20, 281, n_rows) / 20  # 1 to 14 in steps of 0.05; no type stands out
    return {
        "fridge_temperature": np.array([f"{t:g}" for t in temperature]),
        "temp_condition": _spelled(np.where(temperature > 6.0, "high", "low"), kind, generator),
    }


def _garage_door(kind: str, n_rows: int, generator: np.random.Generator) -> _Values:
    is_open = _dwelling(n_rows, 40, generator)
    signal = np.where(is_open, "true", "false") if kind != "normal" else np.where(is_open, "1", "0")
    return {
        "door_state": _spelled(np.where(is_open, "open", "closed"), kind, generator),
        "sphone_signal": _spelled(signal, kind, generator),
    }


def _gps_tracker(kind: str, n_rows: int, generator: np.random.Generator) -> _Values:
    centre, span = {
        "ddos": (130, 70), "backdoor": (88, 28), "injection": (73, 26), "normal": (40, 30), "password": (45, 32),
        "ransomware": (21, 12), "scanning": (150, 32), "xss": (20, 12),
    }[kind]  # fmt: skip
    latitude = np.abs(centre + wander(n_rows, 200.0, span, generator, rate=1.0))
    longitude = 10 + np.abs(1.02 * latitude + wander(n_rows, 50.0, 1.0, generator, rate=1.0))
    return {
        "latitude": np.array([f"{v:.10g}" for v in latitude]),
        "longitude": np.array([f"{v:.10g}" for v in longitude]),
    }


def _modbus(kind: str, n_rows: int, generator: np.random.Generator) -> _Values:
    # registers hold a value for a few rows; scanning and xss read at other times, so theirs change more often
    hold = {"scanning": 0.45, "xss": 0.57, "password": 0.65}.get(kind, 0.73)
    fresh = generator.random(n_rows) > hold
    fresh[0] = True
    step = np.cumsum(fresh) - 1
    registers = generator.integers(0, 65536, (4, fresh.sum()))[:, step]
    names = ("FC1_Read_Input_Register", "FC2_Read_Discrete_Value", "FC3_Read_Holding_Register", "FC4_Read_Coil")
    return dict(zip(names, registers, strict=True))


def _motion_light(kind: str, n_rows: int, generator: np.random.Generator) -> _Values:
    moves = _dwelling(n_rows, 15, generator)
    return {
        "motion_status": moves.astype(int),
        "light_status": np.char.add(" ", _spelled(np.where(moves, "on", "off"), kind, generator)),
    }


def _thermostat(kind: str, n_rows: int, generator: np.random.Generator) -> _Values:
    temperature = 27 + wander(n_rows, 300.0, 1.5, generator, rate=1.0)
    return {
        "current_temperature": np.array([f"{t:.7g}" for t in temperature]),
        "thermostat_status": _dwelling(n_rows, 60, generator).astype(int),
    }


def _weather(kind: str, n_rows: int, generator: np.random.Generator) -> _Values:
    temperature, spread, pressure, jitter = {
        "ddos": (39.0, 5.5, -0.3, 4.5), "backdoor": (35.3, 6.0, 0.4, 4.0), "injection": (36.3, 7.5, -0.1, 4.2),
        "normal": (35.1, 8.5, 1.0, 0.65), "password": (32.4, 8.3, 3.1, 2.3), "ransomware": (35.4, 6.9, 1.5, 2.1),
        "scanning": (27.1, 4.8, -4.8, 1.5), "xss": (30.3, 7.5, 0.7, 1.6),
    }[kind]  # fmt: skip
    columns = {
        "temperature": temperature + wander(n_rows, 3.0, spread, generator, rate=1.0),
        "pressure": pressure + wander(n_rows, 3.0, jitter, generator, rate=1.0),
        "humidity": np.clip(np.abs(50 + wander(n_rows, 3.0, 28.0, generator, rate=1.0)), 0.3, 99.9),
    }
    return {name: np.array([f"{v:.10g}" for v in values]) for name, values in columns.items()}


def _dwelling(n_rows: int, rows: int, generator: np.random.Generator) -> np.ndarray:
    """Return a boolean that flips every ``rows`` rows on average."""
    return np.asarray(np.cumsum(generator.random(n_rows) < 1 / rows) % 2 == 1)


_READINGS = {
    "Fridge": _fridge, "Garage_Door": _garage_door, "GPS_Tracker": _gps_tracker, "Modbus": _modbus,
    "Motion_Light": _motion_light, "Thermostat": _thermostat, "Weather": _weather,
}  # fmt: skip
