"""Decoding of encoded rows into a padded batch, on the device where they are."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hskcache.ragged import ragged_index
from trainer.batch import Batch
from trainer.loading.block import TOKEN, Block
from trainer.loading.kinds.abc import Decoder, unsigned


@dataclass(frozen=True)
class Sizes:
    """A slice's global batch: its rows, by kind what losses divide by, and whether the slice counts."""

    num_rows: int
    totals: Mapping[str, int]
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class BatchDecoder:
    """Turn encoded rows into a batch, on the device where they are; nothing waits for the device.

    Attributes:
        pad_token_id: fills the input ids of padding.
        targets: by kind, what decodes them.
    """

    pad_token_id: int
    targets: Mapping[str, Decoder]

    def decode(self, block: Block, sizes: Sizes) -> Batch:
        """Pad the inputs and dequantise the targets."""
        counts = np.diff(block.offsets[TOKEN])
        shape = len(counts), int(counts.max())
        begin = np.arange(shape[0]) * shape[1]
        place = ragged_index(begin, counts, block.device)
        ids = unsigned(block.tensors["inputs/input_ids"])
        inputs = {
            "input_ids": _pad(ids, place, shape, self.pad_token_id),
            "attention_mask": _pad(torch.ones_like(ids), place, shape, 0),
        }
        if (types := block.tensors.get("inputs/token_type_ids")) is not None:
            inputs["token_type_ids"] = _pad(types.long(), place, shape, 0)
        return Batch(
            inputs=inputs,
            labels=block.tensors.get("inputs/labels"),
            targets={kind: decoder.decode(block, begin) for kind, decoder in self.targets.items()},
            num_rows=sizes.num_rows,
            totals=sizes.totals,
            row_ids=tuple(block.rows.tolist()),
            weight=sizes.weight,
        )


def _pad(flat: Tensor, place: Tensor, shape: tuple[int, int], value: int) -> Tensor:
    padded = torch.full((shape[0] * shape[1],), value, dtype=torch.int64, device=flat.device)
    return padded.index_copy_(0, place, flat).view(shape)
