"""From encoded rows to a padded batch, on the device where they are."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hskcache.cache import HiddenField
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import unpack_columns
from trainer.batch import Batch, HiddenTarget
from trainer.loading.block import Block


@dataclass(frozen=True)
class Decoder:
    """Turn encoded rows into a batch, on the device where they are.

    Attributes:
        field: how the hidden states are stored, or None.
        layers: teacher layers to decode.
        pad_token_id: fills the input ids of padding.
        has_token_types: whether the model takes token types; zeros where none are stored.
    """

    field: HiddenField | None
    layers: tuple[int, ...]
    pad_token_id: int
    has_token_types: bool

    def decode(self, block: Block, num_rows: int, num_positions: int) -> Batch:
        """Pad the inputs and dequantise the targets."""
        ids = block.tensors["inputs/input_ids"]
        device = ids.device
        counts = np.diff(block.offsets["token"])
        length, batch = int(counts.max()), len(counts)
        counts_B = torch.from_numpy(counts).to(device, non_blocking=True)
        mask = torch.arange(length, device=device) < counts_B[:, None]
        place = _padded_index(counts_B, length, int(counts.sum()))
        inputs = {
            "input_ids": _pad(_unsigned(ids), place, (batch, length), self.pad_token_id),
            "attention_mask": mask.long(),
        }
        if self.has_token_types:
            types = block.tensors["inputs/token_type_ids"].long()
            inputs["token_type_ids"] = _pad(types, place, (batch, length), 0)
        return Batch(
            inputs=inputs,
            labels=block.tensors.get("inputs/labels"),
            logits=block.tensors.get("logits/logits"),
            hidden=self._hidden(block, length),
            num_rows=num_rows,
            num_positions=num_positions,
            row_ids=tuple(block.rows.tolist()),
        )

    def _hidden(self, block: Block, length: int) -> dict[int, HiddenTarget]:
        if self.field is None or not self.layers:
            return {}
        field, encoding = self.field, get_encoding(self.field.encoding)
        counts = np.diff(block.offsets["position"])
        device = block.tensors["inputs/input_ids"].device
        table = torch.from_numpy(np.stack([counts, np.arange(len(counts)) * length])).to(device, non_blocking=True)
        row_start = torch.repeat_interleave(table[1], table[0], output_size=int(counts.sum()))
        targets = {}
        for layer in self.layers:
            name = f"hidden/layer_{layer:02d}"
            parts = {part: block.tensors[f"{name}/{part}"] for part in encoding.parts(field.num_columns)}
            targets[layer] = HiddenTarget(
                index_P=row_start + _unsigned(block.tensors[f"{name}/positions"]),
                values_PW=encoding.decode(parts, field.num_columns),
                columns=self._columns(block, name),
                width=field.width,
                mean_D=block.constants.get(f"{name}/mean"),
                basis_WD=block.constants.get(f"{name}/basis"),
            )
        return targets

    def _columns(self, block: Block, name: str) -> Tensor | None:
        assert self.field is not None
        if self.field.columns == "shared":
            return _unsigned(block.constants[f"{name}/columns"])
        if self.field.columns == "indices":
            return _unsigned(block.tensors[f"{name}/columns"])
        if self.field.columns == "bitmask":
            return unpack_columns(block.tensors[f"{name}/bitmask"], self.field.num_columns, self.field.width)
        return None


def _unsigned(tensor: Tensor) -> Tensor:
    """Stored 16-bit bits or 32-bit integers as int64."""
    return tensor.long() & 0xFFFF if tensor.dtype == torch.int16 else tensor.long()


def _padded_index(counts_B: Tensor, length: int, total: int) -> Tensor:
    """Place of every real token in a flattened [B, L] table."""
    shift = torch.arange(len(counts_B), device=counts_B.device) * length - (counts_B.cumsum(0) - counts_B)
    return torch.repeat_interleave(shift, counts_B, output_size=total) + torch.arange(total, device=counts_B.device)


def _pad(flat: Tensor, place: Tensor, shape: tuple[int, int], value: int) -> Tensor:
    padded = torch.full((shape[0] * shape[1],), value, dtype=torch.int64, device=flat.device)
    return padded.index_copy_(0, place, flat).view(shape)
