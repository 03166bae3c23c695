"""Download the official files of a data set where that is allowed, and check files against what is known of them.

Nothing half-written is left under an official name: downloads and unpacked files come into being under another name and
are moved when they are whole. An archive is unpacked only inside its folder, without links, within a stated size.
"""

import gzip
import hashlib
import logging
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal, TypeVar

import numpy as np
import pooch

from hcqsfl.data.recording import SYNTHETIC_MARKER, is_synthetic
from hcqsfl.data.wfdb_files import read_channels, read_header, sample_files, segment_names, with_suffix
from hcqsfl.registry import lookup

Progress = Callable[[str], None]
"""Called with what is being done and how far it is."""

Status = Literal["ok", "unchecked", "warning", "missing", "error"]

_log = logging.getLogger(__name__)
_MIB, _GIB = 2**20, 2**30

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """What was found out about one file.

    Attributes:
        path: inside the data set's root.
        status: ``ok``; ``unchecked`` where no checksum is known; ``warning`` where the only known checksum has one
            source and differs; ``missing``; ``error``.
        message: one sentence.
    """

    path: str
    status: Status
    message: str


@dataclass(frozen=True)
class Archive:
    """An official archive.

    Attributes:
        url: where it is.
        page: where a person reads about it.
        wanted: pattern of the member paths to unpack, without the archive's top folder.
        inner: name of an archive inside it that holds the recordings; empty when there is none.
        limit: bytes that unpacking may write.
    """

    url: str
    page: str
    wanted: str
    inner: str
    limit: int


ARCHIVES: Mapping[str, Archive] = {
    "pamap2": Archive(
        url="https://archive.ics.uci.edu/static/public/231/pamap2+physical+activity+monitoring.zip",
        page="https://archive.ics.uci.edu/dataset/231/pamap2+physical+activity+monitoring",
        wanted=r"(Protocol|Optional)/subject1\d\d\.dat|[^/]+\.pdf",
        inner="PAMAP2_Dataset.zip",
        limit=4 * _GIB,
    ),
    "wesad": Archive(
        url="https://uni-siegen.sciebo.de/s/HGdUkoNlW1Ub0Gx/download",
        page="https://archive.ics.uci.edu/dataset/465/wesad+wearable+stress+and+affect+detection",
        wanted=r"(S\d+)/\1(\.pkl|_quest\.csv|_readme\.txt)|[^/]+\.pdf",
        inner="",
        limit=40 * _GIB,
    ),
}

PHYSIONET = "https://physionet.org/files/mimic3wdb-matched/1.0/"
RECORDS = ("p00/p000020/p000020-2183-04-28-17-47",)
"""Records of the MIMIC-III matched subset that are fetched when none is named."""

TON_IOT_WAY = (
    "TON_IoT cannot be fetched: UNSW gives it out after a form. Open "
    "https://research.unsw.edu.au/projects/toniot-datasets, follow the link to the data sets, download the folder "
    "Train_Test_datasets, and put its CSV files (plain or .gz, at any depth) into {root}; then verify them."
)

PAMAP2_FILES: Mapping[str, tuple[int, str]] = {
    "Optional/subject101.dat": (121246257, "a8b71371406001ae563acad1d7d946ceacd0afeb51b97bfb9a9cbad95c78e52c"),
    "Optional/subject105.dat": (72521536, "a7c4ccd8d7e8fe21abad8c111229649ec10ca9b353cc29fcc4986c2243301adc"),
    "Optional/subject106.dat": (60905306, "50882fc519f01e8fe200a5a4373daff443e88624d7e8a2d31d759569823fb491"),
    "Optional/subject108.dat": (85403002, "e871b2e5692867f8655b69b769e866927739aa288b9da5cc9a15dc930f154336"),
    "Optional/subject109.dat": (90594049, "a6a8f7521d63fe80bd7f203c5ee1256a2bc8b3772f028ae767256ec1d6a93930"),
    "Protocol/subject101.dat": (141698539, "80b3fffd089c236ae88098df3b906b8d3c67a858023fe4f75045d78612147266"),
    "Protocol/subject102.dat": (207349310, "468f3c6ba3e6e961f383783665265afbcddbbd33a3a84bba0386b7d0d4e3c632"),
    "Protocol/subject103.dat": (117863364, "5be64631d085e3efc700728395516da3512ff9de17dab30d253508441a98d3f0"),
    "Protocol/subject104.dat": (153227482, "7eb272213cbfe11d9e466a2163b6c9c2ed8d2542fc6f08283fd1bf222cac8994"),
    "Protocol/subject105.dat": (173773599, "7837cfede57fe45ec20d553c6c2b0c498ab324daae23bfd202c0ffea9f71a7f6"),
    "Protocol/subject106.dat": (168263273, "0da1dda3fa56d75d6413fc9198949d3ebc2102d77574cb5fe0739674687609f2"),
    "Protocol/subject107.dat": (145823268, "a02195e9599eb249f79103912d27eb4f62d8a0f59e4763b0dd8250fee5f3f020"),
    "Protocol/subject108.dat": (190019653, "81ce6b21b9c1e01dc02099c4f9387699547b08b28b387d09a56e0cb0a8af22fc"),
    "Protocol/subject109.dat": (3891140, "5109d5cd8334769566b4ae602adf3e5f4bb7b9ee8ca678f0c481d333114b07c7"),
}
"""Bytes and SHA-256 of the official files."""

