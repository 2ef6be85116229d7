"""Encoded hidden states of single positions, decoded on a device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import unpack_columns
from hskcache.store.kinds.hidden import HiddenField


class StateDecoder:
    """Decoder of the states of one layer.

    Args:
        field: how they are stored.
        constants: what all rows of the field share.
        layer: name of the layer's group.
        device: that decodes.
    """

    def __init__(
        self, field: HiddenField, constants: Mapping[str, NDArray[Any]], layer: str, device: torch.device
    ) -> None:
        self.field, self.device = field, device
        prefix = f"{layer}/"
        self._constants = {
            name.removeprefix(prefix): self._sent(array) for name, array in constants.items() if name.startswith(prefix)
        }

    def states(self, arrays: Mapping[str, NDArray[Any]]) -> Tensor:
        """States [P, D] float32 of positions, an entry each; 0 for every column that is not kept."""
        field, parts = self.field, ENCODED[self.field.encoding].of(self.field.num_columns)
        values_PW = get_encoding(field.encoding).decode(
            {name: self._sent(arrays[name]) for name in parts}, field.num_columns
        )
        if field.columns == "all":
            return values_PW
        if field.columns == "pca":
            return values_PW @ self._constants["basis"] + self._constants["mean"]
        states_PD = torch.zeros(len(values_PW), field.width, device=self.device)
        return states_PD.scatter_(1, self._columns(arrays).expand(values_PW.shape), values_PW)

    def _columns(self, arrays: Mapping[str, NDArray[Any]]) -> Tensor:
        if self.field.columns == "bitmask":
            return unpack_columns(self._sent(arrays["bitmask"]), self.field.num_columns, self.field.width)
        columns = self._constants["columns"] if self.field.columns == "shared" else self._sent(arrays["columns"])
        return columns.long() & 0xFFFF

    def _sent(self, array: NDArray[Any]) -> Tensor:
        # torch can move 16 bits about, but computes little in uint16.
        host = array.view(np.int16) if array.dtype == np.uint16 else array
        return torch.from_numpy(np.ascontiguousarray(host)).to(self.device, non_blocking=True)
