from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hcqsfl.data import number_grid
from hcqsfl.data.number_grid import read_grid

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["careful", "fast"])
def reader(request, monkeypatch):
    """Read with either reader; the fast one must really have read what it is given."""
    monkeypatch.setattr(number_grid, "SMALL", 0 if request.param == "fast" else 10**9)
    return request.param


def grid_file(folder: Path, text: str) -> Path:
    path = folder / "grid.dat"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("form", ["%.6g", "%.2f", "%.17g", "%d"])
def test_both_readers_return_pandas_numbers(tmp_path, reader, form):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 7)) * 10.0 ** rng.integers(-8, 8, size=(500, 7))
    if form == "%d":
        values = np.round(values)
    if form != "%d":
        values[rng.random(values.shape) < 0.2] = np.nan
    text = "\n".join(" ".join("NaN" if np.isnan(v) else form % v for v in row) for row in values) + "\n"
    path = grid_file(tmp_path, text)
    expected = pd.read_csv(path, sep=r"\s+", header=None, float_precision="round_trip").to_numpy(dtype=float)
    np.testing.assert_array_equal(read_grid(path, 7, range(7)), expected.T)
    np.testing.assert_array_equal(read_grid(path, 7, [6, 0]), expected.T[[6, 0]])


def test_the_fast_reader_reads_what_is_well_formed_by_itself():
    text = "1 -2.5 3e-05\nNaN 0.25 +1\n"
    assert number_grid._read_fast(text.encode(), 3, [0]) is None  # a plus sign is unusual
    plain = "1 -2.5 3e-05 \r\nNaN  0.25 1\n.5 7. 1E2"
    np.testing.assert_array_equal(
        number_grid._read_fast(plain.encode(), 3, [0, 1, 2]), [[1, np.nan, 0.5], [-2.5, 0.25, 7], [3e-05, 1, 100]]
    )


@pytest.mark.parametrize(
    "text", ["1 2\n3 4\n", "1 2\n3 4", "1 2 \n3 4 \n", "1 2\r\n3 4\r\n", "1\t2\n3 4\n", " 1  2\n3   4\n", "1 2 \n3 4\n"]
)
def test_blanks_and_line_ends_may_differ(tmp_path, reader, text):
    assert read_grid(grid_file(tmp_path, text), 2, [0, 1]).tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n4 5\n7 8 9\n", r"grid.dat, line 2: the row has 2 numbers, but every row must have 3"),
        ("1 2 3\n4 5 6\n7 8", r"line 3: the row has 2 numbers"),
        ("1 2 3\n4 5 6 7\n", r"line 2: the row has 4 numbers"),
        ("1 2 3\n\n4 5 6\n", r"line 2: column 1 holds ''"),
        ("1 2 3\n4 x 6\n", r"line 2: column 2 holds 'x', which is not a number"),
        ("1 2 3\n4 5- 6\n", r"line 2: column 2 holds '5-'"),
        ("1 2 3\n4 NaNa 6\n", r"line 2: column 2 holds 'NaNa'"),
        ("1 2 3\n4 inf 6\n", r"line 2: column 2 is infinite"),
        ("1 2 3\n4 1e999 6\n", r"line 2: column 2"),
        ("1 2 3\n4 - 6\n", r"line 2: column 2 holds '-'"),
        ("", "the file is empty"),
        (" \n", "the file is empty"),
    ],
)
def test_a_bad_file_is_refused_naming_the_line(tmp_path, reader, text, message):
    with pytest.raises(ValueError, match=message):
        read_grid(grid_file(tmp_path, text), 3, range(3))


@quick
@given(values=arrays(np.float64, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(allow_infinity=False)))
def test_every_number_comes_back_as_it_was_written(tmp_path, values):
    path = grid_file(
        tmp_path, "".join(" ".join("NaN" if v != v else repr(float(v)) for v in row) + "\n" for row in values)
    )
    for small in (0, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(number_grid, "SMALL", small)
            np.testing.assert_array_equal(read_grid(path, 3, range(3)), values.T)


@quick
@given(data=st.data())
def test_damaged_bytes_are_read_alike_by_both_readers_or_refused_by_both(tmp_path, data):
    good = b"1.5 NaN -2e-05\n" * 4
    at = data.draw(st.integers(0, len(good) - 1))
    damage = data.draw(st.binary(max_size=4) | st.sampled_from([b" ", b"\n", b"-", b".", b"e", b"N", b"9" * 20]))
    path = tmp_path / "grid.dat"
    path.write_bytes(good[:at] + damage + good[at + data.draw(st.integers(0, 3)) :])
    answers = []
    for small in (0, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(number_grid, "SMALL", small)
            try:
                answers.append(read_grid(path, 3, range(3)).tolist())
            except ValueError as error:
                answers.append(str(error))
    np.testing.assert_equal(answers[0], answers[1])
