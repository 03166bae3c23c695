"""Codecs: what comes back, what it weighs as serialised, and what hostile tensors meet."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hcqsfl.split.codecs import CODECS, MAX_VALUES, Codec, ErrorFeedback, decoder, make
from hcqsfl.split.message import Message, decode, encode

EVERY = pytest.mark.parametrize("name", sorted(CODECS))
LOSSY = sorted(CODECS.keys() - {"none"})
MATRICES = sorted(CODECS.keys() - {"none", "float16", "bfloat16"})


def drawing(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smashed(b: int = 16, n: int = 24, seed: int = 1) -> Tensor:
    return torch.randn(b, n, generator=drawing(seed)) * torch.logspace(-3, 3, n)


def crossed(codec: Codec, tensor: Tensor) -> tuple[Tensor, int]:
    """What comes out of a message at the other end, and how many bytes it weighed."""
    data = encode(Message("forward", "a", 1, 1, codec.encode("smashed", tensor)))
    return decoder(codec.name).decode("smashed", decode(data).tensors), len(data)


def test_none_is_bit_exact_and_free() -> None:
    x = smashed()
    x[0, :4] = torch.tensor([-0.0, math.nan, math.inf, 1e-45])
    back, weight = crossed(make("none"), x)
    assert torch.equal(back.view(torch.int32), x.view(torch.int32))
    assert weight == len(encode(Message("forward", "a", 1, 1, {"smashed": x})))


def test_float16_is_numpys_rounding() -> None:
    x = smashed().clamp(-6e4, 6e4)
    assert np.array_equal(crossed(make("float16"), x)[0].numpy(), x.numpy().astype(np.float16).astype(np.float32))


def test_bfloat16_keeps_the_upper_half_of_the_bits_rounded_to_even() -> None:
    x = smashed()
    bits = x.numpy().view(np.uint32).astype(np.uint64)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)
    assert np.array_equal(crossed(make("bfloat16"), x)[0].numpy(), upper.view(np.float32))


@pytest.mark.parametrize(("name", "levels"), [("int8", 127), ("int4", 7)])
@pytest.mark.parametrize("n", [1, 6, 7])
def test_quantised_numbers_are_whole_multiples_of_a_scale_a_column(name: str, levels: int, n: int) -> None:
    x = smashed(9, n).numpy()
    scale = (np.abs(x).max(axis=0) / np.float32(levels)).astype(np.float32)
    expected = np.round(x / scale).clip(-levels, levels).astype(np.float32) * scale
    back, _ = crossed(make(name), torch.tensor(x))
    assert np.array_equal(back.numpy(), expected)
    assert (np.abs(back.numpy() - x) <= scale * 0.5001).all()


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_zero_stays_zero_and_a_column_of_zeros_too(name: str) -> None:
    x = smashed(8, 5)
    x[:, 2] = 0.0
    x[3] = 0.0
    back, _ = crossed(make(name), x)
    assert not back[:, 2].any()
    assert not back[3].any()


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_stochastic_rounding_is_right_on_average_and_by_one_level_at_most(name: str) -> None:
    x = smashed(6, 5)
    codec = make(name, generator=drawing(), stochastic=True)
    draws = torch.stack([crossed(codec, x)[0] for _ in range(2000)])
    scale = x.abs().amax(dim=0) / (127 if name == "int8" else 7)
    assert ((draws - x).abs() <= scale * 1.0001).all()
    # the rounding of one number has a standard deviation of half a level at most
    assert ((draws.mean(dim=0) - x).abs() <= 5 * 0.5 * scale / math.sqrt(2000)).all()


@pytest.mark.parametrize(("share", "n", "k"), [(0.1, 24, 3), (0.1, 30, 3), (0.01, 24, 1), (1.0, 5, 5)])
def test_topk_keeps_the_largest_of_each_row(share: float, n: int, k: int) -> None:
    x = smashed(7, n).numpy()
    expected = np.zeros_like(x)
    for row, kept in zip(x, expected, strict=True):
        for j in sorted(range(n), key=lambda j: (-abs(row[j]), j))[:k]:
            kept[j] = row[j]
    assert np.array_equal(crossed(make("topk", share=share), torch.tensor(x))[0].numpy(), expected)


def test_of_equal_magnitudes_topk_keeps_the_first() -> None:
    x = torch.tensor([[1.0, -2.0, 2.0, -2.0, 2.0]])
    assert crossed(make("topk", share=0.4), x)[0].tolist() == [[0.0, -2.0, 2.0, 0.0, 0.0]]


@pytest.mark.parametrize(("n", "dtype"), [(256, torch.uint8), (257, torch.int16), (32769, torch.int32)])
def test_places_travel_in_the_smallest_type(n: int, dtype: torch.dtype) -> None:
    x = torch.zeros(2, n)
    x[:, -1] = 1.0
    sent = make("topk", share=1 / n).encode("smashed", x)
    assert sent["smashed.index"].dtype == dtype
    assert torch.equal(decoder("topk").decode("smashed", sent), x)


def test_randtopk_draws_the_rest_as_often_as_its_weights_say() -> None:
    # k = 1: the largest with 1 - alpha, each of the other four with alpha / 4
    x = torch.tensor([[1.0, 2.0, 5.0, 3.0, 4.0]]).expand(20_000, 5)
    codec = make("randtopk", generator=drawing(), share=0.2, alpha=0.2)
    often = (crossed(codec, x)[0] != 0).float().mean(dim=0)
    expected = torch.tensor([0.05, 0.05, 0.8, 0.05, 0.05])
    assert ((often - expected).abs() <= 5 * (expected * (1 - expected) / 20_000).sqrt()).all()


def test_randtopk_draws_without_replacement_as_written_out() -> None:
    # k = 2 of 3: either both of the largest (weight 0.35 each), or one of them and the third (weight 0.3)
    weights, n = [0.35, 0.35, 0.3], 20_000
    both = sum(weights[i] * weights[1 - i] / (1 - weights[i]) for i in (0, 1))
    x = torch.tensor([[3.0, 2.0, 1.0]]).expand(n, 3)
    back, _ = crossed(make("randtopk", generator=drawing(), share=2 / 3, alpha=0.3), x)
    assert ((back != 0).sum(dim=1) == 2).all()
    measured = float((back[:, 2] == 0).float().mean())
    assert abs(measured - both) <= 5 * math.sqrt(both * (1 - both) / n)


def test_outside_training_randtopk_is_topk_and_draws_nothing() -> None:
    codec, x = make("randtopk", generator=drawing(), share=0.2, alpha=0.9), smashed()
    before = codec.tensors()["generator"].clone()
    sent = codec.encode("smashed", x, training=False)
    assert torch.equal(codec.decode("smashed", sent), crossed(make("topk", share=0.2), x)[0])
    assert torch.equal(codec.tensors()["generator"], before)


def test_randtopk_without_alpha_is_topk() -> None:
    codec = make("randtopk", generator=drawing(), share=0.2, alpha=0.0)
    assert torch.equal(crossed(codec, smashed())[0], crossed(make("topk", share=0.2), smashed())[0])


def test_bytes_as_serialised_are_those_one_can_count() -> None:
    b, n = 64, 100
    x = smashed(b, n).clamp(-6e4, 6e4)

    def numbers(codec: Codec) -> int:
        sent = codec.encode("smashed", x)
        data = encode(Message("forward", "a", 1, 1, sent))
        header = 8 + int.from_bytes(data[:8], "little")
        assert header <= 400
        return len(data) - header

    assert numbers(make("none")) == 4 * b * n
    assert numbers(make("float16")) == numbers(make("bfloat16")) == 2 * b * n
    assert numbers(make("int8")) == b * n + 4 * n
    assert numbers(make("int4")) == b * n // 2 + 4 * n
    assert numbers(make("topk", share=0.1)) == b * 10 * (4 + 1) + 4
    assert numbers(make("randtopk", generator=drawing(), share=0.1)) == b * 10 * (4 + 1) + 4


@EVERY
def test_a_tensor_with_a_graph_is_left_alone(name: str) -> None:
    x = smashed().clamp(-6e4, 6e4).requires_grad_()
    before = x.detach().clone()
    make(name, generator=drawing()).encode("smashed", x)
    assert torch.equal(x.detach(), before)


@pytest.mark.parametrize("name", LOSSY)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9)),
    seed=st.integers(0, 2**20),
    exponent=st.integers(-45, 38),
)
def test_any_finite_tensor_comes_back_finite_in_its_shape(
    name: str, shape: tuple[int, int], seed: int, exponent: int
) -> None:
    x = (torch.rand(shape, generator=drawing(seed), dtype=torch.float64) * 2 - 1) * 3.4 * 10.0**exponent
    x = x.to(torch.float32)
    codec = make(name, generator=drawing())
    if name == "float16" and exponent > 3:
        x = x.clamp(-65504, 65504)
    back, _ = crossed(codec, x)
    assert back.shape == x.shape
    assert back.dtype == torch.float32
    assert back.isfinite().all()
    assert (back * x >= 0).all()


NAMES = st.sampled_from(["smashed", "smashed.scale", "smashed.index", "smashed.width"])
TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]


@st.composite
def hostile(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(TYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    if dtype.is_floating_point:
        values = st.sampled_from([0.0, 1.0, -1.0, 3e38, math.nan, math.inf, 1e-45])
    else:
        info = torch.iinfo(dtype)
        values = st.integers(max(info.min, -(2**40)), min(info.max, 2**40)) | st.sampled_from([0, 1, 3, info.max])
    count = math.prod(shape)
    return torch.tensor(draw(st.lists(values, min_size=count, max_size=count)), dtype=dtype).reshape(shape)


@EVERY
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tensors=st.dictionaries(NAMES, hostile(), max_size=4))
def test_hostile_tensors_are_decoded_or_refused_and_nothing_else(name: str, tensors: dict[str, Tensor]) -> None:
    try:
        back = decoder(name).decode("smashed", tensors)
    except ValueError:
        return
    assert back.numel() <= MAX_VALUES
    if name in MATRICES:
        assert back.isfinite().all()


@pytest.mark.parametrize("name", MATRICES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_one_damaged_tensor_is_decoded_or_refused(name: str, data: st.DataObject) -> None:
    sent = make(name, generator=drawing(), **({"share": 0.5} if "topk" in name else {})).encode("x", smashed(3, 4))
    broken = data.draw(st.sampled_from(sorted(sent)))
    raw = bytearray(sent[broken].numpy().tobytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    sent[broken] = torch.frombuffer(raw, dtype=sent[broken].dtype).reshape(sent[broken].shape)
    try:
        back = decoder(name).decode("x", sent)
    except ValueError:
        return
    assert back.isfinite().all()


def test_what_a_codec_did_not_make_is_refused_in_words() -> None:
    x = smashed(4, 6)
    for name, changed, says in (
        ("int8", {"smashed.scale": torch.full((6,), math.inf)}, "negative or not finite"),
        ("int8", {"smashed.scale": -torch.ones(6)}, "negative or not finite"),
        ("int8", {"smashed.scale": torch.full((6,), 3e38)}, "so large that numbers overflow"),
        ("int8", {"smashed.scale": torch.ones(5)}, "6 columns in 'smashed' and 5 scales"),
        ("int8", {"smashed": torch.full((4, 6), -128, dtype=torch.int8)}, "level of -128"),
        ("int8", {"smashed": x}, "needs 'smashed' as torch.int8 of 2 dimensions, and got torch.float32"),
        ("int4", {"smashed": torch.zeros(4, 3, dtype=torch.uint8)}, "level of -8"),
        ("int4", {"smashed.scale": torch.ones(9)}, "3 bytes a row in 'smashed' for 9 scales"),
        ("topk", {"smashed.index": torch.full((4, 1), 6, dtype=torch.uint8)}, "not ascending within 0 to 5"),
        ("topk", {"smashed.index": torch.zeros(4, 2, dtype=torch.uint8)}, r"\(4, 1\) numbers and \(4, 2\) places"),
        ("topk", {"smashed.width": torch.tensor([0], dtype=torch.int32)}, "1 numbers a row"),
        ("topk", {"smashed.width": torch.tensor([2**31 - 1], dtype=torch.int32)}, "at most 16,777,216"),
        ("topk", {"smashed": torch.full((4, 1), math.nan)}, "got NaN or infinity"),
        ("float16", {"smashed": x}, "needs 'smashed' as torch.float16; torch.float32 came"),
    ):
        sent = make(name).encode("smashed", x.clamp(-6e4, 6e4)) | changed
        with pytest.raises(ValueError, match=says):
            decoder(name).decode("smashed", sent)
    for name in CODECS:
        with pytest.raises(ValueError, match="smashed"):
            decoder(name).decode("smashed", {"labels": torch.zeros(4)})


def test_places_that_repeat_are_refused() -> None:
    sent = make("topk", share=0.5).encode("smashed", smashed(1, 4))
    sent["smashed.index"] = torch.tensor([[2, 2]], dtype=torch.uint8)
    with pytest.raises(ValueError, match="not ascending"):
        decoder("topk").decode("smashed", sent)


@pytest.mark.parametrize("name", LOSSY)
def test_what_a_codec_cannot_carry_is_refused(name: str) -> None:
    codec = make(name, generator=drawing())
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="smashed: it holds NaN or infinity"):
            codec.encode("smashed", torch.tensor([[1.0, bad]]))
    with pytest.raises(ValueError, match=r"carries float32, and smashed is torch.float64; choose the codec none"):
        codec.encode("smashed", torch.ones(2, 2, dtype=torch.float64))
    if name in MATRICES:
        with pytest.raises(ValueError, match=r"carries \(b, n\), and smashed is \(2, 3, 4\)"):
            codec.encode("smashed", torch.ones(2, 3, 4))


def test_float16_refuses_what_overflows() -> None:
    with pytest.raises(ValueError, match="holds numbers up to 65504, and the largest in smashed is 100000"):
        make("float16").encode("smashed", torch.tensor([[1e5]]))


def test_drawing_needs_a_generator_and_decoding_does_not() -> None:
    for name, options in (("randtopk", {}), ("int8", {"stochastic": True}), ("int4", {"stochastic": True})):
        with pytest.raises(ValueError, match="draws at random and was given no generator"):
            make(name, **options).encode("smashed", smashed())
        sent = make(name, generator=drawing(), **options).encode("smashed", smashed())
        assert decoder(name).decode("smashed", sent).shape == smashed().shape


@pytest.mark.parametrize("name", ["topk", "int4", "bfloat16"])
def test_with_error_feedback_only_what_is_owed_now_is_missing(name: str) -> None:
    codec = make(name, error_feedback=True)
    asked = arrived = torch.zeros(10, dtype=torch.float64)
    for step, rows in enumerate([8, 8, 3, 8, 1]):
        gradient = torch.randn(rows, 10, generator=drawing(step))
        asked = asked + gradient.double().sum(dim=0)
        arrived = arrived + decoder(name).decode("gradient", codec.encode("gradient", gradient)).double().sum(dim=0)
    owed = codec.tensors()["owed/gradient"]
    assert owed.abs().max() > 0
    torch.testing.assert_close(asked - arrived, owed, rtol=0, atol=1e-12)


def test_error_feedback_learns_what_topk_alone_never_sends() -> None:
    # the second column's gradient is always the smaller, so that without feedback it never moves
    gradient = torch.tensor([[3.0, 1.0]])
    sums = {}
    for feedback in (False, True):
        codec = make("topk", share=0.5, error_feedback=feedback)
        sums[feedback] = sum(codec.decode("g", codec.encode("g", gradient)) for _ in range(40))
    assert sums[False].tolist() == [[120.0, 0.0]]
    torch.testing.assert_close(sums[True] / 40, gradient, rtol=0, atol=0.1)


def test_error_feedback_outside_training_owes_nothing() -> None:
    codec = make("topk", error_feedback=True)
    codec.encode("gradient", smashed(), training=False)
    assert codec.tensors() == {}


def test_error_feedback_owes_each_name_for_itself_and_one_width() -> None:
    codec = make("topk", error_feedback=True)
    codec.encode("gradient", smashed(4, 6))
    codec.encode("features", smashed(4, 5))
    assert {k: len(t) for k, t in codec.tensors().items()} == {"owed/gradient": 6, "owed/features": 5}
    with pytest.raises(ValueError, match="owes 6 columns of gradient, and 5 are to be sent"):
        codec.encode("gradient", smashed(4, 5))


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize(
    ("name", "options"), [("randtopk", {"share": 0.3}), ("int4", {"stochastic": True}), ("topk", {}), ("none", {})]
)
def test_a_codec_resumed_from_its_tensors_goes_on_bit_for_bit(name: str, options: dict, feedback: bool) -> None:
    straight = make(name, drawing(5), feedback, **options)
    first = make(name, drawing(5), feedback, **options)
    resumed = make(name, drawing(6), feedback, **options)
    for seed in (1, 2):
        straight.encode("gradient", smashed(seed=seed))
        first.encode("gradient", smashed(seed=seed))
    resumed.load_tensors({name: tensor.clone() for name, tensor in first.tensors().items()})
    a, b = straight.encode("gradient", smashed(seed=3)), resumed.encode("gradient", smashed(seed=3))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_checkpoint_of_another_codec_is_refused() -> None:
    held = make("randtopk", generator=drawing()).tensors()
    for other in (make("topk"), make("int8"), make("topk", error_feedback=True)):
        with pytest.raises(ValueError, match="of another codec"):
            other.load_tensors(held)
    with pytest.raises(ValueError, match="of another codec"):
        make("randtopk", generator=drawing()).load_tensors({})


def test_bad_names_and_options_are_refused_with_help() -> None:
    for name, options, says in (
        ("top_k", {}, "no codec is called 'top_k'; did you mean 'topk'"),
        ("topk", {"shares": 0.1}, "topk has no option 'shares'; did you mean 'share'"),
        ("float16", {"share": 0.1}, "float16 has no option 'share'"),
        ("topk", {"share": 0.0}, "share of 0; it must be above 0"),
        ("randtopk", {"share": 1.5}, "randtopk was given a share of 1.5"),
        ("randtopk", {"alpha": 1.0}, "alpha = 1; it must be at least 0 and below 1"),
    ):
        with pytest.raises(ValueError, match=says):
            make(name, **options)
    assert isinstance(make("int8", error_feedback=True), ErrorFeedback)
