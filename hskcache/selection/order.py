"""An order without ties: one 64-bit integer for a float and its place, so that the lowest place wins among equals.

A stable sort gives the same order, but it sorts everything where only the first few are wanted. With keys that are
never equal, ``topk`` is exact on every device.
"""

import torch
from torch import Tensor

LAST = torch.iinfo(torch.int64).min


def descending_keys(values: Tensor) -> Tensor:
    """Distinct keys along the last axis: the larger value has the larger key, and among equals the lower place.

    ``values``: float32, [..., n]; -0.0 equals 0.0, and NaN belongs beyond the infinity of its sign. Returns int64,
    [..., n]; none is below ``LAST``, and only a NaN's can equal it.
    """
    # Adding zero turns -0.0 into 0.0. The bits of a non-negative float already ascend with it as an integer; those of
    # a negative one descend, and flipping all but the sign turns them round.
    bits = (values + 0.0).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return numbered(ordered)


def numbered(ordered: Tensor) -> Tensor:
    """Keys from int32 integers that already ascend with the values, [..., n] -> int64 [..., n]."""
    num = ordered.shape[-1]
    keys = ordered.to(torch.int64) << 32
    return keys.add_(torch.arange(num - 1, -1, -1, device=keys.device))
