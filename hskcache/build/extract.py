"""Run the teacher over the rows of a shard and gather what is kept into the shard's arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.head_pass import score_next
from hskcache.build.job import Job
from hskcache.build.kinds.abc import Selector
from hskcache.build.nonfinite import Arrays, Counts
from hskcache.build.positions import PaddedRows
from hskcache.counted import counted
from hskcache.errors import TeacherError
from hskcache.ragged import Integers, ragged_index, starts_of
from hskcache.store.fields import ROW, StoredField, kind_of, layer_name
from hskcache.teacher.capture import Captured, Wanted, capture
from hskcache.teacher.windows import capture_windows
from hskcache.text.padding import padded, places_before_targets
from hskcache.timeline import span

__all__ = ["Arrays", "Buffers", "Extractor", "Gathered", "HostArrays"]

NONFINITE = "nonfinite"

# Types Zarr or torch lack travel as signed integers of the same size and are named again on the host.
_STORED_AS = dict.fromkeys(("positions", "columns", "ids", "gaps"), np.uint16)


@dataclass(frozen=True)
class Extractor:
    """A teacher over tokenized rows.

    Attributes:
        job: the teacher and the rows.
        selectors: what is to be kept of each row.
        first_row: row of the cache, or of the whole one that it is a part of, that the job's first one becomes; random
            choices are seeded with it.
    """

    job: Job
    selectors: Sequence[Selector]
    first_row: int = 0

    @cached_property
    def wanted(self) -> Wanted:
        """Parts of a forward pass that must be left behind every time."""
        return reduce(or_, (selector.wanted for selector in self.selectors), Wanted())

    def batch(self, index_B: Integers) -> tuple[dict[str, Tensor], PaddedRows]:
        """The teacher's inputs for some rows, padded to the longest of them, on its device."""
        job = self.job
        arrays = padded(job.rows, index_B, job.teacher.pad_token_id)
        tensors = {name: self._on_device(array) for name, array in arrays.items()}
        num_kept = {field: counts[index_B] for field, counts in job.layout.kept_N.items()}
        valid = tensors["attention_mask"].bool()
        words, row_ids = job.rows.words, self._on_device(index_B + self.first_row)
        first = None if words is None else self._on_device(words.padded(index_B, arrays["input_ids"].shape[1]))
        following = None
        if self.wanted.final:
            following = self._on_device(places_before_targets(job.rows, index_B, arrays["input_ids"].shape[1]))
        return tensors, PaddedRows(tensors["input_ids"], valid, row_ids, num_kept, first, following)

    def captured(self, inputs: dict[str, Tensor]) -> Captured:
        """Parts of a forward pass over some rows, or over their windows."""
        teacher, windowing = self.job.teacher, self.job.windowing
        if windowing is None:
            return capture(teacher.model, teacher.taps, inputs, self.wanted)
        budget = self.job.spec.token_budget
        return capture_windows(teacher.model, teacher.taps, inputs, self.wanted, windowing, budget)

    def knowledge(self, inputs: dict[str, Tensor], rows: PaddedRows) -> dict[str, Mapping[Any, Any]]:
        """Kept entries of every stored layer for one batch, by kind, under None where there are no layers.

        Raises:
            TeacherError: the device has too little memory for the batch.
        """
        try:
            captured = self.captured(inputs)
            with torch.inference_mode():
                return self._selected(captured, rows)
        except torch.OutOfMemoryError:
            batch, length = inputs["input_ids"].shape
            raise TeacherError(
                f"{self.job.teacher.device} is out of memory for {counted(batch, 'row')} of {length} tokens; "
                "build anew, in "
                f"another --out, with --token-budget below {self.job.spec.token_budget}, or go on with --device cpu"
            ) from None

    def _selected(self, captured: Captured, rows: PaddedRows) -> dict[str, Mapping[Any, Any]]:
        found: dict[str, Mapping[Any, Any]] = {}
        # Whoever passes over the head scores positions on the way, for all others, too.
        for selector in sorted(self.selectors, key=lambda one: not one.wanted.logits):
            if not selector.wanted.logits:
                self.score_next(captured, rows)
            found[selector.name] = selector.select(captured, rows)
        return {selector.name: found[selector.name] for selector in self.selectors}

    def score_next(self, captured: Captured, rows: PaddedRows) -> None:
        """Score positions by the next token where that is asked for and not done."""
        if captured.asked:
            assert self.job.teacher.output_head is not None
            score_next(self.job.teacher.output_head, captured, rows)

    def _on_device(self, array: NDArray[np.generic]) -> Tensor:
        tensor, device = torch.from_numpy(np.ascontiguousarray(array)), self.job.teacher.device
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class Gathered(NamedTuple):
    """Rows on the host.

    Attributes:
        fields: arrays by field, as stored.
        nonfinite: values that are not finite, see :data:`~hskcache.build.nonfinite.Counts`.
    """

    fields: dict[str, Arrays]
    nonfinite: Counts


