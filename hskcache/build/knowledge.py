"""From a captured batch to the hidden states that are kept: positions first, then columns, then the encoding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.positions import Positions, Rows, owners
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import pack_columns
from hskcache.ragged import ragged_index
from hskcache.selection.width import magnitude_columns
from hskcache.spec import Hidden
from hskcache.store.fields import AttentionField, HiddenField, layer_name
from hskcache.teacher.capture import Captured, Wanted


class Encoded(NamedTuple):
    """One layer of a batch as it is stored.

    Attributes:
        arrays: by their names within the layer; the first axis holds the entries of row after row.
        nonfinite_B: values of each row that are not finite when they are read back, int32.
    """

    arrays: dict[str, Tensor]
    nonfinite_B: Tensor


class Selector(Protocol):
    """What is kept of one field, applied to captured batches on the device."""

    @property
    def name(self) -> str:
        """Of the field."""
        ...

    @property
    def field(self) -> HiddenField | AttentionField:
        """How it is stored."""
        ...

    @property
    def wanted(self) -> Wanted:
        """What must be captured for it."""
        ...

    def select(self, captured: Captured, rows: Rows) -> dict[int, Any]:
        """Kept entries of every stored layer."""
        ...

    def encode(self, kept: Any, rows: Rows) -> Encoded:
        """One layer's kept entries as they are stored."""
        ...


@dataclass(frozen=True)
class Kept:
    """Kept hidden states of one layer over a batch; a row's positions stand together, best first.

    Attributes:
        positions_P: position of each kept state in its row, int64.
        values_PW: kept values, float32; with ``pca`` the coordinates along the components.
        columns_PW: kept columns, ascending, int64; None where all positions share them.
    """

    positions_P: Tensor
    values_PW: Tensor
    columns_PW: Tensor | None


class HiddenSelector:
    """The three dimensions of one spec, and the encoding.

    Args:
        hidden: what to keep.
        field: how it is stored.
        positions: the length dimension.
        constants: what all rows share, by the names of the format.
        device: of the teacher.
    """

    name = "hidden"

    def __init__(
        self,
        hidden: Hidden,
        field: HiddenField,
        positions: Positions,
        constants: Mapping[str, NDArray[np.generic]],
        device: torch.device,
    ) -> None:
        self.hidden = hidden
        self.field = field
        self.positions = positions
        self.constants = {
            name: torch.from_numpy(np.ascontiguousarray(_signed(array))).to(device) for name, array in constants.items()
        }

    @property
    def wanted(self) -> Wanted:
        """The stored layers, and the scores that choose their positions."""
        return Wanted(hidden=frozenset(self.field.layers), scores=self.positions.scores)

    def select(self, captured: Captured, rows: Rows) -> dict[int, Kept]:
        """Kept entries of every stored layer."""
        chosen = self.positions.choose(captured, rows)
        kept_B = rows.kept_B[self.name]
        slots_BK = next(iter(chosen.values())).shape
        device = rows.input_ids_BL.device
        flat = ragged_index(np.arange(slots_BK[0]) * slots_BK[1], kept_B, device)
        return {layer: self._columns(layer, captured.hidden[layer], chosen[layer], flat) for layer in self.field.layers}

    def encode(self, kept: Kept, rows: Rows) -> Encoded:
        """Positions, values, scales and columns of one layer, kept positions first."""
        encoding = get_encoding(self.field.encoding)
        values = encoding.encode(kept.values_PW)
        arrays = {"positions": kept.positions_P.to(torch.int16), **values}
        if kept.columns_PW is not None:
            match self.field.columns:
                case "bitmask":
                    arrays["bitmask"] = pack_columns(kept.columns_PW, self.field.width)
                case "indices":
                    arrays["columns"] = kept.columns_PW.to(torch.int16)
                case columns:
                    raise AssertionError(f"{columns} are not of a position alone")
        # What is read back counts: an encoding of less range than the states may overflow.
        bad = (~torch.isfinite(encoding.decode(values, self.field.num_columns))).sum(-1, dtype=torch.int32)
        kept_B = rows.kept_B[self.name]
        nonfinite = torch.zeros(len(kept_B), dtype=torch.int32, device=bad.device)
        return Encoded(arrays, nonfinite.index_add_(0, owners(kept_B, bad.device), bad))

    def _columns(self, layer: int, hidden_BLD: Tensor, positions_BK: Tensor, slots: Tensor) -> Kept:
        batch, length, width = hidden_BLD.shape
        positions = positions_BK.reshape(-1).index_select(0, slots)
        rows = torch.div(slots, positions_BK.shape[1], rounding_mode="floor")
        states = hidden_BLD.reshape(batch * length, width).index_select(0, rows * length + positions).float()
        name = layer_name(layer)
        match self.field.columns:
            case "all":
                return Kept(positions, states, None)
            case "shared":
                return Kept(positions, states.index_select(1, self.constants[f"{name}/columns"].long()), None)
            case "pca":
                basis, mean = self.constants[f"{name}/basis"], self.constants[f"{name}/mean"]
                return Kept(positions, (states - mean) @ basis.T, None)
            case "indices" | "bitmask":
                columns = magnitude_columns(states, self.field.num_columns)
                return Kept(positions, states.gather(-1, columns), columns)
            case unknown:
                assert_never(unknown)


def _signed(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Unsigned 16-bit as 32-bit: torch computes little in uint16."""
    return array.astype(np.int32) if array.dtype == np.uint16 else array
