"""Hidden states as they are loaded: the kept ones of every layer, without padding."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import unpack_columns
from hskcache.ragged import Integers
from hskcache.store.fields import layer_name
from hskcache.store.kinds.hidden import HiddenField
from trainer.batch import HiddenTarget
from trainer.loading.block import Block, Cuts
from trainer.loading.kinds.abc import Decoder, OfLayers, StoredTargets
from trainer.loading.records import Arrays


@dataclass(frozen=True, eq=False)
class HiddenDecoder(Decoder):
    """Decode kept hidden states, those of all layers together.

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

    def tables(self, offsets: Mapping[str, Integers], cuts: Cuts) -> Arrays:
        """Beginning of the row of each kept position in its flattened batch."""
        return {self._begin: np.repeat(cuts.begin, np.diff(offsets[f"{self.name}/position"]))}

    def decode(self, block: Block, cuts: Cuts) -> Iterator[dict[int, HiddenTarget]]:
        """Targets of each batch by teacher layer."""
        offsets, num_columns = block.offsets[f"{self.name}/position"], self.field.num_columns
        positions_LP = self._stacked(block, "positions").t().to(torch.int64, memory_format=torch.contiguous_format)
        index_LP = positions_LP.add_(block.parts[self._begin])
        encoded = {part: self._stacked(block, part) for part in ENCODED[self.field.encoding].of(num_columns)}
        values_PLW = get_encoding(self.field.encoding).decode(encoded, num_columns)
        columns_PLW = self._columns(block)
        batches = zip(
            cuts.split(index_LP, offsets, dim=1),
            cuts.split(values_PLW, offsets),
            repeat(None) if columns_PLW is None else cuts.split(columns_PLW, offsets),
            strict=False,
        )
        for index, values, columns in batches:
            of_layers = [columns_W for columns_W, _, _ in self._shared] if columns is None else columns.unbind(1)
            parts = zip(self.layers, index, values.unbind(1), of_layers, self._shared, strict=True)
            yield {
                layer: HiddenTarget(index_P, values_PW, own, self.field.width, mean_D, basis_WD)
                for layer, index_P, values_PW, own, (_, mean_D, basis_WD) in parts
            }

    @property
    def _begin(self) -> str:
        return f"{self.name} begin"

    @cached_property
    def _names(self) -> list[str]:
        return [f"{self.name}/{layer_name(layer)}" for layer in self.layers]

    def _stacked(self, block: Block, part: str) -> Tensor:
        return block.stacked([f"{name}/{part}" for name in self._names])

    @cached_property
    def _shared(self) -> list[tuple[Tensor | None, Tensor | None, Tensor | None]]:
        """Columns, mean and basis of each layer that all rows share."""
        columns = {name: self.constants.get(f"{name}/columns") for name in self._names}
        return [
            (
                None if (own := columns[name]) is None else own.long(),
                self.constants.get(f"{name}/mean"),
                self.constants.get(f"{name}/basis"),
            )
            for name in self._names
        ]

    def _columns(self, block: Block) -> Tensor | None:
        """Columns of each kept position, int64 [P, L, W]; None where all rows share them, or all are kept."""
        match self.field.columns:
            case "shared" | "all" | "pca":
                return None
            case "indices":
                return self._stacked(block, "columns").long()
            case "bitmask":
                if f"{self._names[0]}/columns" in block.layout.places:
                    return self._stacked(block, "columns").long()
                return unpack_columns(self._stacked(block, "bitmask"), self.field.num_columns, self.field.width)
            case unknown:
                assert_never(unknown)


class LoadedHidden(OfLayers[HiddenField]):
    """Teacher layer -> :class:`~trainer.batch.HiddenTarget` in a batch; losses divide by kept positions."""

    of_layers = "hidden layers"
    of_layer = "hidden layer"

    def decoder(self, stored: StoredTargets) -> HiddenDecoder:
        """Decoder of one field."""
        return HiddenDecoder(stored.name, stored.field, stored.layers, stored.constants)

    def resident(self, field: HiddenField, arrays: Arrays) -> Arrays:
        """Columns as integers of 16 bits in the place of bitmasks, where they take at most twice the memory."""
        if field.columns != "bitmask" or field.width > 1 << 16 or 8 * field.num_columns > field.width:
            return arrays
        found: dict[str, NDArray[Any]] = {}
        for name, array in arrays.items():
            group, _, part = name.rpartition("/")
            if part == "bitmask":
                columns = unpack_columns(torch.from_numpy(array), field.num_columns, field.width)
                found[f"{group}/columns"] = columns.numpy().astype(np.uint16)
            else:
                found[name] = array
        return found
