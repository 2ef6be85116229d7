"""float32: the teacher's values as they are."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hskcache.encoding.abc import gathered


class Float32:
    """Four bytes per value; nothing is lost."""

    name = "float32"

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        """Widen to float32."""
        return {"values": values.to(torch.float32)}

    def decode(self, parts: Mapping[str, Tensor], width: int) -> Tensor:
        """The stored values."""
        return parts["values"]

    def take(self, parts: Mapping[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
        """The entries of the columns."""
        return gathered(parts, columns)

    def bound(self, values: Tensor) -> Tensor:
        """Zero for every number."""
        return torch.zeros_like(values, dtype=torch.float32).masked_fill(~values.isfinite(), torch.inf)