WESAD_FILES: Mapping[str, str] = {
    "S2/S2.pkl": "36ef5e8afc0f91998eefba7c12fc9fa97b7b07198cbec0126917d7abb436ca23",
    "S3/S3.pkl": "5c8bd4a82af029c082e610bca28a011fca2ae3b23e14a18458ebb5990be4015e",
    "S4/S4.pkl": "0f0740a79388723360ff12b4f47c465665ea7827d1399b18ac43908daac17900",
    "S5/S5.pkl": "74bd187e3a9c1ca4259af52d04974c8e7ff7dc49ceea7e269f499ca98fe6d8ec",
    "S6/S6.pkl": "8aa9bf57b69f4fe5bce06c550230857627c3f05befa2f787151646bb29ee8f62",
    "S7/S7.pkl": "9cb62705ae7f53dca327a9a00a6f9fdabf5128d449174ab37594658e912cb6d8",
    "S8/S8.pkl": "dac1141dac11d56b3641be982f45da63f05e9d74154f59e6ea0cdcf47fc72710",
    "S9/S9.pkl": "24dc004e201bd541f092989443f0a29ebf89e4a227a80bb6b6d1987255039544",
    "S10/S10.pkl": "41da29c68366f33650f3d41a6be78107bf6942929c3bb0ef46238078ddddee9f",
    "S11/S11.pkl": "f39557a8d660b10154936f51debf2926aea7ebb9b26a168858f59502f914d8f7",
    "S13/S13.pkl": "772fb490f19b279e49367271e009fc10d3a3ca1e3456df0d68b9063a73992066",
    "S14/S14.pkl": "e7bd33c57538319a25c6d53e6a9fb6c1abd12800cfc64bb63275d89de8d2fd60",
    "S15/S15.pkl": "1ea573bc6b45ba79fb134f9460d691b86176f60dce23420dc514c28017d4049c",
    "S16/S16.pkl": "f65cf40cada75c3e9f5813276d7dcc90359c3b06dec41d68656c0a6e61dbc575",
    "S17/S17.pkl": "3315796a75227d54d7b0056736f671484fd2fb85afffa65818fd76aeff2920fa",
}
"""SHA-256 of the official pickles, known from one source only: a difference is a warning."""

TON_IOT_FILES: Mapping[str, str] = {
    "train_test_network.csv": "26ddc513552de36de6428b2e578efaed2b57504c716dfba847cc0109a64e1974",
    "Train_Test_IoT_Fridge.csv": "",
    "Train_Test_IoT_Garage_Door.csv": "",
    "Train_Test_IoT_GPS_Tracker.csv": "",
    "Train_Test_IoT_Modbus.csv": "",
    "Train_Test_IoT_Motion_Light.csv": "",
    "Train_Test_IoT_Thermostat.csv": "",
    "Train_Test_IoT_Weather.csv": "",
}
"""SHA-256 of the official files where one source knows it."""

_KNOWN = {"mimic_waveform": "", "pamap2": "", "ton_iot": "", "wesad": ""}


