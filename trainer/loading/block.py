"""Encoded rows held in memory as records, and the selection of some of them without decoding anything."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hskcache.ragged import Integers, ragged_places, starts_of
from hskcache.store.fields import AXES, StoredField, kind_of
from trainer.loading.records import Arrays, RecordLayout, buffer_of, fill, layout_of, parts_of, sent, shapes_of

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

    def split(self, tensor: Tensor, offsets: Integers | None = None, dim: int = 0) -> tuple[Tensor, ...]:
        """Each batch's part of a tensor, a view.

        Args:
            tensor: one of its axes counts entries of all rows.
            offsets: where each row's entries begin; None: every row has one.
            dim: the axis.
        """
        cuts = self.rows if offsets is None else offsets[self.rows]
        return torch.split(tensor, np.diff(cuts).tolist(), dim)


class StoredRows(NamedTuple):
    """Rows as a shard holds them.

    Attributes:
        rows: their numbers in the cache, [n].
        offsets: by axis other than ``row``, where each row's entries begin, [n + 1].
        arrays: ``field/array`` -> encoded entries along the first dimension.
        axes: ``field/array`` -> what that dimension counts, see :func:`axis_of`.
    """

    rows: Integers
    offsets: dict[str, Integers]
    arrays: Arrays
    axes: dict[str, str]

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


@dataclass(frozen=True, eq=False)
class Block:
    """Encoded rows.

    Attributes:
        rows: row of the cache that stands at each place, [n].
        offsets: by axis other than ``row``, where each row's entries begin, [n + 1], always on the host.
        layout: form of the records.
        parts: by axis the records of its entries, uint8 [entries, bytes], and by name whatever tables came with a
            selection; all views of one buffer where they are on the host.
        buffer: holds the parts, uint8.
    """

    rows: Integers
    offsets: dict[str, Integers]
    layout: RecordLayout
    parts: dict[str, Tensor]
    buffer: Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes of the encoded rows."""
        return sum(self.parts[axis].nbytes for axis in self.layout.widths)

    @property
    def device(self) -> torch.device:
        """Device of the encoded rows."""
        return self.buffer.device

    @property
    def tensors(self) -> dict[str, Tensor]:
        """``field/array`` -> encoded tensor, a view."""
        return {name: self.stacked([name]).squeeze(1) for name in self.layout.places}

    def stacked(self, names: Sequence[str]) -> Tensor:
        """The same part of several layers, [entries, layers, ...], a view.

        Args:
            names: ``field/layer/part`` of neighbouring layers among those that were read, in their order.
        """
        first, last = (self.layout.places[name] for name in (names[0], names[-1]))
        assert last.start == first.start + (len(names) - 1) * first.num_bytes, "layers are read in their order"
        part = self.parts[first.axis][:, first.start : first.start + len(names) * first.num_bytes]
        return part.view(first.dtype).view(len(part), len(names), *first.shape)

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
        """The batches as blocks of their own without tokens, which share the memory of this one."""
        axes = [axis for axis in self.layout.widths if axis != TOKEN]
        divided = {axis: cuts.split(self.parts[axis], self.offsets.get(axis)) for axis in axes}
        for batch, (first, last) in enumerate(pairwise(cuts.rows)):
            offsets = {axis: begin[first : last + 1] - begin[first] for axis, begin in self.offsets.items()}
            parts = {axis: divided[axis][batch] for axis in axes}
            yield Block(self.rows[first:last], offsets, self.layout, parts, self.buffer)

    def first_tokens(self, rows: Integers) -> Integers:
        """Entry of the first token of each of some rows of the cache."""
        return self.offsets[TOKEN][self._place(rows)]

    def take(
        self,
        rows: Integers,
        entries: Mapping[str, Integers] | None = None,
        tables: Arrays | None = None,
        pin: bool = False,
    ) -> "Block":
        """Rows as a block of their own, on the same device; nothing waits for the device.

        Args:
            rows: of the cache.
            entries: by axis, the entries to take where they are not those of the rows one after the other.
            tables: by name, what the block shall bring along.
            pin: put a block of the host into pinned memory.
        """
        place, tables = self._place(rows), tables or {}
        counts = {axis: begin[place + 1] - begin[place] for axis, begin in self.offsets.items()}
        indices = {ROW: place, **(entries or {})}
        for axis, own in counts.items():
            if axis not in indices and axis not in self._even and not self._is_long(own):
                indices[axis] = ragged_places(self.offsets[axis][place], own)
        shapes: dict[str, Any] = {}
        for axis, width in self.layout.widths.items():
            shapes[axis] = (len(indices[axis]) if axis in indices else int(counts[axis].sum()), width), torch.uint8
        on_host = self.device.type == "cpu"
        shapes |= shapes_of(tables) if on_host else {}
        buffer = buffer_of(shapes, self.device, pin)
        parts = parts_of(buffer, shapes)
        if on_host:
            fill(parts, tables)
            index = {axis: torch.from_numpy(one) for axis, one in indices.items()}
        else:
            index = sent({f"{axis} entries": one for axis, one in indices.items()} | dict(tables), self.device)
            parts |= {name: index.pop(name) for name in tables}
            index = {axis: index[f"{axis} entries"] for axis in indices}
        for axis in self.layout.widths:
            self._select(axis, index, place, parts[axis])
        return Block(rows, {axis: starts_of(own) for axis, own in counts.items()}, self.layout, parts, buffer)

    def to(self, device: torch.device) -> "Block":
        """The block on another device, with one copy of everything; from pinned memory it does not wait."""
        buffer = self.buffer.to(device, non_blocking=self.buffer.is_pinned())
        if buffer is self.buffer:
            return self
        shapes = {name: (tuple(part.shape), part.dtype) for name, part in self.parts.items()}
        return Block(self.rows, self.offsets, self.layout, parts_of(buffer, shapes), buffer)

    def _select(self, axis: str, index: Mapping[str, Tensor], place: Integers, out: Tensor) -> None:
        """Copy the records of an axis: those of an index, or all of some rows."""
        records = self.parts[axis]
        if axis in index:
            torch.index_select(records, 0, index[axis], out=out)
        elif axis in self._even:
            # Whole rows are copied in place of their entries.
            size = len(records) // len(self.rows) * records.shape[1]
            wide = records.view(len(self.rows), size)
            torch.index_select(wide, 0, index[ROW], out=out.view(len(place), size))
        else:
            begin = self.offsets[axis]
            spans = zip(begin[place].tolist(), begin[place + 1].tolist(), strict=True)
            torch.cat([records[first:last] for first, last in spans], out=out)

    def _is_long(self, counts: Integers) -> bool:
        return self.device.type == "cpu" and counts.sum() >= _LONG_ROW * len(counts)

    def _place(self, rows: Integers) -> Integers:
        first, shift = self._runs
        return rows + shift[np.searchsorted(first, rows, side="right") - 1]

    @cached_property
    def _runs(self) -> tuple[Integers, Integers]:
        """First rows, ascending, of runs that follow each other here as in the cache, and the shift to their places."""
        begin = np.flatnonzero(np.append(True, np.diff(self.rows) != 1))
        begin = begin[np.argsort(self.rows[begin])]
        return self.rows[begin], begin - self.rows[begin]

    @cached_property
    def _even(self) -> frozenset[str]:
        """Axes along which all rows have equally many entries."""
        return frozenset(axis for axis, begin in self.offsets.items() if np.ptp(np.diff(begin)) == 0)

    @cached_property
    def _row_bytes(self) -> Integers:
        counts = {axis: np.diff(begin) for axis, begin in self.offsets.items()}
        sizes = [counts.get(axis, np.ones_like(self.rows)) * width for axis, width in self.layout.widths.items()]
        num_bytes: Integers = np.sum(sizes, axis=0)
        return num_bytes


