import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.examples import rows
from hcqsfl.evaluation.cost import Cost, human, read_rows


def test_bytes_are_the_sums_of_the_rows():
    cost = Cost.of(rows("hybrid", seeds=(0, 1), folds=("A", "B"), rounds=4))
    # per seed: 4 rounds of 10 100 B in fold A and 4 of 10 200 B in fold B
    assert cost.bytes_up == 2 * 4 * (10_100 + 10_200)
    assert cost.bytes_down == 16 * 20_000
    assert cost.bytes_up_per_round == 10_150
    assert (cost.runs, cost.rounds, cost.messages, cost.seconds) == (4, 16, 192, 8.0)


def test_an_arm_that_trained_in_no_round_has_no_cost():
    assert Cost.of([]) is None


def test_a_round_that_was_run_again_counts_once(tmp_path):
    written = rows("hybrid", folds=("A",), rounds=3)
    again = written[-1] | {"train_loss": 0.125}
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*written, again]))
    read = read_rows(path)
    assert len(read) == 3
    assert read[-1]["train_loss"] == 0.125


def test_a_line_cut_off_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows("hybrid", rounds=2))
    path.write_text(text[:-30])
    with pytest.raises(ValueError, match=r"line 4 of .*metrics.jsonl is not JSON"):
        read_rows(path)
    path.write_text('{"arm": "hybrid"}\n')
    with pytest.raises(ValueError, match=r"line 1 .* lacks seed, fold, round"):
        read_rows(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match=r"line 1 .* lacks arm"):
        read_rows(path)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (9999 * 1024**4, "9999.0 TiB"),
    ],
)
def test_sizes_are_written_for_people(n_bytes, text):
    assert human(n_bytes) == text


@given(st.integers(0, 2**49))
def test_a_written_size_is_within_rounding_of_the_bytes(n_bytes):
    number, unit = human(n_bytes).split()
    factor = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}[unit]
    assert abs(float(number) * factor - n_bytes) <= 0.0501 * factor
    assert float(number) < 1024
