import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcqsfl.federated.staleness import DISCOUNTS, make


def test_polynomial_is_a_sum_one_can_do() -> None:
    assert [make("polynomial", a=0.5)(s) for s in (0, 3, 8, 99)] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 10])
    assert [make("polynomial", a=2)(s) for s in (0, 1, 2)] == pytest.approx([1, 1 / 4, 1 / 9])


def test_hinge_is_flat_up_to_b_and_fades_after() -> None:
    assert [make("hinge", a=10, b=4)(s) for s in (0, 4, 5, 6, 13)] == pytest.approx([1, 1, 1 / 11, 1 / 21, 1 / 91])


def test_constant_is_one() -> None:
    assert [make("constant")(s) for s in (0, 1, 1000)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", sorted(DISCOUNTS))
@given(staleness=st.integers(0, 10**6))
def test_a_discount_is_one_on_time_and_never_grows(name: str, staleness: int) -> None:
    discount = make(name)
    assert discount(0) == 1.0
    assert 0 < discount(staleness + 1) <= discount(staleness) <= 1


@pytest.mark.parametrize("name", sorted(DISCOUNTS))
def test_an_update_from_the_future_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="staleness -1 started from a version that does not exist yet"):
        make(name)(-1)


def test_bad_names_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match="no staleness discount is called 'polynom'; did you mean 'polynomial'"):
        make("polynom")
    with pytest.raises(ValueError, match="constant has no option 'a'"):
        make("constant", a=1.0)
    with pytest.raises(ValueError, match="a = -1; it must be at least 0"):
        make("polynomial", a=-1.0)
    with pytest.raises(ValueError, match="a = 1 and b = -2"):
        make("hinge", a=1.0, b=-2)
