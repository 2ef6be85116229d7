"""What every encoding promises, checked for each of the registry, and stored bytes of format version 1."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hskcache.encoded import ENCODED
from hskcache.encoding import ENCODINGS, Encoding, get_encoding
from hskcache.errors import SpecError

each_encoding = pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS.keys())
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

# Ordinary values, anything finite, and the edges: zeros, subnormals of every type, overflow of float16 and bfloat16.
EDGES = [0.0, -0.0, 1e-45, -1e-40, 1.1754944e-38, 6e-8, 2.98e-8, 65504.0, 65520.0, -3.4028235e38, 3.39e38, 3.3961776e38]
# As float32 has them: numpy 1 tells 1e-45 from the float32 next to it, and hypothesis refuses what arrays cannot hold.
EDGES = [float(np.float32(edge)) for edge in EDGES]
ELEMENTS = st.one_of(
    st.floats(-8, 8, width=32), st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(EDGES)
)
SHAPES = st.one_of(
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=9), st.tuples(st.just(0), st.integers(1, 9)), st.just((2, 0, 5))
)
VALUES = hnp.arrays(np.float32, SHAPES, elements=ELEMENTS)


def round_trip(encoding: Encoding, values: torch.Tensor) -> torch.Tensor:
    return encoding.decode(encoding.encode(values), values.shape[-1])


def sample(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 3


def test_every_name_of_the_spec_has_an_encoding_of_that_name() -> None:
    assert list(ENCODINGS) == list(ENCODED)
    assert all(get_encoding(name).name == name for name in ENCODINGS)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="'int3' is not an encoding; use one of float32, float16, bfloat16, int8, int4"):
        get_encoding("int3")


@each_encoding
@given(values=VALUES)
@example(values=np.array([[1e-45], [4.5e-41], [2.9e-8]], np.float32))
@example(values=np.full((1, 3), 3.4028235e38, np.float32))
@example(values=np.array([[189e-45, 1e-45, -94e-45]], np.float32))
def test_the_error_never_exceeds_the_bound(encoding: Encoding, values: np.ndarray) -> None:
    given_values = torch.from_numpy(values)
    decoded = round_trip(encoding, given_values)
    assert decoded.shape == given_values.shape
    assert decoded.dtype == torch.float32
    bound = encoding.bound(given_values)
    assert bound.shape == given_values.shape
    promised = bound.isfinite()
    error = (decoded.double() - given_values.double()).abs()
    assert (error <= bound.double())[promised].all()


@each_encoding
def test_the_bound_is_as_tight_as_the_encoding_allows(encoding: Encoding) -> None:
    """On ordinary values it holds everywhere and is all but reached somewhere, so it is neither loose nor infinite."""
    values = sample(64, 768)
    error = (round_trip(encoding, values) - values).abs()
    bound = encoding.bound(values)
    assert (bound <= values.abs().amax(-1, keepdim=True) / 13.9).all()
    assert (error >= 0.95 * bound).any()


@each_encoding
@given(values=VALUES)
def test_zeros_come_back_as_zeros(encoding: Encoding, values: np.ndarray) -> None:
    given_values = torch.from_numpy(values)
    given_values = given_values.masked_fill(~encoding.bound(given_values).isfinite(), 1.0)
    assert (round_trip(encoding, given_values)[given_values == 0] == 0).all()
    assert (round_trip(encoding, torch.zeros_like(given_values)) == 0).all()


@each_encoding
@pytest.mark.parametrize("width", [1, 2, 7, 76, 768])
def test_the_parts_have_the_declared_shapes_types_and_bytes(encoding: Encoding, width: int) -> None:
    for leading in [(), (5,), (2, 3), (0,)]:
        stored = encoding.encode(sample(*leading, width))
        declared = ENCODED[encoding.name].of(width)
        assert "values" in declared
        assert stored.keys() == declared.keys()
        for name, part in declared.items():
            assert stored[name].shape == (*leading, *part.shape)
            assert stored[name].numpy().dtype == np.dtype(part.dtype)
        assert sum(tensor.nbytes for tensor in stored.values()) == math.prod(leading) * ENCODED[
            encoding.name
        ].num_bytes(width)


@pytest.mark.parametrize(
    ("name", "expected"), [("float32", 308), ("float16", 154), ("bfloat16", 154), ("int8", 81), ("int4", 43)]
)
def test_bytes_of_a_position_of_77_columns(name: str, expected: int) -> None:
    assert ENCODED[name].num_bytes(77) == expected


@each_encoding
@pytest.mark.parametrize("width", [1, 6, 7])
def test_a_position_is_encoded_alone(encoding: Encoding, width: int) -> None:
    """So that encoded positions can be gathered in any order."""
    values = sample(6, width) * torch.tensor([[1e-6], [1.0], [0.0], [300.0], [2.0], [5.0]])
    order = torch.tensor([4, 0, 2, 5])
    whole = encoding.encode(values)
    gathered = {name: part[order] for name, part in whole.items()}
    for name, part in encoding.encode(values[order]).items():
        assert torch.equal(part, gathered[name])
    assert torch.equal(encoding.decode(gathered, width), encoding.decode(whole, width)[order])


@each_encoding
@pytest.mark.parametrize("width", [1, 6, 7])
@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_a_broken_value_stays_broken_and_touches_no_other_position(encoding: Encoding, width: int, bad: float) -> None:
    values = sample(3, width)
    broken = values.clone()
    broken[1, width // 2] = bad
    decoded = round_trip(encoding, broken)
    assert not decoded[1, width // 2].isfinite()
    assert torch.equal(decoded[::2], round_trip(encoding, values)[::2])
    lost = ~encoding.bound(broken).isfinite()
    if encoding.name.startswith("int"):
        assert decoded[1].isnan().all()
        assert lost.tolist() == [[False] * width, [True] * width, [False] * width]
    else:
        assert torch.equal(lost, ~broken.isfinite())


@each_encoding
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_values_of_a_half_precision_teacher_encode_as_their_float32_equals(
    encoding: Encoding, dtype: torch.dtype
) -> None:
    values = sample(9, 33).to(dtype)
    for name, part in encoding.encode(values).items():
        assert torch.equal(part, encoding.encode(values.float())[name])
    assert torch.equal(encoding.bound(values), encoding.bound(values.float()))


@each_encoding
@pytest.mark.parametrize("width", [7, 8])
def test_values_need_not_be_contiguous_and_are_left_alone(encoding: Encoding, width: int) -> None:
    values = sample(2 * width, 10).T[:, ::2]
    before = values.clone()
    decoded = round_trip(encoding, values)
    assert torch.equal(decoded, round_trip(encoding, before))
    assert torch.equal(values, before)


@each_encoding
@pytest.mark.parametrize("width", [1, 7, 76])
@pytest.mark.parametrize("device", DEVICES)
def test_every_device_stores_the_same_bytes_and_decodes_to_the_same_values(
    encoding: Encoding, width: int, device: str
) -> None:
    values = sample(50, width)
    host = encoding.encode(values)
    there = encoding.encode(values.to(device))
    assert all(part.device.type == device for part in there.values())
    assert all(torch.equal(part.cpu(), host[name]) for name, part in there.items())
    assert torch.equal(encoding.decode(there, width).cpu(), encoding.decode(host, width))


@each_encoding
@pytest.mark.parametrize("width", [1, 7, 8])
def test_nothing_asks_the_device_for_a_value(encoding: Encoding, width: int) -> None:
    """On the meta device there are no values, so that anything that would wait for one fails."""
    values = torch.rand(4, width, device="meta")
    assert round_trip(encoding, values).shape == values.shape
    assert encoding.bound(values).shape == values.shape


# Stored bytes of format version 1, written by hand from the format's definition, and what they mean.
GOLDEN = [
    ("float32", {"values": np.array([[0x3FC00000, 0xC1100000, 0x00000001]], np.uint32).view(np.float32)},
     [[1.5, -9.0, 2.0**-149]]),
    ("float16", {"values": np.array([[0x3E00, 0xC880, 0x0001]], np.uint16).view(np.float16)},
     [[1.5, -9.0, 2.0**-24]]),
    ("bfloat16", {"values": np.array([[0x3FC0, 0xC110, 0x0001]], np.uint16).view(np.int16)},
     [[1.5, -9.0, 2.0**-133]]),
    ("int8", {"values": np.array([[127, -127, 1], [0, 0, 0]], np.int8), "scales": np.array([0.5, 0.0], np.float32)},
     [[63.5, -63.5, 0.5], [0.0, 0.0, 0.0]]),
    ("int4", {"values": np.array([[0x97, 0x0F], [0xE3, 0x05], [0, 0]], np.uint8),
              "scales": np.array([0.5, 2.0, 0.0], np.float32)},
     [[3.5, -3.5, -0.5], [6.0, -4.0, 10.0], [0.0, 0.0, 0.0]]),
]  # fmt: skip


def test_every_encoding_has_stored_bytes_to_decode() -> None:
    assert {name for name, _, _ in GOLDEN} == set(ENCODINGS)


@pytest.mark.parametrize(("name", "stored", "expected"), GOLDEN, ids=[name for name, _, _ in GOLDEN])
def test_stored_bytes_keep_their_meaning(name: str, stored: dict[str, np.ndarray], expected: list[list[float]]) -> None:
    encoding = get_encoding(name)
    parts = {part: torch.from_numpy(array) for part, array in stored.items()}
    assert encoding.decode(parts, 3).tolist() == expected
    for part, array in stored.items():
        declared = ENCODED[name].of(3)[part]
        assert array.shape[1:] == declared.shape
        assert array.dtype == np.dtype(declared.dtype)


@pytest.mark.parametrize(("name", "stored", "expected"), GOLDEN, ids=[name for name, _, _ in GOLDEN])
def test_values_are_written_as_the_stored_bytes(
    name: str, stored: dict[str, np.ndarray], expected: list[list[float]]
) -> None:
    """Only positions that reach the largest integer are what encoding would write."""
    encoding = get_encoding(name)
    written = encoding.encode(torch.tensor(expected[:1]))
    for part, array in stored.items():
        assert written[part].numpy().tobytes() == array[:1].tobytes()


def test_float16_overflows_to_infinity_exactly_where_no_bound_is_promised() -> None:
    values = torch.tensor([65504.0, 65519.99, 65520.0, -65520.0])
    float16 = get_encoding("float16")
    assert round_trip(float16, values).tolist() == [65504.0, 65504.0, torch.inf, -torch.inf]
    assert float16.bound(values).isinf().tolist() == [False, False, True, True]


def test_integers_round_halves_to_even_and_reach_the_largest_integer_on_both_sides() -> None:
    assert get_encoding("int8").encode(torch.tensor([127.0, 0.5, 1.5, -2.5, -127.0]))["values"].tolist() == [
        127, 0, 2, -2, -127
    ]  # fmt: skip
    packed = get_encoding("int4").encode(torch.tensor([7.0, -7.0, 2.5]))
    assert packed["values"].tolist() == [0x97, 0x02]
    assert packed["scales"].item() == 1.0


@pytest.mark.parametrize("name", ["int8", "int4"])
@given(peak=st.floats(2.0**-149, 3.4028234663852886e38, width=32), share=st.floats(-1, 1, width=32))
def test_integers_never_leave_their_range_at_any_magnitude(name: str, peak: float, share: float) -> None:
    """A peak that rounded up past the largest integer would wrap round and change its sign."""
    values = torch.tensor([peak, -peak, peak * share, 0.0])
    decoded = round_trip(get_encoding(name), values)
    assert decoded[0] == -decoded[1]
    assert decoded[0] >= 0
    assert decoded.abs().amax() == decoded[0]


@each_encoding
@pytest.mark.parametrize("width", [1, 6, 7])
@pytest.mark.parametrize("device", DEVICES)
def test_some_values_are_taken_as_they_are_stored(encoding: Encoding, width: int, device: str) -> None:
    values = (sample(5, width) * torch.tensor([[1e-40], [1.0], [0.0], [300.0], [5.0]])).to(device)
    whole = encoding.encode(values)
    for count in range(1, width + 1):
        columns = torch.stack([torch.randperm(width)[:count] for _ in values]).to(device)
        taken = encoding.take(whole, columns)
        assert torch.equal(encoding.decode(taken, count), encoding.decode(whole, width).gather(-1, columns))
        for name, part in ENCODED[encoding.name].of(count).items():
            assert taken[name].shape == (5, *part.shape)
            assert taken[name].cpu().numpy().dtype == np.dtype(part.dtype)
