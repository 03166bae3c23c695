from pathlib import Path

import pytest

from hcqsfl.data import synthetic
from hcqsfl.data.recording import SYNTHETIC_MARKER, is_synthetic
from hcqsfl.data.synthetic import measure
from hcqsfl.registry import load_object


@pytest.fixture(params=sorted(synthetic.WRITERS))
def writer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(writer: str, tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        synthetic.write(writer, tmp_path / name, seed=seed, size="tiny")
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "again")
    other = contents(tmp_path / "other")
    samples = [name for name in other if Path(name).suffix in (".pkl", ".dat", ".csv")]
    assert samples
    assert [name for name in samples if other[name] == one.get(name)] == []


def test_what_is_written_is_stamped_and_returned(writer: str, tmp_path: Path) -> None:
    told: list[tuple[int, int, Path]] = []
    files = synthetic.write(writer, tmp_path, size="tiny", progress=lambda *what: told.append(what))
    assert is_synthetic(tmp_path)
    assert "SYNTHETIC" in (tmp_path / SYNTHETIC_MARKER).read_text().splitlines()[0]
    assert {path.relative_to(tmp_path).as_posix() for path in files} | {SYNTHETIC_MARKER} == set(contents(tmp_path))
    done, total, last = told[-1]
    assert done == total == len(files)
    assert last == files[-1]


def test_a_folder_of_other_files_is_left_alone(writer: str, tmp_path: Path) -> None:
    (tmp_path / "S2").mkdir()
    (tmp_path / "S2" / "S2.pkl").write_bytes(b"somebody's real recording")
    with pytest.raises(ValueError, match=r"S2/S2\.pkl there was not written by a synthetic writer"):
        synthetic.write(writer, tmp_path, size="tiny")
    assert contents(tmp_path) == {"S2/S2.pkl": b"somebody's real recording"}


def test_a_real_file_put_beside_synthetic_ones_stops_the_writer(writer: str, tmp_path: Path) -> None:
    synthetic.write(writer, tmp_path, size="tiny")
    (tmp_path / "real.dat").write_bytes(b"real")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"real\.dat"):
        synthetic.write(writer, tmp_path, seed=1, size="tiny")
    assert contents(tmp_path) == before


def test_writing_again_leaves_nothing_of_the_earlier_request(writer: str, tmp_path: Path) -> None:
    synthetic.write(writer, tmp_path / "a", seed=1, size="tiny")
    synthetic.write(writer, tmp_path / "a", seed=2, size="tiny")
    synthetic.write(writer, tmp_path / "b", seed=2, size="tiny")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_ensure_writes_once_and_again_only_when_asked_for_something_else(writer: str, tmp_path: Path) -> None:
    first = synthetic.ensure(writer, tmp_path, seed=1, size="tiny")
    stamps = {path: path.stat().st_mtime_ns for path in first}
    assert synthetic.ensure(writer, tmp_path, seed=1, size="tiny") == first
    assert {path: path.stat().st_mtime_ns for path in first} == stamps
    second = synthetic.ensure(writer, tmp_path, seed=2, size="tiny")
    assert all(path.stat().st_mtime_ns > max(stamps.values()) for path in second)


def test_an_interrupted_writer_leaves_a_stamped_folder_that_ensure_does_again(writer: str, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, last: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(writer, tmp_path / "a", seed=1, size="tiny", progress=interrupt)
    assert is_synthetic(tmp_path / "a")
    synthetic.ensure(writer, tmp_path / "a", seed=1, size="tiny")
    synthetic.write(writer, tmp_path / "b", seed=1, size="tiny")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_marker_that_points_outside_its_folder_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / SYNTHETIC_MARKER).write_text("a sentence\na request\n../precious\n")
    with pytest.raises(ValueError, match="outside its folder"):
        synthetic.write("wesad", tmp_path / "root", size="tiny")
    assert (tmp_path / "precious").read_text() == "keep"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    with pytest.raises(ValueError, match="which is a file"):
        synthetic.write("wesad", tmp_path / "root", size="tiny")


def test_a_mistyped_name_or_size_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'wesad'"):
        synthetic.write("wesat", tmp_path)
    with pytest.raises(ValueError, match="did you mean 'small'"):
        synthetic.write("wesad", tmp_path, size="smal")  # type: ignore[arg-type]


def test_every_writer_has_the_three_sizes(writer: str) -> None:
    assert set(load_object(synthetic.WRITERS[writer]).SIZES) == {"tiny", "small", "full"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mimic_waveform", ["n_subjects=5", "minutes=4"]),
        ("pamap2", ["n_subjects=2", "scale=0.03"]),
        ("ton_iot", ["scale=0.01"]),
        ("wesad", ["n_subjects=3", "scale=0.06"]),
    ],
)
def test_the_difficulty_is_measured_beside_the_trivial_score(
    name: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    measure.main([name, "--size", "tiny", "--set", *options])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    for line in lines:
        trivial, forest = float(line.split()[-3]), float(line.split()[-1])
        assert 0 <= trivial <= 1
        assert trivial - 0.1 < forest <= 1
