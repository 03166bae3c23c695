"""Several processes at a time: what they tell and yield, and what a failure leaves."""

import time
from functools import partial

import pytest

from hcqsfl.recipes.processes import each_apart, tell

_added = 0


def _begin(number: int) -> None:
    global _added
    _added = number


def _reciprocal(number: int) -> float:
    time.sleep(0.3)
    return 1 / number


def _spoken(number: int) -> int:
    tell(number, "x" * 200_000)  # more than a pipe holds
    tell(number, "done")
    return number + _added


def test_what_was_under_way_is_yielded_before_a_failure_is_raised() -> None:
    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(each_apart(_reciprocal, [1, 0, *range(2, 40)], 2, 1))
    assert 1.0 in found
    assert len(found) < 39
    assert list(each_apart(_reciprocal, [1, 2, 4], 1, 1)) == [1.0, 0.5, 0.25]


def test_all_that_a_process_tells_is_heard_before_its_result() -> None:
    heard = []
    for result in each_apart(_spoken, range(6), 2, 1, partial(_begin, 100), lambda *message: heard.append(message)):
        assert [text for number, text in heard if number == result - 100] == ["x" * 200_000, "done"]
    assert sorted({number for number, _ in heard}) == list(range(6))
    assert len(heard) == 12


def test_who_is_not_in_such_a_process_is_told_that_nobody_listens() -> None:
    with pytest.raises(RuntimeError, match="nobody listens"):
        tell("a word")