class Buffers:
    """The arrays of some rows, such as a shard's, filled batch by batch on the device and copied to the host once.

    Args:
        extractor: runs the teacher.
        rows: the rows, ascending.
    """

    def __init__(self, extractor: Extractor, rows: Integers) -> None:
        job = extractor.job
        self.extractor = extractor
        self.rows = rows
        self.device = job.teacher.device
        kept_N = job.layout.kept_N
        self.kept_n = {one.name: kept_N[one.name][rows] for one in extractor.selectors if one.name in kept_N}
        self.arrays: dict[str, Tensor] = {}
        self.axes: dict[str, tuple[StoredField, str]] = {}
        self.nonfinite: dict[tuple[str, str], Tensor] = {}

    @span("select and encode")
    def add(self, index_B: Integers) -> None:
        """Run the teacher on some of the rows and put what is kept in its place."""
        inputs, rows = self.extractor.batch(index_B)
        selected = self.extractor.knowledge(inputs, rows)
        local = np.searchsorted(self.rows, index_B)
        row_index = torch.from_numpy(local).to(self.device, non_blocking=True)
        for selector in self.extractor.selectors:
            self._add(selector, selected[selector.name], rows, (local, row_index))

    def _add(
        self, selector: Selector, kept: Mapping[Any, Any], rows: PaddedRows, local: tuple[Integers, Tensor]
    ) -> None:
        """Put one field's entries in their places; ``local`` are the places of the rows, on the host and the device."""
        kind, name = kind_of(selector.field), selector.name
        places: dict[str, tuple[Tensor, int]] = {ROW: (local[1], len(self.rows))}
        for layer, entries in kept.items():
            encoded = selector.encode(entries, rows)
            prefix = "" if layer is None else f"{layer_name(layer)}/"
            for part, tensor in encoded.arrays.items():
                # Arrays of one axis stand at the same places; those of all layers are of the same sizes.
                axis = kind.axis(f"{prefix}{part}")
                if axis not in places:
                    places[axis] = self._places(selector, axis, local[0])
                place, total = places[axis]
                self.axes[f"{name}/{prefix}{part}"] = selector.field, axis
                self._buffer(f"{name}/{prefix}{part}", tensor, total).index_copy_(0, place, tensor)
            what = f"the {name}" if layer is None else f"{name} layer {layer}"
            self._note((name, what), local[1], encoded.nonfinite_B)

    def _places(self, selector: Selector, axis: str, local_B: Integers) -> tuple[Tensor, int]:
        """Places of some rows' entries in the arrays of an axis, and the number of its entries in all."""
        counts = kind_of(selector.field).entries(selector.field, axis, self.kept_n[selector.name])
        begin = np.cumsum(counts) - counts
        return ragged_index(begin[local_B], counts[local_B], self.device), int(counts.sum())

    def _note(self, what: tuple[str, str], row_index: Tensor, nonfinite_B: Tensor) -> None:
        """Count the values that are not finite, by row; ``what`` is the field and the part of it."""
        if what not in self.nonfinite:
            self.nonfinite[what] = torch.zeros(len(self.rows), dtype=torch.int32, device=self.device)
        self.nonfinite[what].index_add_(0, row_index, nonfinite_B)

    def _buffer(self, name: str, like: Tensor, num_entries: int) -> Tensor:
        if name not in self.arrays:
            self.arrays[name] = torch.empty((num_entries, *like.shape[1:]), dtype=like.dtype, device=like.device)
        return self.arrays[name]

    def to_host(self) -> "HostArrays":
        """Start the copy to pinned host memory; the device goes on computing."""
        counts = {f"{NONFINITE}/{field}/{what}": counts for (field, what), counts in self.nonfinite.items()}
        return HostArrays(counts | self.arrays, self.kept_n, self.axes)


class HostArrays:
    """Arrays of some rows on their way to the host; :meth:`wait` hands them over.

    Args:
        tensors: by field and name within it.
        kept_n: positions kept of each row, by field that keeps any.
        axes: of the arrays that do not have an entry a row, or may not: their field and their axis.
    """

    def __init__(
        self, tensors: dict[str, Tensor], kept_n: dict[str, Integers], axes: dict[str, tuple[StoredField, str]]
    ) -> None:
        self.kept_n, self.axes = kept_n, axes
        self.event: torch.cuda.Event | None = None
        if any(tensor.is_cuda for tensor in tensors.values()):
            self.sources = tensors
            tensors = {
                name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
                for name, tensor in tensors.items()
            }
            self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.event.record()
        self.tensors = tensors

    def wait(self, first: int = 0, stop: int | None = None) -> Gathered:
        """The arrays by field, as stored, and how many of their values are not finite.

        Args:
            first: of the rows that are handed over, counted within these.
            stop: where they end; None at the last one.
        """
        if self.event is not None:
            with span("wait for the device"):
                self.event.synchronize()
        fields: dict[str, Arrays] = {NONFINITE: {}}
        for name, tensor in self.tensors.items():
            field, _, inner = name.partition("/")
            stored = _STORED_AS.get(inner.rpartition("/")[2])
            array = tensor.numpy()[self._entries(name, first, stop)]
            fields.setdefault(field, {})[inner] = array.view(stored) if stored else array
        nonfinite: Counts = {}
        for name, counts in fields.pop(NONFINITE).items():
            field, _, what = name.partition("/")
            nonfinite.setdefault(field, {})[what] = counts.astype(np.int64)
        for field, counts in self.kept_n.items():
            fields[field]["position_offsets"] = starts_of(counts[first:stop])
        return Gathered(fields, nonfinite)

    def _entries(self, name: str, first: int, stop: int | None) -> slice:
        """Entries of an array that belong to some rows."""
        field, axis = self.axes.get(name, (None, ROW))
        if field is None or axis == ROW:
            return slice(first, stop)
        counts = kind_of(field).entries(field, axis, self.kept_n[name.partition("/")[0]])
        begin = int(counts[:first].sum())
        return slice(begin, begin + int(counts[first:stop].sum()))
