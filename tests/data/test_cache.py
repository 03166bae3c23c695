import errno
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from hcqsfl.data import cache
from hcqsfl.data.windows import Windows

SETTINGS = {"loader": "wesad", "seconds": 60.0, "options": {"channels": ["ECG"], "subjects": None}}


def windows(n: int = 5) -> Windows:
    rng = np.random.default_rng(n)
    return Windows(
        x=rng.normal(size=(n, 2, 8)).astype(np.float32),
        y=rng.integers(0, 2, n),
        subject=np.array([f"S{i}" for i in range(n)]),
        start=np.arange(n) * 8,
        recording=np.zeros(n, dtype=np.int64),
        stratum=np.zeros(n, dtype=np.int64),
        sfreq=64.0,
        channels=("ECG", "state"),
        units=("mV", "category"),
        classes=("rest", "stress"),
        categories={"state": ("off", "on")},
        synthetic=True,
        dropped=3,
    )


class Builder:
    """Builds windows and counts how often."""

    def __init__(self, n: int = 5) -> None:
        self.calls = 0
        self.n = n

    def __call__(self) -> Windows:
        self.calls += 1
        return windows(self.n)


def assert_equal(got: Windows, expected: Windows) -> None:
    for field in fields(Windows):
        a, b = getattr(got, field.name), getattr(expected, field.name)
        if isinstance(b, np.ndarray):
            np.testing.assert_array_equal(a, b, strict=True)
        else:
            assert a == b
            assert type(a) is type(b)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "data" / "S2" / "S2.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"recording")
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def entries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir())


def test_windows_are_built_once_and_come_back_memory_mapped(source, folder):
    build = Builder()
    for _ in range(3):
        got = cache.cached_windows([source], SETTINGS, build, folder)
        assert_equal(got, windows())
        assert isinstance(got.x, np.memmap)
        assert not got.x.flags.writeable
    assert build.calls == 1
    assert [p.name for p in entries(folder)[0].iterdir() if p.name.startswith(".")] == []


def test_no_windows_at_all_come_back_too(source, folder):
    for _ in range(2):
        assert_equal(cache.cached_windows([source], SETTINGS, Builder(0), folder), windows(0))


def test_other_settings_contents_names_and_versions_are_other_windows(source, folder, monkeypatch):
    build = Builder()
    cache.cached_windows([source], SETTINGS, build, folder)
    cache.cached_windows([source], {**SETTINGS, "seconds": 30.0}, build, folder)
    assert build.calls == 2
    cache.cached_windows([source], dict(reversed(SETTINGS.items())), build, folder)
    assert build.calls == 2  # the order of settings is none of them
    source.write_bytes(b"recordinG")
    os.utime(source, ns=(1, 1))
    cache.cached_windows([source], SETTINGS, build, folder)
    assert build.calls == 3
    other = source.rename(source.with_name("S3.pkl"))
    cache.cached_windows([other], SETTINGS, build, folder)
    assert build.calls == 4
    monkeypatch.setattr(cache, "__version__", "9.9.9")
    cache.cached_windows([other], SETTINGS, build, folder)
    assert build.calls == 5


def test_a_data_set_that_moved_is_the_same(source, folder, tmp_path):
    build = Builder()
    cache.cached_windows([source], SETTINGS, build, folder)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    cache.cached_windows([tmp_path / "elsewhere" / "S2" / "S2.pkl"], SETTINGS, build, folder)
    assert build.calls == 1


def test_a_file_is_hashed_again_only_when_its_size_or_time_changed(source, folder, monkeypatch):
    digest = cache.file_sha256(source, folder)
    monkeypatch.setattr(cache.hashlib, "file_digest", None)
    assert cache.file_sha256(source, folder) == digest
    os.utime(source, ns=(5, 5))
    with pytest.raises(TypeError):
        cache.file_sha256(source, folder)


def test_damaged_memory_of_hashes_only_costs_time(source, folder):
    digest = cache.file_sha256(source, folder)
    for text in ("{", "[]", '{"' + str(source.resolve()) + '": [1]}', ""):
        (folder / cache.HASHES).write_text(text)
        assert cache.file_sha256(source, folder) == digest


@pytest.mark.parametrize(
    "harm",
    [
        lambda entry: (entry / "x.npy").write_bytes((entry / "x.npy").read_bytes()[:-4]),
        lambda entry: (entry / "x.npy").write_bytes((entry / "x.npy").read_bytes()[:-1] + b"?"),
        lambda entry: (entry / "y.npy").write_bytes(b""),
        lambda entry: (entry / "subject.npy").unlink(),
        lambda entry: (entry / "windows.json").unlink(),
        lambda entry: (entry / "windows.json").write_text('{"arrays": {}, "values": {}}'),
        lambda entry: (entry / "windows.json").write_text("{"),
        lambda entry: (entry / "windows.json").write_text("[]"),
    ],
)
def test_a_damaged_entry_is_built_again(source, folder, harm, caplog):
    build = Builder()
    cache.cached_windows([source], SETTINGS, build, folder)
    (entry,) = entries(folder)
    harm(entry)
    assert_equal(cache.cached_windows([source], SETTINGS, build, folder), windows())
    assert build.calls == 2
    assert "are damaged and are made again" in caplog.text
    assert_equal(cache.cached_windows([source], SETTINGS, build, folder), windows())
    assert build.calls == 2
    assert entries(folder) == [entry]


def test_a_build_that_fails_leaves_nothing_behind(source, folder):
    def fail() -> Windows:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.cached_windows([source], SETTINGS, fail, folder)
    assert entries(folder) == []


def test_a_full_disk_costs_the_cache_and_not_the_windows(source, folder, monkeypatch, caplog):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.np, "save", full)
        assert_equal(cache.cached_windows([source], SETTINGS, Builder(), folder), windows())
    assert "No space left on device" in caplog.text
    assert entries(folder) == []


def test_what_cannot_be_written_as_json_is_refused(source, folder):
    for wrong in (object(), float("nan"), {1, 2}):
        with pytest.raises(ValueError, match="the settings of the windows cannot be written as JSON"):
            cache.cached_windows([source], {"wrong": wrong}, Builder(), folder)


def test_an_absent_file_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.dat"):
        cache.cached_windows([tmp_path / "absent.dat"], SETTINGS, Builder(), folder)


def test_names_are_stored_without_pickle(source, folder):
    odd = windows()
    odd = type(odd)(
        **{**{f.name: getattr(odd, f.name) for f in fields(Windows)}, "subject": odd.subject.astype(object)}
    )
    got = cache.cached_windows([source], SETTINGS, lambda: odd, folder)
    assert got.subject.tolist() == odd.subject.tolist()
    assert got.subject.dtype.kind == "U"
