"""Decoding of encoded rows into padded batches, many at once, on the device where they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hskcache.ragged import Integers, starts_of
from trainer.batch import Batch
from trainer.loading.arrangement import packed, padded
from trainer.loading.block import TOKEN, Block, Cuts
from trainer.loading.kinds.abc import Decoder

_MASK, _POSITIONS, _PADDING, _FIRST = "attention mask", "places in rows", "padding", "rows of answers"
_ANSWER = "inputs/position"


@dataclass(frozen=True)
class Sizes:
    """Sizes of a slice: its own rows; its global batch's, by kind what losses divide by; whether the slice counts."""

    own_rows: int
    num_rows: int
    totals: Mapping[str, int]
    weight: float = 1.0


class EncodedPool(NamedTuple):
    """Encoded rows of several slices.

    Attributes:
        block: the rows, slice after slice, their tokens arranged in sequences, with the tables that decoding needs.
        cuts: where a slice ends and the next begins.
        shapes: sequences of each slice and their slots, [n, 2].
        sizes: of each slice.
    """

    block: Block
    cuts: Cuts
    shapes: Integers
    sizes: Sequence[Sizes]


@dataclass(frozen=True, eq=False)
class BatchDecoder:
    """Turn encoded rows into batches, on the device where they are; nothing waits for the device.

    A computation costs as much for one batch as for many where batches are small, so those of a pool share it and hold
    views of its result. Whatever follows from numbers of rows, tokens and positions is worked out on the host and goes
    to the device with the rows.

    Attributes:
        pad_token_id: fills the input ids of padding.
        targets: by kind, what decodes them.
        pack: tokens of a sequence at most in which rows stand behind one another; None: each has one of its own.
    """

    pad_token_id: int
    targets: Mapping[str, Decoder]
    pack: int | None = None

    def pool(self, block: Block, rows: Integers, sizes: Sequence[Sizes], pin: bool = False) -> EncodedPool:
        """Select the rows of several slices.

        Args:
            block: holds them.
            rows: of the cache, slice after slice.
            sizes: of each slice.
            pin: select into pinned memory, of the host.
        """
        own, lengths = np.array([one.own_rows for one in sizes]), block.counts(TOKEN, rows)
        starts = starts_of(own)
        laid = padded(lengths, starts) if self.pack is None else packed(lengths, starts, self.pack)
        cuts = Cuts(starts, laid.begin)
        entries = laid.within
        is_own = entries < np.repeat(laid.num_of, laid.size_of)
        # Without a mask, rows in one sequence are told apart by places that begin anew.
        tables: dict[str, Any] = {_MASK: is_own.astype(np.int64)} if self.pack is None else {_POSITIONS: entries.copy()}
        if len(is_own) > lengths.sum():
            tables[_PADDING] = ~is_own
        # Whichever token in the padding.
        entries += np.repeat(block.first_tokens(rows)[laid.row_of], laid.size_of)
        entries *= is_own
        offsets = {axis: starts_of(block.counts(axis, rows)) for axis in block.offsets}
        if _ANSWER in offsets:
            tables[_FIRST] = np.repeat(cuts.begin, np.diff(offsets[_ANSWER]))
        for decoder in self.targets.values():
            tables |= decoder.tables(offsets, cuts)
        return EncodedPool(block.take(rows, {TOKEN: entries}, tables, pin), cuts, laid.shapes, sizes)

    def decode(self, pool: EncodedPool) -> Iterator[Batch]:
        """Pad the inputs and dequantise the targets of the slices of a pool."""
        block, cuts = pool.block, pool.cuts
        inputs, words = self._inputs(pool), block.offsets.get(_ANSWER)
        labels = block.tensors.get("inputs/labels" if words is None else "inputs/tags")
        labels_of = repeat(None) if labels is None else cuts.split(labels, words)
        answered_of = repeat(None) if words is None else cuts.split(self._answered(block), words)
        row_ids, first = block.rows.tolist(), 0
        targets = [decoder.decode(block, cuts) for decoder in self.targets.values()]
        for one, own, label, answered, *kinds in zip(
            pool.sizes, inputs, labels_of, answered_of, *targets, strict=False
        ):
            yield Batch(
                inputs=own,
                labels=label,
                targets=dict(zip(self.targets, kinds, strict=True)),
                num_rows=one.num_rows,
                totals=one.totals,
                row_ids=tuple(row_ids[first : first + one.own_rows]),
                weight=one.weight,
                answered=answered,
            )
            first += one.own_rows

    def _answered(self, block: Block) -> Tensor:
        """Places in the flattened batches where answers are compared."""
        return block.tensors["inputs/positions"].to(torch.int64).add_(block.parts[_FIRST])

    def _inputs(self, pool: EncodedPool) -> Iterator[dict[str, Tensor]]:
        """Inputs of each slice, by name."""
        tensors, parts = pool.block.tensors, pool.block.parts
        told = {"attention_mask": parts[_MASK]} if self.pack is None else {"position_ids": parts[_POSITIONS]}
        inputs = {"input_ids": tensors["inputs/input_ids"].long()} | told
        if (types := tensors.get("inputs/token_type_ids")) is not None:
            inputs["token_type_ids"] = types.long()
        if (padding := parts.get(_PADDING)) is not None:
            for name, value in (("input_ids", self.pad_token_id), ("token_type_ids", 0)):
                if name in inputs:
                    inputs[name].masked_fill_(padding, value)
        divided = [torch.split(flat, pool.shapes.prod(1).tolist()) for flat in inputs.values()]
        for shape, own in zip(pool.shapes.tolist(), zip(*divided, strict=True), strict=True):
            yield {name: flat.view(shape) for name, flat in zip(inputs, own, strict=True)}
