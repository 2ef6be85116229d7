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
from hskcache.ragged import Integers
from hskcache.store.fields import layer_name
from hskcache.store.kinds.hidden import HiddenField
from trainer.batch import HiddenTarget
from trainer.loading.block import Block
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

    def decode(self, block: Block, begin: Integers) -> dict[int, HiddenTarget]:
        """Targets by teacher layer.

        Args:
            block: encoded rows.
            begin: where each of them begins in the flattened batch.
        """
        encoding = get_encoding(self.field.encoding)
        counts = np.diff(block.offsets[f"{self.name}/position"])
        table = torch.from_numpy(np.stack([counts, begin])).to(block.device, non_blocking=True)
        row_start = torch.repeat_interleave(table[1], table[0], output_size=int(counts.sum()))
        targets = {}
        for layer in self.layers:
            name = f"{self.name}/{layer_name(layer)}"
            parts = {
                part: block.tensors[f"{name}/{part}"]
                for part in ENCODED[self.field.encoding].of(self.field.num_columns)
            }
            targets[layer] = HiddenTarget(
                index_P=row_start + unsigned(block.tensors[f"{name}/positions"]),
                values_PW=encoding.decode(parts, self.field.num_columns),
                columns=self._columns(block, name),
                width=self.field.width,
                mean_D=self.constants.get(f"{name}/mean"),
                basis_WD=self.constants.get(f"{name}/basis"),
            )
        return targets

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
