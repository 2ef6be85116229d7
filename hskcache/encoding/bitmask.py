"""Kept columns of a position as bits: column c is bit c % 8, low first, of byte c // 8.

Beside values in ascending column order the mask says which columns they are, in D / 8 bytes whatever their number W;
a list of 16-bit indices takes 2 W bytes and is smaller while W < D / 16.
"""

import numpy as np
import torch
from torch import Tensor


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
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=bitmask.device)
    bits = ((bitmask.unsqueeze(-1) & weights) != 0).flatten(-2)[..., :width]
    # Column c goes to the slot that its bit counts as; unset columns share slot 0, and surplus ones the last.
    slots = bits.cumsum(-1, dtype=torch.int32).mul_(bits).clamp_(max=num_columns + 1).to(torch.int64)
    columns = torch.arange(width, device=bitmask.device).expand(slots.shape)
    unpacked = torch.zeros(*slots.shape[:-1], num_columns + 2, dtype=torch.int64, device=bitmask.device)
    return unpacked.scatter_(-1, slots, columns)[..., 1 : num_columns + 1]


def _set_bits(bitmask: Tensor, num_columns: int, width: int) -> Tensor | None:
    """The columns, found on the host by one search for set bits; None where a mask has not as many as it should."""
    masks = bitmask.reshape(-1, _num_bytes(width)).numpy()
    num_masks, num_bits = len(masks), 8 * masks.shape[1]
    # numpy takes three times as long where at most a tenth of an array is set, so bytes of ones follow.
    num_ones = max(0, num_masks * (num_bits - 10 * num_columns) // 9 + 8)
    bits = np.unpackbits(np.append(masks, np.full(num_ones // 8, 255, np.uint8)), bitorder="little").view(bool)
    found = np.flatnonzero(bits)[: num_masks * num_columns]
    if len(found) < num_masks * num_columns:
        return None
    columns = found.reshape(num_masks, num_columns)
    columns -= num_bits * np.arange(num_masks)[:, None]
    # They ascend, so that the first and the last of a mask tell of all.
    if columns.size and (columns[:, 0].min() < 0 or columns[:, -1].max() >= width):
        return None
    return torch.from_numpy(columns).view(*bitmask.shape[:-1], num_columns)
