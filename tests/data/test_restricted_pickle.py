import contextlib
import os
import pickle
import pickletools
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcqsfl.data.restricted_pickle import read

quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CONTENT = {
    "subject": "S2",
    "signal": {"chest": {"ACC": np.arange(2100.0).reshape(700, 3), "Temp": np.ones((700, 1), dtype="<f4")}},
    "label": np.repeat(np.arange(7, dtype="<i4"), 100),
    "other": [1, -2, 2.5, None, True, False, 10**15, (1, 2, 3, 4), "é" * 300, b"", np.zeros((0, 1)), [[]]],
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(5, dtype=">i8"),
}

# how Python 2's cPickle writes {'subject': 'S2', 'label': array([1, 2, 258], dtype=int32)}, protocols 0 and 2
PYTHON_2_TEXT = (
    b"(dp1\nS'subject'\np2\nS'S2'\np3\nsS'label'\np4\ncnumpy.core.multiarray\n_reconstruct\np5\n(cnumpy\nndarray\np6\n"
    b"(I0\ntS'b'\ntRp7\n(I1\n(I3\ntcnumpy\ndtype\np8\n(S'i4'\nI0\nI1\ntRp9\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    b"S'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x02\\x01\\x00\\x00'\ntbs."
)
PYTHON_2_BINARY = (
    b"\x80\x02}q\x01(U\x07subjectq\x02U\x02S2q\x03U\x05labelq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\n"
    b"ndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x03\x85cnumpy\ndtype\nq\x08U\x02i4K\x00K\x01\x87Rq\t(K\x03U\x01<"
    b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c\x01\x00\x00\x00\x02\x00\x00\x00\x02\x01\x00\x00tbu."
)


def stored(folder: Path, data: bytes) -> Path:
    path = folder / "S2.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_comes_back_as_pickle_reads_it(tmp_path, protocol):
    got = read(stored(tmp_path, pickle.dumps(CONTENT, protocol)))
    empty = got["other"].pop(9)
    assert len(empty) == 0
    expected = {**CONTENT, "other": [x for x in CONTENT["other"] if not isinstance(x, bytes)]}
    np.testing.assert_equal(got, expected)
    assert got["signal"]["chest"]["Temp"].dtype == np.float32
    assert got["big"].dtype == np.dtype(">i8")


@pytest.mark.parametrize("data", [PYTHON_2_TEXT, PYTHON_2_BINARY])
def test_python_2_pickles_are_read_as_latin1(tmp_path, data):
    np.testing.assert_equal(pickle.loads(data, encoding="latin1"), {"subject": "S2", "label": np.array([1, 2, 258])})
    got = read(stored(tmp_path, data))
    assert got["subject"] == "S2"
    assert got["label"].tolist() == [1, 2, 258]
    assert got["label"].dtype == np.dtype("<i4")


@pytest.mark.parametrize("core", ["core", "_core"])
def test_arrays_of_old_and_new_numpy_are_read(tmp_path, core):
    data = PYTHON_2_BINARY.replace(b"numpy.core.", f"numpy.{core}.".encode())
    assert read(stored(tmp_path, data))["label"].tolist() == [1, 2, 258]


