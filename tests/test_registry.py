import pytest

from hcqsfl.registry import load_object, lookup

TABLE = {"iqp": 1, "basic_entangler": 2}


def test_a_known_name_gives_what_it_stands_for() -> None:
    assert lookup("circuit", TABLE, "iqp") == 1


def test_a_mistyped_name_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(
        ValueError, match=r"no circuit is called 'ipq'; did you mean 'iqp'\? Known: basic_entangler, iqp"
    ):
        lookup("circuit", TABLE, "ipq")


def test_a_name_like_none_gets_the_list_alone() -> None:
    with pytest.raises(ValueError, match=r"no circuit is called 'zzzzzz'\. Known"):
        lookup("circuit", TABLE, "zzzzzz")


def test_an_object_is_loaded_by_its_path() -> None:
    assert load_object("hcqsfl.registry:lookup") is lookup
    assert load_object("hcqsfl.registry").lookup is lookup
