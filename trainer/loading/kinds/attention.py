"""Attention scores as they are loaded: padded tables between the kept positions of each row, layer by layer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.ragged import Integers
from hskcache.store.fields import layer_name
from hskcache.store.kinds.attention import AttentionField
from trainer.batch import AttentionTarget
from trainer.loading.block import Block, Cuts
from trainer.loading.kinds.abc import OfLayers, StoredTargets, unsigned


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

    def decode(self, block: Block, cuts: Cuts) -> Iterator[dict[int, AttentionTarget]]:
        """Targets of each batch by teacher layer, padded to its row with the most positions."""
        counts = np.diff(block.offsets[f"{self.name}/position"])
        if counts.min() < counts.max():
            yield from (self._decoded(batch) for batch in block.batches(cuts))
            return
        layers = [
            map(AttentionTarget, *(cuts.split(tensor) for tensor in vars(target).values()))
            for target in self._decoded(block).values()
        ]
        yield from (dict(zip(self.layers, targets, strict=True)) for targets in zip(*layers, strict=True))

    def _decoded(self, block: Block) -> dict[int, AttentionTarget]:
        """Targets of a block by teacher layer."""
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


class LoadedAttention(OfLayers[AttentionField]):
    """Teacher layer -> :class:`~trainer.batch.AttentionTarget` in a batch; losses divide by pairs of kept positions."""

    of_layers = "attention of layers"
    of_layer = "attention of layer"

    def decoder(self, stored: StoredTargets) -> AttentionDecoder:
        """Decoder of one field."""
        return AttentionDecoder(stored.name, stored.field, stored.layers)

    def total(self, counts: Integers) -> int:
        """Pairs of a kept query and a kept key."""
        return int((counts * counts).sum())


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