def joined(pieces: "list[StoredRows | Block]") -> Block:
    """Rows of shards, or of blocks, as one block on the host, piece after piece.

    Args:
        pieces: at least one, all of the same arrays; the list is emptied on the way, so that a piece can be gone before
            the next is copied.
    """
    first = pieces[0]
    if isinstance(first, Block) and len(pieces) == 1:
        return first
    layout = first.layout if isinstance(first, Block) else layout_of(first.arrays, first.axes)
    rows = np.concatenate([piece.rows for piece in pieces])
    offsets = {
        axis: starts_of(np.concatenate([np.diff(piece.offsets[axis]) for piece in pieces])) for axis in first.offsets
    }
    ends = {axis: int(offsets[axis][-1]) if axis in offsets else len(rows) for axis in layout.widths}
    shapes = {axis: ((ends[axis], width), torch.uint8) for axis, width in layout.widths.items()}
    buffer = buffer_of(shapes, torch.device("cpu"))
    parts = parts_of(buffer, shapes)
    rest = parts
    while pieces:
        piece = pieces.pop(0)
        counts = {axis: int(piece.offsets[axis][-1]) if axis in offsets else len(piece.rows) for axis in rest}
        own = Block(piece.rows, piece.offsets, layout, {axis: rest[axis][: counts[axis]] for axis in rest}, buffer)
        rest = {axis: records[counts[axis] :] for axis, records in rest.items()}
        if isinstance(piece, Block):
            for axis, records in own.parts.items():
                records.copy_(piece.parts[axis])
        else:
            fill(own.tensors, piece.arrays)
    return Block(rows, offsets, layout, parts, buffer)
