"""Attention scores as they are loaded: padded tables between the kept positions of each row, layer by layer."""

from collections.abc import Iterator, Mapping
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
from trainer.loading.kinds.abc import Decoder, OfLayers, StoredTargets
from trainer.loading.records import Arrays


@dataclass(frozen=True, eq=False)
class AttentionDecoder(Decoder):
    """Decode kept attention scores, of which a row with K positions has H x K vectors of K.

    Attributes:
        name: of the field.
        field: how its scores are stored.
        layers: teacher layers to decode.
    """

    name: str
    field: AttentionField
    layers: tuple[int, ...]

    def tables(self, offsets: Mapping[str, Integers], cuts: Cuts) -> Arrays:
        """Positions and entries of a vector of each row, and where its positions, vectors and values begin."""
        counts = np.diff(offsets[f"{self.name}/position"])
        if np.ptp(counts) == 0:
            return {}
        entries = ENCODED[self.field.encoding].entries(counts)
        vectors = self.field.num_heads * counts
        begin = [
            np.cumsum(sizes) - sizes
            for own in np.split(np.stack([counts, vectors, vectors * entries]), cuts.rows[1:-1], axis=1)
            for sizes in own
        ]
        begin_3B = np.concatenate([np.stack(begin[batch : batch + 3]) for batch in range(0, len(begin), 3)], axis=1)
        return {self._table: np.concatenate([np.stack([counts, entries]), begin_3B])}

    def decode(self, block: Block, cuts: Cuts) -> Iterator[dict[int, AttentionTarget]]:
        """Targets of each batch by teacher layer, padded to its row with the most positions."""
        if self._table in block.parts:
            tables = cuts.split(block.parts[self._table], dim=1)
            for batch, table_5B in zip(block.batches(cuts), tables, strict=True):
                yield self._decoded(batch, table_5B)
            return
        layers = [
            map(AttentionTarget, *(cuts.split(tensor) for tensor in vars(target).values()))
            for target in self._decoded(block, None).values()
        ]
        yield from (dict(zip(self.layers, targets, strict=True)) for targets in zip(*layers, strict=True))

    @property
    def _table(self) -> str:
        return f"{self.name} rows"

    def _decoded(self, block: Block, table_5B: Tensor | None) -> dict[int, AttentionTarget]:
        """Targets of a block by teacher layer; without a table all rows have equally many positions."""
        encoding = get_encoding(self.field.encoding)
        counts = np.diff(block.offsets[f"{self.name}/position"])
        most = int(counts.max())
        shape = len(counts), self.field.num_heads, most, int(ENCODED[self.field.encoding].entries(most))
        tables = _tables(shape, table_5B, block.device)
        names = [f"{self.name}/{layer_name(layer)}" for layer in self.layers]

        def stacked(part: str) -> Tensor:
            return block.stacked([f"{name}/{part}" for name in names])

        parts = {
            part: _padded(stacked(part), tables.values if kept.shape else tables.vectors)
            for part, kept in ENCODED[self.field.encoding].of(most).items()
        }
        positions_nBK = _padded(stacked("positions").long(), tables.positions).mul_(tables.valid_BK)
        scores_nBHKK = encoding.decode(parts, most)
        return {
            layer: AttentionTarget(positions_BK=positions_BK, valid_BK=tables.valid_BK, scores_BHKK=scores_BHKK)
            for layer, positions_BK, scores_BHKK in zip(self.layers, positions_nBK, scores_nBHKK, strict=True)
        }


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


def _tables(shape: tuple[int, int, int, int], table_5B: Tensor | None, device: torch.device) -> _Tables:
    """The tables of a batch, the same for all layers.

    Args:
        shape: of the values, [B, H, K, E].
        table_5B: what :meth:`AttentionDecoder.tables` says of the rows; None where no row is padded.
        device: of the batch.
    """
    if table_5B is None:
        valid_BK = torch.ones(shape[0], shape[2], dtype=torch.bool, device=device)
        return _Tables(valid_BK, _Table((shape[0], shape[2])), _Table(shape[:3]), _Table(shape))
    counts_B, entries_B, *begin_3B = table_5B
    heads_H, slot_K, slot_E = (torch.arange(size, device=device) for size in shape[1:])
    valid_BK = slot_K < counts_B[:, None]
    vector_BHK = heads_H[:, None] * counts_B[:, None, None] + slot_K
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
    """Padded tables of flat arrays [entries, n], the n first; what stands in the padding says nothing."""
    if table.place is not None:
        flat = flat.index_select(0, table.place.view(-1))
    return flat.view(*table.shape, flat.shape[1]).movedim(-1, 0).contiguous()
