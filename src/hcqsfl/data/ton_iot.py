"""TON_IoT: labelled network flows, and the readings of seven IoT services, of the Train_Test sets.

The network file has no clock and is sorted by attack, so its rows are single flows, grouped by the host that sent them.
Addresses, ports and free text name the hosts of the test bed and so the attack: they are never features. More than half
of the remaining rows repeat another one exactly; each distinct vector is kept once.

The telemetry files are time series. Their date and time separate normal from every attack and are never features
either: they only put the rows of one attack type in order.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from hcqsfl.data.locate import found, inside
from hcqsfl.data.recording import Recording, is_synthetic
from hcqsfl.data.tables import numbers, read_strings, require_columns
from hcqsfl.registry import lookup, suggest

TITLE = "TON_IoT Train_Test: network flows and IoT telemetry under nine attacks"
HOMEPAGE = "https://research.unsw.edu.au/projects/toniot-datasets"
LICENCE = (
    "Free for academic research, in perpetuity; commercial use needs the agreement of the authors (UNSW Canberra). "
    "Publications must cite the data set's papers."
)
CITATION = (
    "N. Moustafa (2021), A new distributed architecture for evaluating AI-based security systems at the edge: Network "
    "TON_IoT datasets, Sustainable Cities and Society 72, 102994. A. Alsaedi, N. Moustafa, Z. Tari, A. Mahmood and "
    "A. Anwar (2020), TON_IoT telemetry dataset, IEEE Access 8, 165130-165150."
)

Source = Literal["network", "fridge", "garage_door", "gps_tracker", "modbus", "motion_light", "thermostat", "weather"]
Target = Literal["type", "label"]

FILES: Mapping[str, str] = {
    "network": "train_test_network.csv",
    "fridge": "Train_Test_IoT_Fridge.csv",
    "garage_door": "Train_Test_IoT_Garage_Door.csv",
    "gps_tracker": "Train_Test_IoT_GPS_Tracker.csv",
    "modbus": "Train_Test_IoT_Modbus.csv",
    "motion_light": "Train_Test_IoT_Motion_Light.csv",
    "thermostat": "Train_Test_IoT_Thermostat.csv",
    "weather": "Train_Test_IoT_Weather.csv",
}

TYPES = ("normal", "backdoor", "ddos", "dos", "injection", "mitm", "password", "ransomware", "scanning", "xss")

IDENTITY = ("ts", "src_ip", "src_port", "dst_ip", "dst_port", "date", "time", "label", "type")
"""Columns that say who, where, when or what, and so are never features."""

FREE_TEXT = ("dns_query", "ssl_subject", "ssl_issuer", "http_uri", "http_user_agent", "weird_addl")
"""Text that names the test bed's servers and tools; left out, features only when asked for by name."""

NETWORK_NUMBERS: Mapping[str, str] = {
    "duration": "s",
    "src_bytes": "byte",
    "dst_bytes": "byte",
    "missed_bytes": "byte",
    "src_pkts": "packet",
    "src_ip_bytes": "byte",
    "dst_pkts": "packet",
    "dst_ip_bytes": "byte",
    "http_request_body_len": "byte",
    "http_response_body_len": "byte",
}

NETWORK_CATEGORIES = (
    "proto",
    "service",
    "conn_state",
    "dns_qclass",
    "dns_qtype",
    "dns_rcode",
    "dns_AA",
    "dns_RD",
    "dns_RA",
    "dns_rejected",
    "ssl_version",
    "ssl_cipher",
    "ssl_resumed",
    "ssl_established",
    "http_trans_depth",
    "http_method",
    "http_version",
    "http_status_code",
    "http_orig_mime_types",
    "http_resp_mime_types",
    "weird_name",
    "weird_notice",
)
"""Codes and flags, ``-`` among their values where the protocol does not apply."""

TELEMETRY: Mapping[str, Mapping[str, str]] = {
    "fridge": {"fridge_temperature": "degC", "temp_condition": "category"},
    "garage_door": {"door_state": "category", "sphone_signal": "category"},
    "gps_tracker": {"latitude": "deg", "longitude": "deg"},
    "modbus": {
        "FC1_Read_Input_Register": "register",
        "FC2_Read_Discrete_Value": "register",
        "FC3_Read_Holding_Register": "register",
        "FC4_Read_Coil": "register",
    },
    "motion_light": {"motion_status": "category", "light_status": "category"},
    "thermostat": {"current_temperature": "degC", "thermostat_status": "category"},
    "weather": {"temperature": "degC", "pressure": "kPa", "humidity": "%"},
}

WAY_OUT = f"Get the Train_Test_datasets folder from {HOMEPAGE} and name the folder that holds it."


