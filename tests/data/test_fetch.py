import functools
import hashlib
import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcqsfl.data import fetch, synthetic
from hcqsfl.data.recording import SYNTHETIC_MARKER

PAMAP2 = {f"Protocol/subject10{n}.dat": f"8.38 0 {n}\n".encode() * 50 for n in (1, 2)}
DATE = "2183-04-28-17-47"


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Server:
    """A loopback web server: what it offers by path, what it was asked for, and which bodies it cuts short."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut_short: set[str] = set()
        handler = functools.partial(_Handler, self)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, owner: Server, *args: object) -> None:
        self._owner = owner
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._owner.asked.append(self.path)
        body = self._owner.pages.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path in self._owner.cut_short else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def small_pamap2(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Make two small files the official ones."""
    facts = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in PAMAP2.items()}
    monkeypatch.setattr(fetch, "PAMAP2_FILES", facts)
    return PAMAP2


def official_zip(members: dict[str, bytes]) -> bytes:
    inner = zipped({f"PAMAP2_Dataset/{name}": content for name, content in members.items()} | {"PAMAP2_Dataset/x": b""})
    return zipped({"PAMAP2_Dataset.zip": inner, "readme.pdf": b"%PDF"})


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_archive_in_the_archive_is_unpacked_without_its_top_folder(
    server: Server, small_pamap2: dict[str, bytes], tmp_path: Path
) -> None:
    server.pages["/pamap2.zip"] = official_zip(small_pamap2)
    said: list[str] = []
    files = fetch.fetch("pamap2", tmp_path, said.append, url=server.url + "/pamap2.zip")
    assert files == [tmp_path / name for name in sorted(small_pamap2)]
    assert tree(tmp_path) == small_pamap2
    assert any(text.startswith("download pamap2.zip") for text in said)
    assert any(text.startswith("unpack Protocol/subject102.dat") for text in said)
    assert {check.status for check in fetch.verify("pamap2", tmp_path)} == {"ok"}


def test_what_is_there_is_not_downloaded_again(server: Server, small_pamap2: dict[str, bytes], tmp_path: Path) -> None:
    server.pages["/pamap2.zip"] = official_zip(small_pamap2)
    first = fetch.fetch("pamap2", tmp_path, url=server.url + "/pamap2.zip")
    assert fetch.fetch("pamap2", tmp_path, url=server.url + "/pamap2.zip") == first
    assert len(server.asked) == 1


def test_a_mirror_may_hold_the_inner_archive_itself(
    server: Server, small_pamap2: dict[str, bytes], tmp_path: Path
) -> None:
    server.pages["/inner.zip"] = zipped({f"PAMAP2_Dataset/{name}": c for name, c in small_pamap2.items()})
    fetch.fetch("pamap2", tmp_path, url=server.url + "/inner.zip")
    assert tree(tmp_path) == small_pamap2


def test_wesad_yields_the_pickles_and_not_the_raw_files_beside_them(server: Server, tmp_path: Path) -> None:
    members = {"WESAD/S2/S2.pkl": b"\x80\x02.", "WESAD/S2/S2_respiban.txt": b"0", "WESAD/S2/S3.pkl": b"stray"}
    server.pages["/wesad"] = zipped({**members, "WESAD/S2/S2_quest.csv": b"# Subj", "WESAD/wesad_readme.pdf": b"%PDF"})
    fetch.fetch("wesad", tmp_path, url=server.url + "/wesad")
    assert set(tree(tmp_path)) == {"S2/S2.pkl", "S2/S2_quest.csv", "wesad_readme.pdf"}


