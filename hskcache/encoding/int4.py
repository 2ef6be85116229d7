"""int4: symmetric integers -7..7 with one float32 scale per position, two to a byte.

A byte holds column 2j in its low and column 2j + 1 in its high half, in two's complement; with an odd W the last high
half is 0. Both directions treat a pair of int8 as one int16 whose low byte comes first in memory, as on every device
that torch runs on: half the passes of working on even and odd columns.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from hskcache.encoding import symmetric

_LARGEST = 7


class Int4:
    """Half a byte per value and four per position; the error is at most half of max|h| / 7."""

    name = "int4"

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        """Divide each position by its scale, round, halves to even, and pack pairs."""
        levels, scales = symmetric.quantise(values, _LARGEST)
        if values.shape[-1] % 2:
            levels = F.pad(levels, (0, 1))
        pairs = (levels & 15).contiguous().view(torch.int16)
        return {"values": (pairs | (pairs >> 4)).to(torch.uint8), "scales": scales}

    def decode(self, parts: Mapping[str, Tensor], width: int) -> Tensor:
        """Unpack pairs, integers times scale."""
        packed = parts["values"].to(torch.int16)
        # Bits hhhhllll become hhhh0000llll0000: as two int8 these are the integers times 16, signs in place.
        pairs = torch.add(packed, packed & 0xF0, alpha=15).mul_(16)
        return symmetric.dequantise(pairs.view(torch.int8)[..., :width], parts["scales"] / 16)

    def take(self, parts: Mapping[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
        """The halves of the bytes that hold the columns, two to a byte again."""
        pairs = parts["values"].gather(-1, columns >> 1).to(torch.int16)
        halves = (pairs >> (4 * (columns & 1)).to(torch.int16)) & 15
        if columns.shape[-1] % 2:
            halves = F.pad(halves, (0, 1))
        values = (halves[..., ::2] | (halves[..., 1::2] << 4)).to(torch.uint8)
        return {**parts, "values": values}

    def bound(self, values: Tensor) -> Tensor:
        """Half a step of the position."""
        return symmetric.bound(values, _LARGEST)
