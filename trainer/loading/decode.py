"""From encoded rows to a padded batch, on the device where they are."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hskcache.cache import HiddenField
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import unpack_columns
from trainer.batch import Batch, HiddenTarget
from trainer.loading.block import Block, ragged_index


@dataclass(frozen=True)
class Sizes:
    """A slice's global batch: its rows and kept positions, and whether the slice counts."""

    num_rows: int
    num_positions: int
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Decoder:
    """Turn encoded rows into a batch, on the device where they are; nothing waits for the device.

    Attributes:
        field: how the hidden states are stored, or None.
        layers: teacher layers to decode.
        pad_token_id: fills the input ids of padding.
        constants: ``field/array`` -> what all rows share, on the device of the batches.
    """

    field: HiddenField | None
    layers: tuple[int, ...]
    pad_token_id: int
    constants: dict[str, Tensor]

    def decode(self, block: Block, sizes: Sizes) -> Batch:
        """Pad the inputs and dequantise the targets."""
        counts = np.diff(block.offsets["token"])
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
            logits=block.tensors.get("logits/logits"),
            hidden=self._hidden(block, begin) if self.layers else {},
            num_rows=sizes.num_rows,
            num_positions=sizes.num_positions,
            row_ids=tuple(block.rows.tolist()),
            weight=sizes.weight,
        )

    def _hidden(self, block: Block, begin: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[int, HiddenTarget]:
        assert self.field is not None
        field, encoding = self.field, get_encoding(self.field.encoding)
        counts = np.diff(block.offsets["position"])
        table = torch.from_numpy(np.stack([counts, begin])).to(block.device, non_blocking=True)
        row_start = torch.repeat_interleave(table[1], table[0], output_size=int(counts.sum()))
        targets = {}
        for layer in self.layers:
            name = f"hidden/layer_{layer:02d}"
            parts = {part: block.tensors[f"{name}/{part}"] for part in encoding.parts(field.num_columns)}
            targets[layer] = HiddenTarget(
                index_P=row_start + unsigned(block.tensors[f"{name}/positions"]),
                values_PW=encoding.decode(parts, field.num_columns),
                columns=self._columns(block, name),
                width=field.width,
                mean_D=self.constants.get(f"{name}/mean"),
                basis_WD=self.constants.get(f"{name}/basis"),
            )
        return targets

    def _columns(self, block: Block, name: str) -> Tensor | None:
        assert self.field is not None
        if self.field.columns == "shared":
            return unsigned(self.constants[f"{name}/columns"])
        if self.field.columns == "indices":
            return unsigned(block.tensors[f"{name}/columns"])
        if self.field.columns == "bitmask":
            return unpack_columns(block.tensors[f"{name}/bitmask"], self.field.num_columns, self.field.width)
        return None


def unsigned(tensor: Tensor) -> Tensor:
    """Stored 16-bit bits or 32-bit integers as int64."""
    return tensor.long() & 0xFFFF if tensor.dtype == torch.int16 else tensor.long()


def _pad(flat: Tensor, place: Tensor, shape: tuple[int, int], value: int) -> Tensor:
    padded = torch.full((shape[0] * shape[1],), value, dtype=torch.int64, device=flat.device)
    return padded.index_copy_(0, place, flat).view(shape)
