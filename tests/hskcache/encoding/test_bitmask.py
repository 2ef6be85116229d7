import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hskcache.encoded import column_bytes
from hskcache.encoding.bitmask import pack_columns, unpack_columns


def test_column_c_is_bit_c_mod_8_of_byte_c_div_8() -> None:
    columns = torch.tensor([[0, 3, 8, 9], [1, 7, 10, 11]])
    assert pack_columns(columns, 12).tolist() == [[0b00001001, 0b11], [0b10000010, 0b1100]]


def test_stored_bits_keep_their_meaning() -> None:
    stored = torch.tensor([[[0x81, 0x01], [0x00, 0x0E]]], dtype=torch.uint8)
    assert unpack_columns(stored, 3, 12).tolist() == [[[0, 7, 8], [9, 10, 11]]]


def test_the_mask_is_that_of_numpy() -> None:
    dense = np.random.default_rng(0).random((40, 771)).argsort(axis=1) < 300
    columns = torch.from_numpy(np.nonzero(dense)[1].reshape(40, 300))
    mask = pack_columns(columns, 771)
    assert np.array_equal(mask.numpy(), np.packbits(dense, axis=1, bitorder="little"))
    assert torch.equal(unpack_columns(mask, 300, 771), columns)


@given(width=st.integers(1, 70), data=st.data())
def test_columns_come_back_in_ascending_order(width: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, width))
    leading = data.draw(st.sampled_from([(), (3,), (2, 2), (0,)]))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    columns = torch.rand(*leading, width, generator=draw).argsort(-1)[..., :wanted].sort(-1).values
    mask = pack_columns(columns, width)
    assert mask.dtype == torch.uint8
    assert mask.shape == (*leading, -(-width // 8))
    assert torch.equal(unpack_columns(mask, wanted, width), columns)


@given(bytes_=st.binary(min_size=3, max_size=3), wanted=st.integers(1, 17))
def test_a_forged_mask_never_gives_an_index_outside_the_width(bytes_: bytes, wanted: int) -> None:
    """On a CUDA device such an index would end the process. Whole masks before and behind it stay what they are."""
    whole = [1] * wanted + [0] * (24 - wanted)
    masks = np.stack([np.packbits(whole, bitorder="little"), np.frombuffer(bytes_, np.uint8)])
    found = unpack_columns(torch.from_numpy(masks[[0, 1, 1, 0]]), wanted, 17)
    set_bits = [c for c in range(17) if bytes_[c // 8] >> c % 8 & 1]
    forged = (set_bits + [0] * wanted)[:wanted]
    assert found.tolist() == [list(range(wanted)), forged, forged, list(range(wanted))]


@pytest.mark.parametrize(
    ("num_columns", "width", "expected"),
    [
        (47, 768, ("columns", 94)),
        (48, 768, ("bitmask", 96)),
        (77, 768, ("bitmask", 96)),
        (1, 8, ("bitmask", 1)),
        (1, 17, ("columns", 2)),
        (3, 65535, ("columns", 6)),
        (3, 65536, ("bitmask", 8192)),
    ],
)
def test_indices_are_stored_only_where_they_are_smaller_and_fit_16_bits(
    num_columns: int, width: int, expected: tuple[str, int]
) -> None:
    assert column_bytes(num_columns, width) == expected


@pytest.mark.parametrize(("num_columns", "width"), [(1, 40), (77, 768), (5, 9)])
def test_the_stated_bytes_are_those_of_the_mask(num_columns: int, width: int) -> None:
    kind, size = column_bytes(num_columns, width)
    columns = torch.arange(num_columns)
    stored = pack_columns(columns, width) if kind == "bitmask" else columns.to(torch.int16)
    assert stored.nbytes == size


def test_nothing_asks_the_device_for_a_value() -> None:
    """On the meta device there are no values, so that anything that would wait for one fails."""
    mask = pack_columns(torch.zeros(4, 3, dtype=torch.int64, device="meta"), 20)
    assert unpack_columns(mask, 3, 20).shape == (4, 3)
