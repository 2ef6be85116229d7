"""Run the teacher over the rows of a shard and gather what is kept into the shard's arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.job import Job
from hskcache.build.knowledge import Selector
from hskcache.build.nonfinite import Arrays, Counts
from hskcache.build.positions import Rows
from hskcache.errors import TeacherError
from hskcache.ragged import Integers, ragged_index, starts_of
from hskcache.store.fields import entry_counts, layer_name
from hskcache.teacher.capture import Wanted, capture
from hskcache.text.padding import padded

__all__ = ["Arrays", "Buffers", "Extractor", "Gathered", "HostArrays"]

NONFINITE = "nonfinite"

# Types Zarr or torch lack travel as signed integers of the same size and are named again on the host.
_STORED_AS = {"positions": np.uint16, "columns": np.uint16}


@dataclass(frozen=True)
class Extractor:
    """A teacher over tokenized rows.

    Attributes:
        job: the teacher and the rows.
        selectors: what is to be kept of each row beside the logits.
        first_row: row of the cache, or of the whole one that it is a part of, that the job's first one becomes; random
            choices are seeded with it.
    """

    job: Job
    selectors: Sequence[Selector]
    first_row: int = 0

    @cached_property
    def wanted(self) -> Wanted:
        """What every forward pass must leave behind."""
        return reduce(or_, (selector.wanted for selector in self.selectors), Wanted())

    def batch(self, index_B: Integers) -> tuple[dict[str, Tensor], Rows]:
        """The teacher's inputs for some rows, padded to the longest of them, on its device."""
        job = self.job
        arrays = padded(job.rows, index_B, job.teacher.pad_token_id)
        tensors = {name: self._on_device(array) for name, array in arrays.items()}
        kept = {field: counts[index_B] for field, counts in job.layout.kept_N.items()}
        valid = tensors["attention_mask"].bool()
        return tensors, Rows(tensors["input_ids"], valid, self._on_device(index_B + self.first_row), kept)

    def knowledge(self, inputs: dict[str, Tensor], rows: Rows) -> tuple[Tensor | None, dict[str, dict[int, Any]]]:
        """Logits [B, C], if the teacher has any, and by field the kept entries of every stored layer for one batch.

        Raises:
            TeacherError: the device has too little memory for the batch.
        """
        try:
            captured = capture(self.job.teacher.model, inputs, self.wanted)
            with torch.inference_mode():
                kept = {selector.name: selector.select(captured, rows) for selector in self.selectors}
        except torch.OutOfMemoryError:
            batch, length = inputs["input_ids"].shape
            raise TeacherError(
                f"{self.job.teacher.device} is out of memory for {batch} rows of {length} tokens; build anew, in "
                f"another --out, with --token-budget below {self.job.spec.token_budget}, or go on with --device cpu"
            ) from None
        return captured.logits, kept

    def _on_device(self, array: NDArray[np.generic]) -> Tensor:
        tensor, device = torch.from_numpy(np.ascontiguousarray(array)), self.job.teacher.device
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class Gathered(NamedTuple):
    """Some rows on the host.

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
        self.kept_n = {selector.name: job.layout.kept_N[selector.name][rows] for selector in extractor.selectors}
        self.arrays: dict[str, Tensor] = {}
        self.nonfinite: dict[tuple[str, str], Tensor] = {}

    def add(self, index_B: Integers) -> None:
        """Run the teacher on some of the rows and put what is kept in its place."""
        inputs, rows = self.extractor.batch(index_B)
        logits, kept = self.extractor.knowledge(inputs, rows)
        local = np.searchsorted(self.rows, index_B)
        row_index = torch.from_numpy(local).to(self.device, non_blocking=True)
        for selector in self.extractor.selectors:
            self._add(selector, kept[selector.name], rows, (local, row_index))
        if logits is not None:
            self._buffer("logits/logits", logits, len(self.rows)).index_copy_(0, row_index, logits)
            self._note(("logits", "the logits"), row_index, (~torch.isfinite(logits)).sum(-1, dtype=torch.int32))

    def _add(self, selector: Selector, kept: dict[int, Any], rows: Rows, local: tuple[Integers, Tensor]) -> None:
        """Put one field's entries in their places; ``local`` are the places of the rows, on the host and the device."""
        local_B, row_index = local
        places: dict[int, tuple[Tensor, int]] = {}
        for layer, entries in kept.items():
            encoded = selector.encode(entries, rows)
            for part, tensor in encoded.arrays.items():
                # Parts of one size stand at the same places; those of all layers are of the same sizes.
                if len(tensor) not in places:
                    places[len(tensor)] = self._places(selector, f"{layer_name(layer)}/{part}", local_B)
                place, total = places[len(tensor)]
                name = f"{selector.name}/{layer_name(layer)}/{part}"
                self._buffer(name, tensor, total).index_copy_(0, place, tensor)
            self._note((selector.name, f"{selector.name} layer {layer}"), row_index, encoded.nonfinite_B)

    def _places(self, selector: Selector, name: str, local_B: Integers) -> tuple[Tensor, int]:
        """Where the entries of some rows stand in an array of the field, and how many it has in all."""
        counts = entry_counts(selector.field, name, self.kept_n[selector.name])
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
        offsets = {field: starts_of(counts) for field, counts in self.kept_n.items()}
        counts = {f"{NONFINITE}/{field}/{what}": counts for (field, what), counts in self.nonfinite.items()}
        return HostArrays(counts | self.arrays, offsets)


class HostArrays:
    """Arrays of some rows on their way to the host; :meth:`wait` hands them over."""

    def __init__(self, tensors: dict[str, Tensor], position_offsets: dict[str, Integers]) -> None:
        self.offsets = position_offsets
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

    def wait(self) -> Gathered:
        """The arrays by field, as stored, and how many of their values are not finite."""
        if self.event is not None:
            self.event.synchronize()
        fields: dict[str, Arrays] = {NONFINITE: {}}
        for name, tensor in self.tensors.items():
            field, _, inner = name.partition("/")
            stored = _STORED_AS.get(inner.rpartition("/")[2])
            array = tensor.numpy()
            fields.setdefault(field, {})[inner] = array.view(stored) if stored else array
        nonfinite: Counts = {}
        for name, counts in fields.pop(NONFINITE).items():
            field, _, what = name.partition("/")
            nonfinite.setdefault(field, {})[what] = counts.astype(np.int64)
        for field, offsets in self.offsets.items():
            fields[field]["position_offsets"] = offsets
        return Gathered(fields, nonfinite)
