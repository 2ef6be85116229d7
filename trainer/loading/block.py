"""Encoded rows held in memory as flat tensors, and the selection of some of them without decoding anything."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hskcache.ragged import Integers, ragged_index, starts_of
from hskcache.store.fields import AXES, StoredField, kind_of

Take = Callable[[Tensor], Tensor]

ROW, TOKEN = "row", "inputs/token"

# Entries of a row from which a copy of the whole row is quicker than looking up each of them.
_LONG_ROW = 1024


def axis_of(name: str, field: StoredField, array: str) -> str:
    """Axis that the first dimension of a stored array counts.

    Args:
        name: of the field.
        field: what it stores.
        array: one of its arrays, within the field.

    Returns:
        ``row``, or the field's name with ``token``, ``position``, and of attention scores ``vector`` (one query of one
        head) or ``value``: arrays of one axis are divided into rows alike.
    """
    axis = kind_of(field).axis(array)
    return ROW if AXES[axis] is None else f"{name}/{axis}"


@dataclass(frozen=True, eq=False)
class Cuts:
    """Division of the rows of a block into batches.

    Attributes:
        rows: where each batch's rows begin, [n + 1], on the host.
        begin: where each row begins in its flattened batch, on the host.
    """

    rows: Integers
    begin: Integers

    @property
    def num_batches(self) -> int:
        """Batches n."""
        return len(self.rows) - 1

    def split(self, tensor: Tensor, offsets: Integers | None = None) -> tuple[Tensor, ...]:
        """Each batch's part of a tensor, a view.

        Args:
            tensor: its first axis counts entries of all rows.
            offsets: where each row's entries begin; None: every row has one.
        """
        cuts = self.rows if offsets is None else offsets[self.rows]
        return torch.split(tensor, np.diff(cuts).tolist())


@dataclass(frozen=True, eq=False)
class Block:
    """Encoded rows.

    Attributes:
        rows: row of the cache that stands at each place, [n].
        offsets: by axis other than ``row``, where each row's entries begin, [n + 1], always on the host.
        tensors: ``field/array`` -> encoded tensor; 16-bit unsigned types as signed bits.
        axes: ``field/array`` -> what its first axis counts, see :func:`axis_of`.
    """

    rows: Integers
    offsets: dict[str, Integers]
    tensors: dict[str, Tensor]
    axes: dict[str, str]

    @property
    def num_bytes(self) -> int:
        """Bytes of the encoded tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def device(self) -> torch.device:
        """Device of the encoded tensors."""
        return self.tensors["inputs/input_ids"].device

    def num_row_bytes(self, rows: Integers) -> Integers:
        """Bytes of each of some rows of the cache."""
        return self._row_bytes[self._place(rows)]

    def counts(self, axis: str, rows: Integers) -> Integers:
        """Entries of some rows of the cache along an axis; zeros where the block has none of it."""
        if axis not in self.offsets:
            return np.zeros(len(rows), np.int64)
        place, offsets = self._place(rows), self.offsets[axis]
        return offsets[place + 1] - offsets[place]

    def batches(self, cuts: Cuts) -> "Iterator[Block]":
        """The batches as blocks of their own, which share the memory of this one."""
        divided = {name: cuts.split(tensor, self.offsets.get(self.axes[name])) for name, tensor in self.tensors.items()}
        for batch, (first, last) in enumerate(pairwise(cuts.rows)):
            offsets = {axis: begin[first : last + 1] - begin[first] for axis, begin in self.offsets.items()}
            tensors = {name: parts[batch] for name, parts in divided.items()}
            yield Block(self.rows[first:last], offsets, tensors, self.axes)

    def take(self, rows: Integers) -> "Block":
        """Rows as a block of their own, on the same device; nothing waits for the device."""
        place = self._place(rows)
        index = torch.from_numpy(place).to(self.device, non_blocking=True)
        takes: dict[str, Take] = {ROW: lambda tensor: tensor.index_select(0, index)}
        offsets = {}
        for axis, begin in self.offsets.items():
            counts = begin[place + 1] - begin[place]
            offsets[axis] = starts_of(counts)
            is_even = axis in self._even
            takes[axis] = self._even_take(index) if is_even else _ragged_take(begin[place], counts, self.device)
        tensors = {name: takes[self.axes[name]](tensor) for name, tensor in self.tensors.items()}
        return Block(rows, offsets, tensors, self.axes)

    def to(self, device: torch.device, pin: bool = False) -> "Block":
        """The block on another device; from pinned memory the copy does not wait."""
        if device == self.device:
            return self
        tensors = {
            name: (tensor.pin_memory() if pin else tensor).to(device, non_blocking=pin)
            for name, tensor in self.tensors.items()
        }
        return Block(self.rows, self.offsets, tensors, self.axes)

    def _place(self, rows: Integers) -> Integers:
        return self._order[np.searchsorted(self.rows, rows, sorter=self._order)]

    @cached_property
    def _even(self) -> frozenset[str]:
        """Axes along which all rows have equally many entries."""
        return frozenset(axis for axis, begin in self.offsets.items() if np.ptp(np.diff(begin)) == 0)

    def _even_take(self, index: Tensor) -> Take:
        """Picks whole rows out of a flat tensor of rows that have equally many entries."""
        num_rows = len(self.rows)
        return lambda flat: (
            flat.view(num_rows, len(flat) // num_rows, *flat.shape[1:]).index_select(0, index).flatten(0, 1)
        )

    @cached_property
    def _row_bytes(self) -> Integers:
        num_bytes = np.zeros(len(self.rows), np.int64)
        for name, tensor in self.tensors.items():
            offsets = self.offsets.get(self.axes[name])
            num_bytes += tensor[:1].nbytes * (1 if offsets is None else np.diff(offsets))
        return num_bytes

    @cached_property
    def _order(self) -> Integers:
        return np.argsort(self.rows, kind="stable")


def _ragged_take(begin: Integers, counts: Integers, device: torch.device) -> Take:
    """Picks the entries of some rows out of a flat tensor."""
    if device.type == "cpu" and counts.sum() >= _LONG_ROW * len(counts):
        spans = list(zip(begin.tolist(), counts.tolist(), strict=True))
        return lambda tensor: torch.cat([tensor.narrow(0, *span) for span in spans])
    index = ragged_index(begin, counts, device)
    return lambda tensor: tensor.index_select(0, index)


def concatenate(blocks: Sequence[Block]) -> Block:
    """Several blocks as one, row after row."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    offsets = {
        axis: starts_of(np.concatenate([np.diff(block.offsets[axis]) for block in blocks])) for axis in first.offsets
    }
    tensors = {name: torch.cat([block.tensors[name] for block in blocks]) for name in first.tensors}
    return Block(np.concatenate([block.rows for block in blocks]), offsets, tensors, first.axes)
