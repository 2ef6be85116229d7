"""Decoding of encoded rows into padded batches, many at once, on the device where they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hskcache.ragged import Integers, ragged_index, starts_of
from trainer.batch import Batch
from trainer.loading.block import TOKEN, Block, Cuts
from trainer.loading.kinds.abc import Decoder, unsigned


@dataclass(frozen=True)
class Sizes:
    """Sizes of a slice: its own rows; its global batch's, by kind what losses divide by; whether the slice counts."""

    own_rows: int
    num_rows: int
    totals: Mapping[str, int]
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class BatchDecoder:
    """Turn encoded rows into batches, on the device where they are; nothing waits for the device.

    A computation costs as much for one batch as for many where batches are small, so those of a pool share it and hold
    views of its result.

    Attributes:
        pad_token_id: fills the input ids of padding.
        targets: by kind, what decodes them.
    """

    pad_token_id: int
    targets: Mapping[str, Decoder]

    def decode(self, block: Block, sizes: Sequence[Sizes]) -> Iterator[Batch]:
        """Pad the inputs and dequantise the targets of the slices that the block holds one after the other."""
        own = np.array([one.own_rows for one in sizes])
        rows, counts = starts_of(own), np.diff(block.offsets[TOKEN])
        longest = np.maximum.reduceat(counts, rows[:-1])
        begin = (np.arange(len(counts)) - np.repeat(rows[:-1], own)) * np.repeat(longest, own)
        cuts, inputs = Cuts(rows, begin), self._inputs(block, np.stack([own, longest], 1), begin)
        labels = block.tensors.get("inputs/labels")
        labels_of = [None] * len(sizes) if labels is None else cuts.split(labels)
        targets = zip(*(decoder.decode(block, cuts) for decoder in self.targets.values()), strict=True)
        for batch, one in enumerate(sizes):
            yield Batch(
                inputs={name: padded[batch] for name, padded in inputs.items()},
                labels=labels_of[batch],
                targets=dict(zip(self.targets, next(targets, ()), strict=True)),
                num_rows=one.num_rows,
                totals=one.totals,
                row_ids=tuple(block.rows[rows[batch] : rows[batch + 1]].tolist()),
                weight=one.weight,
            )

    def _inputs(self, block: Block, shapes_n2: Integers, begin: Integers) -> dict[str, list[Tensor]]:
        """Padded inputs of each batch, by name."""
        sizes = shapes_n2.prod(1)
        first = np.repeat(starts_of(sizes)[:-1], shapes_n2[:, 0])
        place = ragged_index(first + begin, np.diff(block.offsets[TOKEN]), block.device)

        def padded(flat: Tensor, value: int) -> list[Tensor]:
            full = torch.full((int(sizes.sum()),), value, dtype=torch.int64, device=flat.device)
            parts = torch.split(full.index_copy_(0, place, flat), sizes.tolist())
            return [part.view(*shape) for part, shape in zip(parts, shapes_n2.tolist(), strict=True)]

        ids = unsigned(block.tensors["inputs/input_ids"])
        inputs = {"input_ids": padded(ids, self.pad_token_id), "attention_mask": padded(torch.ones_like(ids), 0)}
        if (types := block.tensors.get("inputs/token_type_ids")) is not None:
            inputs["token_type_ids"] = padded(types.long(), 0)
        return inputs
