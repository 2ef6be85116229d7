"""float16: IEEE half precision, 11 significant bits, magnitudes up to 65504."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hskcache.encoding.abc import gathered

# Halfway between the largest float16 and the next power of two: from here on, rounding gives infinity.
_OVERFLOW = 65520.0


class Float16:
    """Two bytes per value; magnitudes from 65520 on become infinite."""

    name = "float16"

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        """Round to the nearest float16, halves to even."""
        return {"values": values.to(torch.float16)}

    def decode(self, parts: Mapping[str, Tensor], width: int) -> Tensor:
        """Widen to float32, exactly."""
        return parts["values"].to(torch.float32)

    def take(self, parts: Mapping[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
        """The entries of the columns."""
        return gathered(parts, columns)

    def bound(self, values: Tensor) -> Tensor:
        """Half a unit in the last place: 2**-11 of the value, and 2**-25 among the subnormals."""
        magnitude = values.to(torch.float32).abs()
        return (magnitude * 2.0**-11).clamp(min=2.0**-25).masked_fill(~(magnitude < _OVERFLOW), torch.inf)
