"""bfloat16: the upper half of a float32, 8 significant bits and the full range; stored as int16 bits."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hskcache.encoding.abc import gathered

# Halfway between the largest bfloat16 and 2**128: from here on, rounding gives infinity.
_OVERFLOW = (2.0 - 2.0**-8) * 2.0**127


class BFloat16:
    """Two bytes per value; Zarr has no such type, so the bits are stored as int16."""

    name = "bfloat16"

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        """Round to the nearest bfloat16, halves to even."""
        return {"values": values.to(torch.bfloat16).view(torch.int16)}

    def decode(self, parts: Mapping[str, Tensor], width: int) -> Tensor:
        """Widen to float32, exactly."""
        return parts["values"].view(torch.bfloat16).to(torch.float32)

    def take(self, parts: Mapping[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
        """The entries of the columns."""
        return gathered(parts, columns)

    def bound(self, values: Tensor) -> Tensor:
        """Half a unit in the last place: 2**-8 of the value, and 2**-134 among the subnormals."""
        magnitude = values.to(torch.float32).abs()
        return (magnitude * 2.0**-8).clamp(min=2.0**-134).masked_fill(~(magnitude < _OVERFLOW), torch.inf)