def fetch(
    name: str,
    root: Path,
    progress: Progress | None = None,
    *,
    url: str | None = None,
    records: Sequence[str] = RECORDS,
) -> list[Path]:
    """Download the official files of a data set into ``root``.

    What is there already is not downloaded again. The licence of each data set is its loader's ``LICENCE``.

    Args:
        name: ``wesad``, ``pamap2``, ``mimic_waveform`` or ``ton_iot``.
        root: folder for the files; it is made when absent.
        progress: see ``Progress``.
        url: a mirror: of the archive, or of the folder that holds ``p00``, ``p01``, ... of MIMIC-III.
        records: for ``mimic_waveform``: which records, as ``p00/p000020/p000020-2183-04-28-17-47``.

    Returns:
        The official files now in ``root``.

    Raises:
        ValueError: there is no such data set; it is given out by hand only (the message says how to get it); ``root``
            holds synthetic recordings; a record's name or an archive is not what it should be.
        OSError: the download failed, or the disk is too small.
    """
    lookup("official data set", _KNOWN, name)
    if name == "ton_iot":
        raise ValueError(TON_IOT_WAY.format(root=root))
    if is_synthetic(root):
        raise ValueError(
            f"{root} holds synthetic recordings; fetch {name} into another folder, so that they stay apart"
        )
    root.mkdir(parents=True, exist_ok=True)
    if name == "mimic_waveform":
        return _fetch_records(root, url or PHYSIONET, records, progress)
    official = PAMAP2_FILES if name == "pamap2" else WESAD_FILES
    there = [path for path in (_locate(root, relative) for relative in official) if path]
    if len(there) == len(official):
        return there
    archive = ARCHIVES[name]
    with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as scratch:
        path = _download(url or archive.url, Path(scratch) / f"{name}.zip", progress, archive.page)
        if archive.inner:
            path = _take_inner(path, archive, Path(scratch))
        return unpack(path, root, archive.wanted, archive.limit, progress)


def verify(name: str, root: Path, progress: Progress | None = None) -> list[Check]:
    """Compare the files under ``root`` with what is known of the official ones.

    PAMAP2: bytes and SHA-256. WESAD and the TON_IoT network file: SHA-256 known from one source, so that a difference
    is a warning. MIMIC-III: the length and checksums that each header states of its samples.

    Args:
        name: ``wesad``, ``pamap2``, ``mimic_waveform`` or ``ton_iot``.
        root: folder that holds the files, at any depth.
        progress: see ``Progress``.

    Returns:
        One check a file, missing ones included; a synthetic root yields one warning that says so.

    Raises:
        ValueError: there is no such data set.
        FileNotFoundError: there is no such folder.
    """
    lookup("official data set", _KNOWN, name)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root} to verify")
    if is_synthetic(root):
        return [Check(SYNTHETIC_MARKER, "warning", "these recordings are synthetic and were never official files")]
    if name == "mimic_waveform":
        headers = sorted(root.rglob("*.hea"))
        if not headers:
            return [Check("*.hea", "missing", f"there is no WFDB header under {root}")]
        return [_check_record(root, path) for path in _told(headers, progress)]
    if name == "pamap2":
        return [_check_sum(root, path, *PAMAP2_FILES[path], "error") for path in _told(PAMAP2_FILES, progress)]
    sums = WESAD_FILES if name == "wesad" else TON_IOT_FILES
    return [_check_sum(root, path, None, sums[path], "warning") for path in _told(sums, progress)]


def _told(paths: Collection[T], progress: Progress | None) -> Iterator[T]:
    """Yield ``paths``, saying before each which it is."""
    for place, path in enumerate(paths, start=1):
        if progress is not None:
            progress(f"verify {path} ({place} of {len(paths)})")
        yield path