def files(root: Path, *, source: Source = "network", **_options: object) -> list[Path]:
    """Return the one file that ``load`` reads for ``source``: the official CSV or its ``.gz``, at any depth.

    Raises:
        ValueError: ``source`` is unknown, or there are several such files.
        FileNotFoundError: there is no such file.
    """
    name = lookup("TON_IoT source", FILES, source)
    wanted = {name.lower(), f"{name}.gz".lower()}
    paths = [p for p in root.rglob("*.csv*") if p.name.lower() in wanted] if root.is_dir() else []
    paths = found(paths, root, f"{name} or {name}.gz", WAY_OUT)
    if len(paths) > 1:
        there = ", ".join(inside(root, p) for p in paths)
        raise ValueError(f"{root} holds {name} {len(paths)} times ({there}); keep one")
    return paths


def load(
    root: Path,
    *,
    source: Source = "network",
    target: Target = "type",
    channels: Sequence[str] | None = None,
    deduplicate: bool = True,
    max_gap_s: float = 300.0,
) -> list[Recording]:
    """Read one TON_IoT file.

    Every recording has ``sfreq`` 1.0 and counts in rows. The classes are those present in the file, ``normal`` first.

    Network: one recording a source host; ``subject`` is its address, which serves to group rows and is no channel.
    ``position`` is the row in the file, counted from 0 below the header.

    Telemetry: one recording an attack type (``normal`` among them), ``subject`` the name of the service, rows in order
    of date and time (stable: rows of one second stay as in the file). ``position`` counts the rows of all types one
    after the other, in order of type and time, and jumps by one more where more than ``max_gap_s`` passed, so that
    no window straddles the gap and a chronological split of a recording is a comparison of positions.

    Args:
        root: folder that holds the file, at any depth.
        source: the network file, or which service's telemetry.
        target: ``"type"`` for the attack's name, ``"label"`` for normal against attack.
        channels: columns to keep, in that order. Without it: all but identity columns and, for the network,
            free text. Free text is a category when named here; identity columns are refused.
        deduplicate: network only: keep each distinct vector of ``channels`` once, at its first row, with the type that
            most of its rows carry (of a tie, the one first in the file). Telemetry is a time series and keeps
            its repeats.
        max_gap_s: telemetry only: a longer silence than this, in s, is a gap.

    Returns:
        Recordings with float64 signals; categorical channels hold indices into ``categories``.

    Raises:
        ValueError: the file does not follow the format, or an option asks for what is not there.
        FileNotFoundError: there is no such file.
    """
    lookup("TON_IoT target", dict.fromkeys(get_args(Target)), target)
    (path,) = files(root, source=source)
    table = read_strings(path)
    units = _units(source, channels, table, path)
    require_columns(table, [*units, "label", "type", "src_ip" if source == "network" else "date"], path)
    types = _types(table, path)
    classes = _classes(types, target)
    labels = _code(types, target, classes)
    strata = _code(types, "type", TYPES)
    signal, categories = _signal(table, units, path, is_telemetry=source != "network")

    def recording(rows: np.ndarray, place: np.ndarray, y: np.ndarray, stratum: np.ndarray, subject: str) -> Recording:
        return Recording(
            signal=np.ascontiguousarray(signal[:, rows]),
            labels=y,
            sfreq=1.0,
            channels=tuple(units),
            units=tuple(units.values()),
            subject=subject,
            classes=classes,
            source=inside(root, path),
            position=place,
            categories=categories,
            synthetic=is_synthetic(root),
            stratum=stratum,
        )

    if source == "network":
        rows = np.arange(len(table))
        if deduplicate:
            rows, kept_types = distinct_vectors(signal, types)
            labels, strata = _code(kept_types, target, classes), _code(kept_types, "type", TYPES)
        hosts = table["src_ip"].str.strip().to_numpy()[rows]
        of_host = [(str(h), hosts == h) for h in pd.unique(hosts)]
        return [recording(rows[own], rows[own], labels[own], strata[own], host) for host, own in of_host]

    clock = _clock(table, path)
    recordings: list[Recording] = []
    first = 0
    for kind in (name for name in TYPES if name in types):
        rows = np.flatnonzero(types == kind)
        rows = rows[np.argsort(clock[rows], kind="stable")]
        place = first + np.arange(len(rows)) + np.cumsum(np.diff(clock[rows], prepend=clock[rows[0]]) > max_gap_s)
        first = int(place[-1]) + 2
        recordings.append(recording(rows, place, labels[rows], strata[rows], source))
    return recordings


