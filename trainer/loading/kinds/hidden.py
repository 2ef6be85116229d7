"""Hidden states as they are loaded: the kept ones of every layer, without padding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import unpack_columns
from hskcache.store.fields import layer_name
from hskcache.store.kinds.hidden import HiddenField
from trainer.batch import HiddenTarget
from trainer.loading.block import Block, Cuts
from trainer.loading.kinds.abc import OfLayers, StoredTargets, unsigned


@dataclass(frozen=True, eq=False)
class HiddenDecoder:
    """Decode kept hidden states.

    Attributes:
        name: of the field.
        field: how its states are stored.
        layers: teacher layers to decode.
        constants: ``field/array`` -> what all rows share, on the device of the batches.
    """

    name: str
    field: HiddenField
    layers: tuple[int, ...]
    constants: Mapping[str, Tensor]

    def decode(self, block: Block, cuts: Cuts) -> list[dict[int, HiddenTarget]]:
        """Targets of each batch by teacher layer."""
        offsets = block.offsets[f"{self.name}/position"]
        table = torch.from_numpy(np.stack([np.diff(offsets), cuts.begin])).to(block.device, non_blocking=True)
        row_start = torch.repeat_interleave(table[1], table[0], output_size=int(offsets[-1]))
        layers = [self._layer(block, f"{self.name}/{layer_name(layer)}", row_start, cuts) for layer in self.layers]
        return [dict(zip(self.layers, targets, strict=True)) for targets in zip(*layers, strict=True)]

    def _layer(self, block: Block, name: str, row_start: Tensor, cuts: Cuts) -> list[HiddenTarget]:
        """Targets of one layer, batch by batch."""
        offsets, columns = block.offsets[f"{self.name}/position"], self._columns(block, name)
        parts = ENCODED[self.field.encoding].of(self.field.num_columns)
        values = get_encoding(self.field.encoding).decode(
            {part: block.tensors[f"{name}/{part}"] for part in parts}, self.field.num_columns
        )
        index = row_start + unsigned(block.tensors[f"{name}/positions"])
        columns_of = (
            [columns] * cuts.num_batches if columns is None or columns.dim() == 1 else cuts.split(columns, offsets)
        )
        divided = zip(cuts.split(index, offsets), cuts.split(values, offsets), columns_of, strict=True)
        mean_D, basis_WD = (self.constants.get(f"{name}/{constant}") for constant in ("mean", "basis"))
        return [HiddenTarget(*own, self.field.width, mean_D, basis_WD) for own in divided]

    def _columns(self, block: Block, name: str) -> Tensor | None:
        match self.field.columns:
            case "shared":
                return unsigned(self.constants[f"{name}/columns"])
            case "indices":
                return unsigned(block.tensors[f"{name}/columns"])
            case "bitmask":
                return unpack_columns(block.tensors[f"{name}/bitmask"], self.field.num_columns, self.field.width)
            case "all" | "pca":
                return None
            case unknown:
                assert_never(unknown)


class LoadedHidden(OfLayers[HiddenField]):
    """Teacher layer -> :class:`~trainer.batch.HiddenTarget` in a batch; losses divide by kept positions."""

    of_layers = "hidden layers"
    of_layer = "hidden layer"

    def decoder(self, stored: StoredTargets) -> HiddenDecoder:
        """Decoder of one field."""
        return HiddenDecoder(stored.name, stored.field, stored.layers, stored.constants)