def unpack(path: Path, root: Path, wanted: str, limit: int, progress: Progress | None = None) -> list[Path]:
    """Unpack the members of a zip archive whose path matches ``wanted``, each whole or not at all.

    A top folder that all members share is left out of their paths.

    Args:
        path: the archive.
        root: folder to unpack into.
        wanted: regular expression for the whole path of a member, without the top folder.
        limit: bytes that may be written in all.
        progress: see ``Progress``.

    Returns:
        The files written, in order of path.

    Raises:
        ValueError: it is no zip archive or a damaged one; a member leads out of ``root``, is a link or encrypted, or
            holds other bytes than it states; the wanted members exceed ``limit``; none is wanted.
        OSError: the disk is too small.
    """
    with _opened(path) as archive:
        members = _members(archive, path)
        chosen = {name: info for name, info in members.items() if re.fullmatch(wanted, name)}
        if not chosen:
            there = ", ".join(sorted(members)[:5]) or "nothing"
            raise ValueError(f"{path.name} holds none of the files wanted, but {there}, ...")
        total = sum(info.file_size for info in chosen.values())
        if total > limit:
            raise ValueError(f"{path.name} would unpack to {total} bytes, more than the {limit} expected; not unpacked")
        free = shutil.disk_usage(root).free
        if total > free:
            raise OSError(
                f"{path.name} unpacks to {total / _GIB:.1f} GiB, but {root} has only {free / _GIB:.1f} GiB free"
            )
        written = []
        done = 0
        for name, info in sorted(chosen.items()):
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(target) as out:
                _copy(archive, info, out, path)
            done += info.file_size
            written.append(target)
            if progress is not None:
                progress(f"unpack {name}: {done / _MIB:.0f} of {total / _MIB:.0f} MiB")
        return written


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        with path.open("rb") as file:
            begin = file.read(64)
        raise ValueError(
            f"{path.name} is not a whole zip archive ({error}); it begins with {begin[:32]!r}. "
            "Perhaps the server sent a page instead, or the download broke off; try again"
        ) from error
    with archive:
        yield archive


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the files of an archive by their path without the shared top folder, after checking every path."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    for info in infos:
        # zipfile would quietly bend such a path back inside; but no official archive has one
        odd = {"", ".", ".."} & set(info.filename.split("/"))
        if odd or "\\" in info.filename or ":" in info.filename:
            raise ValueError(f"{path.name} holds {info.filename!r}, which leads out of its folder; not unpacked")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"{path.name} holds a link, {info.filename!r}; not unpacked")
        if info.flag_bits & 0x1:
            raise ValueError(f"{path.name} holds {info.filename!r} encrypted; not unpacked")
    tops = {info.filename.split("/")[0] for info in infos}
    has_top = len(tops) == 1 and all("/" in info.filename for info in infos)
    names = {info.filename.split("/", 1)[1] if has_top else info.filename: info for info in infos}
    if len(names) != len(infos):
        raise ValueError(f"{path.name} holds a path twice; not unpacked")
    return names


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, out: IO[bytes], path: Path) -> None:
    left = info.file_size
    try:
        with archive.open(info) as member:
            while chunk := member.read(min(1 << 20, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise ValueError(f"{path.name}: {info.filename} is longer than it states; not unpacked")
                out.write(chunk)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path.name}: {info.filename} is damaged ({error}); download it again") from error
    if left:
        raise ValueError(f"{path.name}: {info.filename} ends {left} bytes early; download it again")


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of ``target`` when the block ends well, and vanishes when it does not."""
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class _Bar:
    """What pooch asks of a progress bar, told to a ``Progress`` at each whole MiB."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.total = 0
        self._what, self._progress, self._done = what, progress, 0

    def update(self, n_bytes: int) -> None:
        self._done += n_bytes
        of = f" of {self.total / _MIB:.0f}" if self.total > 0 else ""
        self._progress(f"{self._what}: {self._done / _MIB:.0f}{of} MiB")

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _download(url: str, target: Path, progress: Progress | None, page: str) -> Path:
    """Download ``url`` to ``target`` unless it is there; ``target`` appears only when it is whole.

    Raises:
        OSError: it did not succeed.
    """
    bar = _Bar(f"download {target.name}", progress) if progress is not None else False
    try:
        pooch.retrieve(
            url,
            known_hash=None,
            fname=target.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(progressbar=bar, chunk_size=_MIB, timeout=60),
        )
    except OSError as error:  # as are the exceptions of requests
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            raise FileNotFoundError(f"there is nothing at {url} (404); see {page}") from error
        raise OSError(f"the download of {url} failed ({error}); try again, or get it by hand from {page}") from error
    return target


def _take_inner(path: Path, archive: Archive, scratch: Path) -> Path:
    """Return the archive inside the archive, unpacked to ``scratch``."""
    with _opened(path) as outer:
        names = [name for name in _members(outer, path) if PurePosixPath(name).name == archive.inner]
        if not names:
            return path  # a mirror may hold the inner archive itself
    inner = scratch / "inner"
    inner.mkdir()
    (taken,) = unpack(path, inner, re.escape(names[0]), archive.limit)
    return taken


def _fetch_records(root: Path, url: str, records: Sequence[str], progress: Progress | None) -> list[Path]:
    """Download records with their segments and numerics, as they lie on PhysioNet."""
    if not records:
        raise ValueError("no record was named; name at least one, such as " + RECORDS[0])
    for record in records:
        if not re.fullmatch(r"(p\d\d)/(\1\d{4})/\2-\d{4}-\d\d-\d\d-\d\d-\d\d", record):
            raise ValueError(
                f"{record!r} is not the path of a record of the matched subset; expected one like {RECORDS[0]}"
            )
    base = url.rstrip("/") + "/"
    files: list[Path] = []

    def get(relative: PurePosixPath) -> Path:
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        files.append(_download(base + str(relative), target, progress, base))
        return target

    def get_samples(header: Path) -> None:
        folder = PurePosixPath(header.parent.relative_to(root).as_posix())
        record = header.with_suffix("")
        for file in sample_files(record, read_header(record)):
            if file.name != "~":
                get(folder / _plain(file.name, header))

    for record in records:
        header = get(PurePosixPath(f"{record}.hea"))
        parsed = read_header(header.with_suffix(""))
        segments = segment_names(parsed)
        for segment in dict.fromkeys(segments):
            if segment == "~":
                continue
            part = get(PurePosixPath(record).parent / f"{_plain(segment, header)}.hea")
            if not segment.endswith("_layout"):
                get_samples(part)
        if not segments:
            get_samples(header)
        try:
            numerics = get(PurePosixPath(f"{record}n.hea"))
        except FileNotFoundError:
            _log.warning("%s has no numerics; it can be read but not labelled", record)
            continue
        get_samples(numerics)
    return files


def _plain(name: str, header: Path) -> str:
    """Return ``name``, which a downloaded header states, when it is the name of a file in the same folder."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.dat)?", name):
        raise ValueError(f"{header.name} refers to {name!r}, which is no file of its own folder; not downloaded")
    return name


def _locate(root: Path, relative: str) -> Path | None:
    """Return the file whose path under ``root`` ends in ``relative``, with or without ``.gz``, in any case."""
    parts = [part.lower() for part in PurePosixPath(relative).parts]
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix().lower().removesuffix(".gz")
        if name.split("/")[-len(parts) :] == parts and path.is_file():
            return path
    return None


def _check_sum(root: Path, relative: str, n_bytes: int | None, sha256: str, differs: Status) -> Check:
    path = _locate(root, relative)
    if path is None:
        return Check(relative, "missing", f"there is no {relative} under {root}")
    found = path.relative_to(root).as_posix()
    if n_bytes is not None and path.suffix != ".gz" and path.stat().st_size != n_bytes:
        return Check(found, differs, f"it has {path.stat().st_size} bytes, the official file {n_bytes}")
    if not sha256:
        return Check(found, "unchecked", "it is there; no official checksum is known")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (EOFError, gzip.BadGzipFile) as error:
        return Check(found, "error", f"it is a damaged gzip file ({error})")
    if digest == sha256:
        return Check(found, "ok", "its SHA-256 is the official one")
    source = "the one known from a single source" if differs == "warning" else "the official one"
    return Check(found, differs, f"its SHA-256 {digest[:12]}... is not {source}, {sha256[:12]}...")


def _check_record(root: Path, path: Path) -> Check:
    """Check the samples of one header: a segment's lengths and checksums, a record's list of segments."""
    relative = path.relative_to(root).as_posix()
    record = path.with_suffix("")
    try:
        header = read_header(record)
        segments = [name for name in segment_names(header) if name != "~"]
        if segments:
            absent = [name for name in segments if not with_suffix(record.parent / name, ".hea").exists()]
            if absent:
                return Check(relative, "missing", f"{len(absent)} of its segments are absent: {', '.join(absent[:5])}")
            return Check(relative, "ok", f"its {len(segments)} segments are there")
        if record.name.endswith("_layout"):
            return Check(relative, "ok", "a layout has no samples")
        absent = [file.name for file in sample_files(record, header) if not file.exists()]
        if absent:
            return Check(relative, "missing", f"its samples are absent: {', '.join(absent)}")
        read_channels(record, header, list(np.arange(header.n_sig)))
    except (ValueError, OSError) as error:
        return Check(relative, "error", str(error))
    return Check(relative, "ok", "length and checksums of its samples are those it states")