def test_a_download_that_breaks_off_leaves_nothing_and_says_so(
    server: Server, small_pamap2: dict[str, bytes], tmp_path: Path
) -> None:
    server.pages["/pamap2.zip"] = official_zip(small_pamap2)
    server.cut_short.add("/pamap2.zip")
    with pytest.raises(OSError, match=r"download of .*/pamap2\.zip failed .* try again"):
        fetch.fetch("pamap2", tmp_path, url=server.url + "/pamap2.zip")
    assert tree(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
    server.cut_short.clear()
    assert fetch.fetch("pamap2", tmp_path, url=server.url + "/pamap2.zip")


def test_a_page_in_place_of_the_archive_is_recognised(server: Server, tmp_path: Path) -> None:
    server.pages["/wesad"] = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(ValueError, match=r"not a whole zip archive.*DOCTYPE html.*a page instead"):
        fetch.fetch("wesad", tmp_path, url=server.url + "/wesad")


def test_an_address_without_anything_names_the_page_to_look_at(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"404.*wesad\+wearable"):
        fetch.fetch("wesad", tmp_path, url=server.url + "/gone")


def test_a_server_that_does_not_answer_is_one_clear_error(server: Server, tmp_path: Path) -> None:
    url = server.url
    server.stop()
    with pytest.raises(OSError, match=r"failed .* or get it by hand from"):
        fetch.fetch("wesad", tmp_path, url=url + "/wesad")


def unpack(content: bytes, root: Path, limit: int = 10_000) -> list[Path]:
    archive = root.parent / "archive.zip"
    archive.write_bytes(content)
    root.mkdir(exist_ok=True)
    return fetch.unpack(archive, root, r".*", limit)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:evil", "a/b/../../../evil"])
def test_a_path_that_leads_out_is_refused_and_nothing_is_unpacked(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leads out of its folder"):
        unpack(zipped({"fine": b"1", name: b"2"}), tmp_path / "root")
    assert set(tree(tmp_path)) == {"archive.zip"}


@given(st.text(alphabet="./\\ab:", min_size=1, max_size=12).filter(lambda name: not name.endswith("/")))
def test_no_path_whatever_writes_outside_the_folder(name: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        try:
            written = unpack(zipped({name: b"1", "other/fine": b"2"}), root)
        except (ValueError, OSError):
            written = []
        assert all(path.resolve().is_relative_to(root.resolve()) for path in written)
        assert {path.name for path in Path(folder).iterdir()} == {"archive.zip", "root"}


def test_a_link_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("top/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="holds a link, 'top/link'"):
        unpack(buffer.getvalue(), tmp_path / "root")


def test_an_archive_that_swells_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="would unpack to 1000000 bytes, more than the 10000 expected"):
        unpack(zipped({"zeros": bytes(1_000_000)}), tmp_path / "root")
    assert tree(tmp_path / "root") == {}


def test_a_member_longer_than_it_states_is_refused(tmp_path: Path) -> None:
    honest = zipped({"zeros": bytes(5000)})
    lying = honest.replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != honest
    with pytest.raises(ValueError, match=r"zeros .*(longer than it states|damaged)"):
        unpack(lying, tmp_path / "root")
    assert tree(tmp_path / "root") == {}


def test_a_damaged_member_leaves_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_bytes(b"before")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("file", b"0123456789" * 10)
    damaged = buffer.getvalue().replace(b"0123456789", b"0123456780", 1)
    with pytest.raises(ValueError, match="file is damaged"):
        unpack(damaged, tmp_path / "root")
    assert tree(tmp_path / "root") == {"file": b"before"}


def test_an_archive_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped({"holiday.jpg": b"1"}))
    with pytest.raises(ValueError, match=r"none of the files wanted, but holiday\.jpg"):
        fetch.unpack(archive, tmp_path, r"S2/S2\.pkl", 100)


def test_ton_iot_says_how_to_get_it_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"after a form.*toniot-datasets.*Train_Test_datasets.*root"):
        fetch.fetch("ton_iot", tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_real_files_are_not_fetched_into_a_synthetic_folder(tmp_path: Path) -> None:
    (tmp_path / SYNTHETIC_MARKER).write_text("made up\n")
    with pytest.raises(ValueError, match="holds synthetic recordings"):
        fetch.fetch("wesad", tmp_path)


@pytest.mark.parametrize("function", [fetch.fetch, fetch.verify])
def test_a_mistyped_name_is_answered_with_the_nearest(function: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'pamap2'"):
        function("pamap", tmp_path)  # type: ignore[operator]


def by_path(checks: list[fetch.Check]) -> dict[str, str]:
    return {check.path: check.status for check in checks}


def test_pamap2_of_another_content_or_length_is_an_error(small_pamap2: dict[str, bytes], tmp_path: Path) -> None:
    one, two = sorted(small_pamap2)
    (tmp_path / "Protocol").mkdir()
    (tmp_path / one).write_bytes(small_pamap2[one].replace(b"8.38", b"8.39"))
    (tmp_path / two).write_bytes(small_pamap2[two][:-1])
    checks = fetch.verify("pamap2", tmp_path)
    assert by_path(checks) == {one: "error", two: "error"}
    assert "SHA-256" in checks[0].message
    assert f"{len(small_pamap2[two]) - 1} bytes" in checks[1].message


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    checks = fetch.verify("pamap2", tmp_path)
    assert len(checks) == 14
    assert {check.status for check in checks} == {"missing"}


def test_wesad_of_another_content_is_only_a_warning(tmp_path: Path) -> None:
    (tmp_path / "WESAD" / "S2").mkdir(parents=True)
    (tmp_path / "WESAD" / "S2" / "S2.pkl").write_bytes(b"other")
    found = by_path(fetch.verify("wesad", tmp_path))
    assert found.pop("WESAD/S2/S2.pkl") == "warning"
    assert set(found.values()) == {"missing"}
    assert len(found) == 14


@pytest.mark.real
def test_the_real_ton_iot_files_are_recognised_in_their_gzip(real_data: Path) -> None:
    found = by_path(fetch.verify("ton_iot", real_data / "ton_iot"))
    assert found["train_test_network.csv.gz"] == "ok"
    assert found["Train_Test_IoT_Fridge.csv.gz"] == "unchecked"
    assert found["Train_Test_IoT_Thermostat.csv"] == "missing"


@pytest.mark.real
def test_the_tables_are_the_published_ones(real_data: Path) -> None:
    lines = (real_data / "pamap2" / "official_dat_sizes_sha256.csv").read_text().split()[1:]
    rows = [line.split(",") for line in lines]
    assert {path: (int(n), digest) for path, n, digest in rows} == dict(fetch.PAMAP2_FILES)
    lines = (real_data / "wesad_official_SHA256SUMS").read_text().splitlines()
    assert {line.split()[1]: line.split()[0] for line in lines} == dict(fetch.WESAD_FILES)


def test_synthetic_recordings_are_never_called_official(tmp_path: Path) -> None:
    synthetic.write("ton_iot", tmp_path, size="tiny")
    (check,) = fetch.verify("ton_iot", tmp_path)
    assert check.status == "warning"
    assert "synthetic" in check.message


@pytest.fixture
def record(tmp_path: Path) -> tuple[str, Path]:
    """One record of a waveform data base, as a server would hold it."""
    store = tmp_path / "store"
    synthetic.write("mimic_waveform", store, size="tiny")
    header = min(path for path in store.rglob("p*.hea") if not path.stem.endswith("n"))
    (store / SYNTHETIC_MARKER).unlink()
    # on PhysioNet no segment is absent
    segments = [line.split()[0] for line in header.read_text().splitlines()[1:] if line[0].isdigit()]
    absent = next(name for name in segments if not (header.parent / f"{name}.hea").exists())
    text = (header.parent / f"{segments[1]}.hea").read_text()
    (header.parent / f"{absent}.hea").write_text(text.replace(segments[1], absent))
    (header.parent / f"{absent}.dat").write_bytes((header.parent / f"{segments[1]}.dat").read_bytes())
    return header.relative_to(store).with_suffix("").as_posix(), store


def test_a_record_is_fetched_with_its_layout_segments_and_numerics(
    server: Server, record: tuple[str, Path], tmp_path: Path
) -> None:
    name, store = record
    server.pages = {"/" + path: content for path, content in tree(store).items()}
    folder = "/".join(name.split("/")[:2]) + "/"
    wanted = {path: content for path, content in tree(store).items() if path.startswith(folder)}
    wanted.pop(folder + "RECORDS")
    files = fetch.fetch("mimic_waveform", tmp_path / "root", url=server.url, records=[name])
    assert tree(tmp_path / "root") == wanted
    assert {path.relative_to(tmp_path / "root").as_posix() for path in files} == set(wanted)
    asked = len(server.asked)
    fetch.fetch("mimic_waveform", tmp_path / "root", url=server.url, records=[name])
    assert len(server.asked) == asked


def test_waveforms_are_checked_against_their_headers(record: tuple[str, Path]) -> None:
    name, store = record
    folder = (store / name).parent
    before = by_path(fetch.verify("mimic_waveform", folder))
    stem = next(path.removesuffix("_0002.hea") for path in before if path.endswith("_0002.hea"))
    assert before[f"{stem}_0002.hea"] == before[f"{stem}_layout.hea"] == before[Path(name).name + ".hea"] == "ok"
    samples = bytearray((folder / f"{stem}_0002.dat").read_bytes())
    samples[17] ^= 1
    (folder / f"{stem}_0002.dat").write_bytes(samples)
    (folder / f"{stem}_0004.dat").write_bytes((folder / f"{stem}_0004.dat").read_bytes()[:-4])
    (folder / f"{stem}_0003.dat").unlink()
    (folder / f"{stem}_0006.hea").unlink()
    after = by_path(fetch.verify("mimic_waveform", folder))
    assert {path for path in after if after[path] == "error"} == {f"{stem}_0002.hea", f"{stem}_0004.hea"}
    assert after[f"{stem}_0003.hea"] == "missing"
    assert after[Path(name).name + ".hea"] == "missing"


@pytest.mark.parametrize("name", ["../../etc/passwd", "p00/p010020/p010020-2183-04-28-17-47", "p000020", ""])
def test_a_record_by_another_name_is_refused_before_anything_is_asked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the path of a record"):
        fetch.fetch("mimic_waveform", tmp_path, url="http://127.0.0.1:9", records=[name])


def test_a_header_that_names_files_elsewhere_is_not_followed(server: Server, tmp_path: Path) -> None:
    record = f"p00/p000020/p000020-{DATE}"
    header = f"p000020-{DATE} 1 125 8\n../../../evil.dat 80 1/mV 8 0 0 0 0 II\n"
    server.pages = {f"/{record}.hea": header.encode(), "/evil.dat": b"x" * 8}
    with pytest.raises(ValueError):
        fetch.fetch("mimic_waveform", tmp_path / "a" / "b" / "root", url=server.url, records=[record])
    assert server.asked == [f"/{record}.hea"]


def test_a_record_without_numerics_is_fetched_and_said_to_lack_labels(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = f"p00/p000020/p000020-{DATE}"
    header = f"p000020-{DATE} 1 125 8\np000020-{DATE}.dat 80 1/mV 8 0 0 0 0 II\n"
    server.pages = {f"/{record}.hea": header.encode(), f"/{record}.dat": bytes([128] * 8)}
    fetch.fetch("mimic_waveform", tmp_path, url=server.url + "/", records=[record])
    assert set(tree(tmp_path)) == {f"{record}.hea", f"{record}.dat"}
    assert "has no numerics" in caplog.text
