"""Encoded rows held in memory as flat tensors, and the selection of some of them without decoding anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]

# What the first axis of a stored array counts, where it is not kept positions.
_AXES = {"labels": "row", "logits": "row", "input_ids": "token", "token_type_ids": "token"}


def axis_of(name: str) -> str:
    """``row``, ``token`` or ``position``: what the first axis of the array ``field/array`` counts."""
    return _AXES.get(name.partition("/")[2], "position")


@dataclass(frozen=True, eq=False)
class Block:
    """Encoded rows.

    Attributes:
        rows: row of the cache that stands at each place, [n].
        offsets: for ``token`` and ``position``, where each row's entries begin, [n + 1], always on the host.
        tensors: ``field/array`` -> encoded tensor; 16-bit unsigned types as signed bits.
    """

    rows: Integers
    offsets: dict[str, Integers]
    tensors: dict[str, Tensor]

    @property
    def num_bytes(self) -> int:
        """Bytes of the encoded tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def device(self) -> torch.device:
        """Where the encoded tensors are."""
        return self.tensors["inputs/input_ids"].device

    def lengths(self, rows: Integers) -> Integers:
        """Tokens of some rows of the cache."""
        return self._sizes("token", rows)

    def counts(self, rows: Integers) -> Integers:
        """Kept positions of some rows of the cache; zeros where the block has none."""
        return self._sizes("position", rows) if "position" in self.offsets else np.zeros(len(rows), np.int64)

    def take(self, rows: Integers) -> "Block":
        """Some rows as a block of their own, on the same device; nothing waits for the device."""
        place = self._place(rows)
        index = {"row": torch.from_numpy(place).to(self.device, non_blocking=True)}
        offsets = {}
        for axis, begin in self.offsets.items():
            counts = begin[place + 1] - begin[place]
            offsets[axis] = starts_of(counts)
            index[axis] = ragged_index(begin[place], counts, self.device)
        tensors = {name: tensor.index_select(0, index[axis_of(name)]) for name, tensor in self.tensors.items()}
        return Block(rows, offsets, tensors)

    def to(self, device: torch.device, pin: bool = False) -> "Block":
        """The block on another device; from pinned memory the copy does not wait."""
        if device == self.device:
            return self
        tensors = {
            name: (tensor.pin_memory() if pin else tensor).to(device, non_blocking=pin)
            for name, tensor in self.tensors.items()
        }
        return Block(self.rows, self.offsets, tensors)

    def _sizes(self, axis: str, rows: Integers) -> Integers:
        place, offsets = self._place(rows), self.offsets[axis]
        return offsets[place + 1] - offsets[place]

    def _place(self, rows: Integers) -> Integers:
        return self._order[np.searchsorted(self.rows, rows, sorter=self._order)]

    @cached_property
    def _order(self) -> Integers:
        return np.argsort(self.rows, kind="stable")


def starts_of(counts: Integers) -> Integers:
    """Offsets [n + 1] of rows that have ``counts`` [n] entries each."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def ragged_index(begin: Integers, counts: Integers, device: torch.device) -> Tensor:
    """Places of the entries of some rows in a flat array: ``begin[i] ... begin[i] + counts[i]``, row after row."""
    total = int(counts.sum())
    shift = begin - (np.cumsum(counts) - counts)
    table = torch.from_numpy(np.stack([counts, shift])).to(device, non_blocking=True)
    # The size is known on the host; without it the device would have to be asked.
    return torch.repeat_interleave(table[1], table[0], output_size=total) + torch.arange(total, device=device)


def concatenate(blocks: Sequence[Block]) -> Block:
    """Several blocks as one, row after row."""
    if len(blocks) == 1:
        return blocks[0]
    offsets = {
        axis: starts_of(np.concatenate([np.diff(block.offsets[axis]) for block in blocks]))
        for axis in blocks[0].offsets
    }
    tensors = {name: torch.cat([block.tensors[name] for block in blocks]) for name in blocks[0].tensors}
    return Block(np.concatenate([block.rows for block in blocks]), offsets, tensors)