def distinct_vectors(signal: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each distinct column of ``signal`` stands first, and the type that most of its copies carry.

    Args:
        signal: ``(n_features, n_rows)``; NaN equals NaN.
        types: ``(n_rows,)`` strings.

    Returns:
        ``(n_vectors,)`` rows in ascending order, and ``(n_vectors,)`` types; of a tie, the type first in the file.
    """
    frame = pd.DataFrame(signal.T)
    vector = frame.groupby(list(frame.columns), sort=False, dropna=False).ngroup()
    rows = pd.DataFrame({"vector": vector, "type": types, "row": np.arange(len(vector))})
    votes = rows.groupby(["vector", "type"], sort=False)["row"].agg(["size", "min"]).reset_index()
    winner = votes.sort_values(["size", "min"], ascending=[False, True]).drop_duplicates("vector").set_index("vector")
    first = rows.groupby("vector")["row"].min().sort_values()
    return first.to_numpy(), winner.loc[first.index, "type"].to_numpy()


def _units(source: str, channels: Sequence[str] | None, table: pd.DataFrame, path: Path) -> dict[str, str]:
    """Return the unit of each channel to keep, in the order of the file or of ``channels``."""
    known: dict[str, str] = dict(TELEMETRY[source]) if source != "network" else dict(NETWORK_NUMBERS)
    if source == "network":
        known |= dict.fromkeys(NETWORK_CATEGORIES, "category")
    optional = dict.fromkeys(FREE_TEXT, "category") if source == "network" else {}
    if channels is None:
        require_columns(table, list(known), path)
        return {name: known[name] for name in table.columns if name in known}
    if not channels:
        raise ValueError(f"no channel of {path} was asked for; leave channels out to take all features")
    for name in channels:
        if name in IDENTITY:
            raise ValueError(f"column {name!r} says who, where, when or what and is never a feature; leave it out")
        if name not in known and name not in optional:
            raise ValueError(
                f"TON_IoT's {source} file has no feature {name!r}{suggest(name, [*known, *optional])} "
                f"Features: {', '.join([*known, *optional])}"
            )
    return {name: {**known, **optional}[name] for name in channels}


def _types(table: pd.DataFrame, path: Path) -> np.ndarray:
    """Return ``(n_rows,)`` attack types, after checking that ``label`` agrees with them."""
    types = table["type"].str.strip()
    unknown = np.flatnonzero(~types.isin(TYPES).to_numpy())
    if len(unknown):
        name = types.iloc[unknown[0]]
        raise ValueError(f"{path}, line {unknown[0] + 2}: no attack type is called {name!r}{suggest(name, TYPES)}")
    wrong = np.flatnonzero((table["label"].str.strip() != np.where(types == "normal", "0", "1")).to_numpy())
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"{path}, line {row + 2}: label is {table['label'].iloc[row]!r} but type is {types.iloc[row]!r}; "
            "label must be 0 for normal and 1 for every attack"
        )
    return types.to_numpy()


def _classes(types: np.ndarray, target: str) -> tuple[str, ...]:
    present = set(types)
    if target == "type":
        return tuple(name for name in TYPES if name in present)
    return ("normal",) * ("normal" in present) + ("attack",) * bool(present - {"normal"})


def _code(types: np.ndarray, target: str, classes: tuple[str, ...]) -> np.ndarray:
    """Return ``(n_rows,)`` int64 indices into ``classes``."""
    names = types if target == "type" else np.where(types == "normal", "normal", "attack")
    return pd.Categorical(names, categories=list(classes)).codes.astype(np.int64)


def _signal(
    table: pd.DataFrame, units: Mapping[str, str], path: Path, is_telemetry: bool
) -> tuple[np.ndarray, dict[str, tuple[str, ...]]]:
    """Return ``(n_chans, n_rows)`` float64 and the names behind the categorical channels."""
    signal = np.empty((len(units), len(table)))
    categories: dict[str, tuple[str, ...]] = {}
    for row, (name, unit) in zip(signal, units.items(), strict=True):
        if unit != "category":
            row[:] = numbers(table[name], path)
            continue
        text = table[name].str.strip()
        if is_telemetry:
            text = text.str.lower().replace({"true": "1", "false": "0"})
        codes = pd.Categorical(text.replace({"": "-"}))
        row[:] = codes.codes
        categories[name] = tuple(codes.categories)
    return signal, categories


def _clock(table: pd.DataFrame, path: Path) -> np.ndarray:
    """Return ``(n_rows,)`` seconds since 1970 of ``25-Apr-19`` and ``19:19:40``."""
    require_columns(table, ["time"], path)
    text = table["date"].str.strip() + " " + table["time"].str.strip()
    stamp = pd.to_datetime(text, format="%d-%b-%y %H:%M:%S", errors="coerce")
    wrong = np.flatnonzero(stamp.isna().to_numpy())
    if len(wrong):
        raise ValueError(
            f"{path}, line {wrong[0] + 2}: date and time are {text.iloc[wrong[0]]!r}; "
            "expected the form 25-Apr-19 19:19:40"
        )
    return stamp.to_numpy().astype("datetime64[s]").astype(np.int64)
