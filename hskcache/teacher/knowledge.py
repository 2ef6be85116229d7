"""From a captured batch to the entries that are kept: positions first, then columns, then the encoding."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import pack_columns
from hskcache.selection.length import cls_eligible, eligible_BL, left_score, random_score, top_positions
from hskcache.selection.width import magnitude_columns
from hskcache.spec import Hidden
from hskcache.store.fields import HiddenField, layer_name
from hskcache.teacher.capture import ATTENTION_SCORES, Captured


@dataclass(frozen=True)
class Rows:
    """A padded batch as the selection sees it, on the teacher's device.

    Attributes:
        input_ids_BL: token ids, int64.
        valid_BL: True where a token is real, False on padding.
        row_ids_B: row of the data set, int64.
        kept_B: positions kept of each row, on the host: shapes are known without asking the device.
    """

    input_ids_BL: Tensor
    valid_BL: Tensor
    row_ids_B: Tensor
    kept_B: NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """Kept entries of one layer over a batch; a row's positions stand together, best first.

    Attributes:
        positions_P: position of each kept state in its row, int64.
        values_PW: kept values, float32; with ``pca`` the coordinates along the components.
        columns_PW: kept columns, ascending, int64; None where all positions share them.
    """

    positions_P: Tensor
    values_PW: Tensor
    columns_PW: Tensor | None


def score_layer(layer: int, num_layers: int, which: str) -> int:
    """Attention layer (0-based) that scores the positions of a hidden layer [MUD 3.2].

    ``producing`` is the attention inside the layer that produced the states; the embedding output, which no
    attention produced, takes that of the first layer.
    """
    return num_layers - 1 if which == "last" else max(layer - 1, 0)


class Selector:
    """The three dimensions of one spec, applied to captured batches on the device."""

    def __init__(
        self,
        hidden: Hidden,
        field: HiddenField,
        num_layers: int,
        special_ids: frozenset[int],
        constants: Mapping[str, NDArray[np.generic]],
    ) -> None:
        self.hidden = hidden
        self.field = field
        self.num_layers = num_layers
        self.special_ids = torch.tensor(sorted(special_ids), dtype=torch.int64)
        self.constants = {name: torch.from_numpy(np.ascontiguousarray(_signed(a))) for name, a in constants.items()}

    @property
    def score_layers(self) -> frozenset[int]:
        """Attention layers whose scores must be captured."""
        if self.hidden.length.score not in ATTENTION_SCORES or self.hidden.length.tokens is None:
            return frozenset()
        which = self.hidden.length.score_layer
        return frozenset(score_layer(layer, self.num_layers, which) for layer in self.field.layers)

    def to(self, device: torch.device) -> "Selector":
        """Move the constants to the teacher's device."""
        self.special_ids = self.special_ids.to(device)
        self.constants = {name: array.to(device) for name, array in self.constants.items()}
        return self

    def select(self, captured: Captured, rows: Rows) -> dict[int, Kept]:
        """Kept entries of every stored layer."""
        eligible = self._eligible(rows)
        flat = _flat_slots(rows.kept_B, self._slots(rows))
        chosen: dict[int, Tensor] = {}
        kept = {}
        for layer in self.field.layers:
            source = score_layer(layer, self.num_layers, self.hidden.length.score_layer)
            if source not in chosen:
                scores = self._scores(captured, source, rows)
                chosen[source], _ = top_positions(scores, eligible, self.hidden.length.tokens)
            kept[layer] = self._columns(layer, captured.hidden[layer], chosen[source], flat)
        return kept

    def encode(self, kept: Kept) -> dict[str, Tensor]:
        """Stored arrays of one layer's entries, by their names within the layer, kept positions first."""
        arrays = {"positions": kept.positions_P.to(torch.int16)}
        arrays |= get_encoding(self.field.encoding).encode(kept.values_PW)
        if kept.columns_PW is not None:
            if self.field.columns == "bitmask":
                arrays["bitmask"] = pack_columns(kept.columns_PW, self.field.width)
            else:
                arrays["columns"] = kept.columns_PW.to(torch.int16)
        return arrays

    def _slots(self, rows: Rows) -> int:
        length = rows.input_ids_BL.shape[1]
        tokens = self.hidden.length.tokens
        return length if tokens is None else min(tokens, length)

    def _eligible(self, rows: Rows) -> Tensor:
        if self.hidden.length.score == "cls":
            return cls_eligible(rows.valid_BL)
        special = None if self.hidden.length.specials else torch.isin(rows.input_ids_BL, self.special_ids)
        return eligible_BL(rows.valid_BL, special)

    def _scores(self, captured: Captured, source: int, rows: Rows) -> Tensor:
        score = self.hidden.length.score
        if source in captured.scores:
            return captured.scores[source]
        size = rows.input_ids_BL.shape
        if score == "random":
            return random_score(rows.row_ids_B, size[1], self.hidden.length.seed)
        return left_score(size[0], size[1], rows.input_ids_BL.device)

    def _columns(self, layer: int, hidden_BLD: Tensor, positions_BK: Tensor, flat: NDArray[np.int64]) -> Kept:
        device = hidden_BLD.device
        slots = torch.from_numpy(flat).to(device, non_blocking=True)
        batch, length, width = hidden_BLD.shape
        positions = positions_BK.reshape(-1).index_select(0, slots)
        rows = torch.div(slots, positions_BK.shape[1], rounding_mode="floor")
        states = hidden_BLD.reshape(batch * length, width).index_select(0, rows * length + positions).float()
        name = layer_name(layer)
        if self.field.columns == "all":
            return Kept(positions, states, None)
        if self.field.columns == "shared":
            return Kept(positions, states.index_select(1, self.constants[f"{name}/columns"].long()), None)
        if self.field.columns == "pca":
            basis, mean = self.constants[f"{name}/basis"], self.constants[f"{name}/mean"]
            return Kept(positions, (states - mean) @ basis.T, None)
        columns = magnitude_columns(states, self.field.num_columns)
        return Kept(positions, states.gather(-1, columns), columns)


def _flat_slots(kept_B: NDArray[np.int64], slots: int) -> NDArray[np.int64]:
    """Indices of the kept entries in a flattened [B, slots] table: the first ``kept_B[b]`` of every row."""
    rows = np.repeat(np.arange(len(kept_B)), kept_B)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(kept_B) - kept_B, kept_B)
    return rows * slots + within


def _signed(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Unsigned 16-bit as 32-bit: torch computes little in uint16."""
    return array.astype(np.int32) if array.dtype == np.uint16 else array