class Runs:
    def __reduce__(self):
        return os.system, ("touch /tmp/hcqsfl_must_not_exist",)


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_never_run(tmp_path, protocol):
    with pytest.raises(ValueError, match=r"it names '(posix|nt).system', which is not among what an array needs"):
        read(stored(tmp_path, pickle.dumps(Runs(), protocol)))
    assert not Path("/tmp/hcqsfl_must_not_exist").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\nbytearray\n(I9999999999\ntR.",
        b"c__builtin__\nbytes\n(I9999999999\ntR.",
        b"cnumpy\nzeros\n(I9999999999\ntR.",
        b"cnumpy\nndarray\n(I9999999999\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I9999999999\ntS'b'\ntR.",
        b"c_codecs\nencode\n(S'a'\nS'zlib'\ntR.",
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        b"cnumpy\ndtype\n(S'V9999999999'\nI0\nI1\ntR.",
        b"cnumpy\ndtype\n(S'i4,i4'\nI0\nI1\ntR.",
        b"\x8c\x02os\x8c\x06system\x93.",
        b"(S'ls'\nios\nsystem\n.",
        b"Pid\n.",
        b"\x82\x01.",
        b"}}b.",
        b"(I1\nI2\nd.",
        b"(I1\nI2\nI3\nd.",
        b"}I1\nI2\ns.",
        b"((ld.",
        b"S'a\n.",
        b"S'\\q'\n.",
        b"I1e9\n.",
        b"I" + b"9" * 90 + b"\n.",
        b"\x8a\xff" + b"\1" * 255 + b".",
        b"NN.",
        b".",
        b"",
        b"<html>404</html>",
        b"h\x05.",
        b"a.",
        b"0.",
        b"(.",
    ],
)
def test_what_plain_data_does_not_need_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"S2.pkl: (refused|not a pickle|the file is empty)"):
        read(stored(tmp_path, data))


@pytest.mark.parametrize(
    "announced",
    [
        b"T" + struct.pack("<I", 2**31 - 1),
        b"B" + struct.pack("<I", 2**32 - 1),
        b"X" + struct.pack("<I", 2**31),
        b"\x8d" + struct.pack("<Q", 2**40),
        b"\x8e" + struct.pack("<Q", 2**64 - 1),
        b"\x96" + struct.pack("<Q", 9 * 2**30),
    ],
)
def test_lengths_beyond_the_file_are_refused_before_anything_is_allocated(tmp_path, announced):
    path = stored(tmp_path, b"\x80\x04" + announced + b"short.")
    tracemalloc.start()
    with pytest.raises(ValueError, match="more are announced"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_shape_that_its_bytes_do_not_fill_is_refused(tmp_path):
    data = PYTHON_2_BINARY.replace(b"K\x03\x85cnumpy\ndtype", b"J\xff\xff\xff\x7f\x85cnumpy\ndtype")
    assert data != PYTHON_2_BINARY
    with pytest.raises(
        ValueError, match=r"shape \(2147483647,\) and type int32 has 8589934588 bytes, but 12 are there"
    ):
        read(stored(tmp_path, data))


def test_more_operations_than_data_needs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="more than 100000 operations"):
        read(stored(tmp_path, b"]" * 200_000 + b"."))


def test_the_same_text_cannot_be_turned_into_bytes_again_and_again(tmp_path):
    text = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000 + b"q\x01"
    call = b"c_codecs\nencode\n(h\x01\x8c\x06latin1tR"
    with pytest.raises(ValueError, match="more bytes than it has"):
        read(stored(tmp_path, b"\x80\x04" + text + call * 50 + b"."))


def test_a_doubling_tower_of_references_costs_nothing(tmp_path):
    tower = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(100))
    shape = b"cnumpy.core.numeric\n_frombuffer\n(C\x01acnumpy\ndtype\n(\x8c\x02u1I0\nI1\ntRhdC\x01CtR."
    with pytest.raises(ValueError, match="refused, an array"):
        read(stored(tmp_path, b"\x80\x04)q\x00" + tower + shape))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_cut_short_anywhere_is_refused(tmp_path, protocol):
    whole = pickle.dumps({"label": np.arange(20), "subject": "S2"}, protocol)
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"S2.pkl: "):
            read(stored(tmp_path, whole[:end]))


SEEDS = [PYTHON_2_TEXT, PYTHON_2_BINARY, *(pickle.dumps(CONTENT, protocol) for protocol in (0, 2, 4, 5))]
CODES = [op.code.encode("latin1") for op in pickletools.opcodes]


@quick
@given(data=st.data())
def test_damaged_bytes_give_data_or_a_value_error_and_no_more_memory_than_the_file(tmp_path, data):
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        new = data.draw(st.binary(min_size=1, max_size=9) | st.sampled_from(CODES))
        damaged[at : at + data.draw(st.integers(0, 9))] = new
    path = stored(tmp_path, bytes(damaged))
    tracemalloc.start()
    with contextlib.suppress(ValueError):  # anything else fails the test
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 + 20 * len(damaged)
