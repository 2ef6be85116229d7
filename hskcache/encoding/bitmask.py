"""Kept columns of a position as bits: column c is bit c % 8, low first, of byte c // 8.

Beside values in ascending column order the mask says which columns they are, in D / 8 bytes whatever their number W;
a list of 16-bit indices takes 2 W bytes and is smaller while W < D / 16.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Bits and columns of so many stay in a core's cache.
_MASKS_AT_ONCE = 512


def _num_bytes(width: int) -> int:
    return (width + 7) // 8


def pack_columns(columns: Tensor, width: int) -> Tensor:
    """Columns as a mask.

    Args:
        columns: int64 [..., W], distinct, each in 0..D-1.
        width: D.

    Returns:
        uint8 [..., ceil(D / 8)].
    """
    mask = torch.zeros(*columns.shape[:-1], _num_bytes(width), dtype=torch.uint8, device=columns.device)
    # Distinct columns are distinct bits, whose sum is their union.
    return mask.scatter_add_(-1, columns >> 3, (1 << (columns & 7)).to(torch.uint8))


def unpack_columns(bitmask: Tensor, num_columns: int, width: int) -> Tensor:
    """A mask as columns, without asking the device how many bits are set.

    Args:
        bitmask: uint8 [..., ceil(D / 8)] with W bits set in each position.
        num_columns: W.
        width: D.

    Returns:
        int64 [..., W], ascending. A mask that was not made by :func:`pack_columns` never gives an index outside
        0..D-1: bits beyond W are dropped, and missing ones read as column 0.
    """
    if bitmask.device.type == "cpu" and (columns := _set_bits(bitmask, num_columns, width)) is not None:
        return columns
    bits = (bitmask.unsqueeze(-1) >> _from(0, 8, torch.uint8, bitmask.device)) & 1
    counts = bits.flatten(-2)[..., :width].cumsum(-1, dtype=torch.int32)
    wanted = _from(1, num_columns + 1, torch.int32, bitmask.device).expand(*counts.shape[:-1], num_columns)
    # Column c is the first by which as many are set as its place says; beyond the last one there is D, which becomes 0.
    return torch.searchsorted(counts, wanted.contiguous()).remainder_(width)


@lru_cache(64)
def _from(start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Integers in [start, stop), made once a device."""
    return torch.arange(start, stop, dtype=dtype, device=device)


def _set_bits(bitmask: Tensor, num_columns: int, width: int) -> Tensor | None:
    """The columns, found on the host by a search for set bits; None where a mask has not as many as it should."""
    masks = bitmask.reshape(-1, _num_bytes(width)).numpy()
    columns = np.empty((len(masks), num_columns), np.int64)
    for first in range(0, len(masks), _MASKS_AT_ONCE):
        if not _search(masks[first : first + _MASKS_AT_ONCE], columns[first : first + _MASKS_AT_ONCE], width):
            return None
    return torch.from_numpy(columns).view(*bitmask.shape[:-1], num_columns)


def _search(masks: NDArray[np.uint8], columns: NDArray[np.int64], width: int) -> bool:
    """Write the columns of masks [P, ceil(D / 8)] into [P, W]; False where one has not as many as it should."""
    num_bits = 8 * masks.shape[1]
    # numpy takes three times as long where at most a tenth of an array is set, so bytes of ones follow.
    num_ones = max(0, (masks.size * 8 - 10 * columns.size) // 9 + 8)
    bits = np.unpackbits(np.append(masks, np.full(num_ones // 8, 255, np.uint8)), bitorder="little").view(bool)
    found = np.flatnonzero(bits)[: columns.size]
    if len(found) < columns.size:
        return False
    np.subtract(found.reshape(columns.shape), num_bits * np.arange(len(masks))[:, None], out=columns)
    # They ascend, so that the first and the last of a mask tell of all.
    return not columns.size or bool(columns[:, 0].min() >= 0 and columns[:, -1].max() < width)
