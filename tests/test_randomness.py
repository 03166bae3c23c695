import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcqsfl.randomness import derive, numpy_generator, torch_generator, torch_seeded

names = st.lists(st.one_of(st.integers(0, 99), st.text(max_size=5)), max_size=3)


@given(st.integers(0, 2**40), names)
def test_the_same_name_draws_the_same_numbers(seed, name) -> None:
    assert numpy_generator(seed, *name).random() == numpy_generator(seed, *name).random()
    assert torch.equal(
        torch.rand(2, generator=torch_generator(seed, *name)), torch.rand(2, generator=torch_generator(seed, *name))
    )


def test_other_names_and_other_seeds_draw_other_numbers() -> None:
    drawn = [derive(s, *n) for s in range(20) for n in [(), ("a",), ("b",), ("a", 1), ("a", 11), ("a1", 1)]]
    assert len(set(drawn)) == len(drawn)


def test_seeding_a_block_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch_seeded(0, "init"):
        torch.rand(5)
    assert torch.equal(torch.rand(1), expected)


def test_the_seed_of_a_stream_is_the_first_half_of_its_hash() -> None:
    import hashlib

    assert derive(7, "batches", 2) == int(hashlib.sha256(b"7\x1fbatches\x1f2").hexdigest()[:16], 16) >> 1
    assert isinstance(numpy_generator(7, "x"), np.random.Generator)
