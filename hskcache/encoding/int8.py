"""int8: symmetric integers -127..127 with one float32 scale per position."""

from collections.abc import Mapping

from torch import Tensor

from hskcache.encoding import symmetric
from hskcache.encoding.abc import gathered

_LARGEST = 127


class Int8:
    """One byte per value and four per position; the error is at most half of max|h| / 127."""

    name = "int8"

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        """Divide each position by its scale and round, halves to even."""
        levels, scales = symmetric.quantise(values, _LARGEST)
        return {"values": levels, "scales": scales}

    def decode(self, parts: Mapping[str, Tensor], width: int) -> Tensor:
        """Integers times scale."""
        return symmetric.dequantise(parts["values"], parts["scales"])

    def take(self, parts: Mapping[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
        """The entries of the columns."""
        return gathered(parts, columns)

    def bound(self, values: Tensor) -> Tensor:
        """Half a step of the position."""
        return symmetric.bound(values, _LARGEST)
