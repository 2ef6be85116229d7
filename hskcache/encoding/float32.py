"""float32: the teacher's values as they are."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Float32:
    """Four bytes per value; nothing is lost."""

    name = "float32"

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        """Widen to float32."""
        return {"values": values.to(torch.float32)}

    def decode(self, parts: Mapping[str, Tensor], width: int) -> Tensor:
        """The stored values."""
        return parts["values"]

    def bound(self, values: Tensor) -> Tensor:
        """Zero for every number."""
        return torch.zeros_like(values, dtype=torch.float32).masked_fill(~values.isfinite(), torch.inf)
