"""From stored targets to what the losses compare with, on the device where they are; nothing waits for the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, assert_never

import numpy as np
import torch
from torch import Tensor

from hskcache.cache import AttentionField, HiddenField
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import unpack_columns
from hskcache.ragged import Integers
from hskcache.store.fields import layer_name
from trainer.batch import AttentionTarget, HiddenTarget
from trainer.loading.block import Block


@dataclass(frozen=True, eq=False)
class LogitsDecoder:
    """Average the logits of an ensemble (see :class:`~trainer.loading.choice.Choice`); those of one teacher stay.

    Attributes:
        weights: by field, adding up to 1; at least one.
    """

    weights: Mapping[str, float]

    def decode(self, block: Block) -> Tensor:
        """Logits [B, C] float32."""
        (name, weight), *others = self.weights.items()
        first = block.tensors[f"{name}/logits"]
        if not others:
            return first
        # Numbers of the host, as factors, go to the device with the kernel: no copy to wait for.
        total = first * weight
        for name, weight in others:
            total.add_(block.tensors[f"{name}/logits"], alpha=weight)
        return total


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


@dataclass(frozen=True, eq=False)
class AttentionDecoder:
    """Decode kept attention scores, of which a row with K positions has H x K vectors of K.

    Attributes:
        name: of the field.
        field: how its scores are stored.
        layers: teacher layers to decode.
    """

    name: str
    field: AttentionField
    layers: tuple[int, ...]

    def decode(self, block: Block) -> dict[int, AttentionTarget]:
        """Targets by teacher layer, padded to the row with the most positions."""
        encoding = get_encoding(self.field.encoding)
        counts = np.diff(block.offsets[f"{self.name}/position"])
        most = int(counts.max())
        tables = _tables(self.field, counts, block.device)
        targets = {}
        for layer in self.layers:
            name = f"{self.name}/{layer_name(layer)}"
            parts = {
                part: _padded(block.tensors[f"{name}/{part}"], tables.values if kept.shape else tables.vectors)
                for part, kept in ENCODED[self.field.encoding].of(most).items()
            }
            positions = _padded(unsigned(block.tensors[f"{name}/positions"]), tables.positions)
            targets[layer] = AttentionTarget(
                positions_BK=positions.masked_fill(~tables.valid_BK, 0),
                valid_BK=tables.valid_BK,
                scores_BHKK=encoding.decode(parts, most),
            )
        return targets


class _Table(NamedTuple):
    """A padded table over a flat array: its shape, and the place of each entry, 0 in the padding.

    Where no row is padded there are no places: the flat array is the table.
    """

    shape: tuple[int, ...]
    place: Tensor | None = None


class _Tables(NamedTuple):
    """Tables of the kept positions [B, K], of their vectors [B, H, K] and of the stored values [B, H, K, E]."""

    valid_BK: Tensor
    positions: _Table
    vectors: _Table
    values: _Table


def _tables(field: AttentionField, counts: Integers, device: torch.device) -> _Tables:
    """The tables of a batch, the same for all layers.

    Args:
        field: how the scores are stored.
        counts: kept positions K of each row, on the host.
        device: of the batch.
    """
    heads, encoded, most = field.num_heads, ENCODED[field.encoding], int(counts.max())
    entries = encoded.entries(counts)
    vectors = heads * counts
    begin = (np.cumsum(n) - n for n in (counts, vectors, vectors * entries))
    counts_B, entries_B, *begin_3B = torch.from_numpy(np.stack([counts, entries, *begin])).to(device, non_blocking=True)
    slot_K, slot_E = (torch.arange(n, device=device) for n in (most, encoded.entries(most)))
    shape = (len(counts), heads, most, len(slot_E))
    valid_BK = slot_K < counts_B[:, None]
    if counts.min() == most:
        return _Tables(valid_BK, _Table((len(counts), most)), _Table(shape[:3]), _Table(shape))
    vector_BHK = torch.arange(heads, device=device)[:, None] * counts_B[:, None, None] + slot_K
    value_BHKE = vector_BHK[..., None] * entries_B[:, None, None, None] + slot_E
    kept_BHK = valid_BK[:, None].expand_as(vector_BHK)
    kept_BHKE = kept_BHK[..., None] & (slot_E < entries_B[:, None])[:, None, None]
    places = (
        (begin_3B[0][:, None] + slot_K).masked_fill(~valid_BK, 0),
        (begin_3B[1][:, None, None] + vector_BHK).masked_fill(~kept_BHK, 0),
        (begin_3B[2][:, None, None, None] + value_BHKE).masked_fill(~kept_BHKE, 0),
    )
    return _Tables(valid_BK, *(_Table(tuple(place.shape), place) for place in places))


def _padded(flat: Tensor, table: _Table) -> Tensor:
    """A padded table of a flat array's entries; what stands in the padding says nothing."""
    if table.place is None:
        return flat.view(table.shape)
    return flat.index_select(0, table.place.view(-1)).view(table.shape)


def unsigned(tensor: Tensor) -> Tensor:
    """Stored 16-bit bits or 32-bit integers as int64."""
    return tensor.long() & 0xFFFF if tensor.dtype == torch.int16 else tensor.long()
