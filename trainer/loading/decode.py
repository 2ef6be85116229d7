"""From encoded rows to a padded batch, on the device where they are."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hskcache.ragged import ragged_index
from trainer.batch import Batch
from trainer.loading.block import TOKEN, Block
from trainer.loading.targets import AttentionDecoder, HiddenDecoder, LogitsDecoder, unsigned


@dataclass(frozen=True)
class Sizes:
    """A slice's global batch: its rows, kept positions and pairs of them, and whether the slice counts."""

    num_rows: int
    num_positions: int
    num_pairs: int = 0
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Decoder:
    """Turn encoded rows into a batch, on the device where they are; nothing waits for the device.

    Attributes:
        pad_token_id: fills the input ids of padding.
        logits, hidden, attention: decode the targets, where there are any.
    """

    pad_token_id: int
    logits: LogitsDecoder | None = None
    hidden: HiddenDecoder | None = None
    attention: AttentionDecoder | None = None

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
            logits=self.logits.decode(block) if self.logits is not None else None,
            hidden=self.hidden.decode(block, begin) if self.hidden is not None else {},
            attention=self.attention.decode(block) if self.attention is not None else {},
            num_rows=sizes.num_rows,
            num_positions=sizes.num_positions,
            num_pairs=sizes.num_pairs,
            row_ids=tuple(block.rows.tolist()),
            weight=sizes.weight,
        )


def _pad(flat: Tensor, place: Tensor, shape: tuple[int, int], value: int) -> Tensor:
    padded = torch.full((shape[0] * shape[1],), value, dtype=torch.int64, device=flat.device)
    return padded.index_copy_(0, place, flat).view(shape)
