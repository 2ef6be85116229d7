"""Run the teacher over the rows of a shard and gather what is kept into the shard's arrays."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.encoding import get_encoding
from hskcache.errors import TeacherError
from hskcache.store.fields import layer_name
from hskcache.teacher.capture import Captured, capture
from hskcache.teacher.job import Job
from hskcache.teacher.knowledge import Kept, Rows, Selector
from hskcache.teacher.layout import Integers

Arrays = dict[str, NDArray[np.generic]]

# Types Zarr or torch lack travel as signed integers of the same size and are named again on the host.
_STORED_AS = {"positions": np.uint16, "columns": np.uint16}


@dataclass(frozen=True)
class Extractor:
    """A teacher over tokenized rows, with what is to be kept of each.

    ``selector`` is None where logits alone are kept.
    """

    job: Job
    selector: Selector | None

    def batch(self, index_B: Integers) -> tuple[dict[str, Tensor], Rows]:
        """The teacher's inputs for some rows, padded to the longest of them, on its device."""
        job = self.job
        lengths = job.layout.lengths_N[index_B]
        within = np.arange(lengths.max())
        valid = within < lengths[:, None]
        flat = (job.rows.offsets[index_B][:, None] + within)[valid]
        ids = np.full(valid.shape, job.teacher.pad_token_id, np.int64)
        ids[valid] = job.rows.input_ids[flat]
        inputs = {"input_ids": ids, "attention_mask": valid.astype(np.int64)}
        if job.rows.token_type_ids is not None:
            types = np.zeros(valid.shape, np.int64)
            types[valid] = job.rows.token_type_ids[flat]
            inputs["token_type_ids"] = types
        tensors = {name: self._on_device(array) for name, array in inputs.items()}
        rows = Rows(tensors["input_ids"], self._on_device(valid), self._on_device(index_B), job.layout.kept_N[index_B])
        return tensors, rows

    def knowledge(self, inputs: dict[str, Tensor], rows: Rows) -> tuple[Tensor, dict[int, Kept]]:
        """Logits [B, C] and the kept entries of every stored layer for one batch.

        Raises:
            TeacherError: the device has too little memory for the batch.
        """
        try:
            captured = self._capture(inputs)
            assert captured.logits is not None
            if self.selector is None:
                return captured.logits, {}
            with torch.inference_mode():
                return captured.logits, self.selector.select(captured, rows)
        except torch.OutOfMemoryError:
            batch, length = inputs["input_ids"].shape
            raise TeacherError(
                f"{self.job.teacher.device} is out of memory for {batch} rows of {length} tokens; build anew, in "
                f"another --out, with --token-budget below {self.job.spec.token_budget}, or go on with --device cpu"
            ) from None

    def _capture(self, inputs: dict[str, Tensor]) -> Captured:
        model, selector = self.job.teacher.model, self.selector
        if selector is None:
            return capture(model, inputs)
        return capture(model, inputs, selector.field.layers, selector.hidden.length.score, selector.score_layers)

    def _on_device(self, array: NDArray[np.generic]) -> Tensor:
        tensor, device = torch.from_numpy(np.ascontiguousarray(array)), self.job.teacher.device
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


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
        self.logits = torch.empty((len(rows), job.teacher.num_labels), device=self.device)
        self.offsets = np.concatenate([[0], np.cumsum(job.layout.kept_N[rows])]).astype(np.int64)
        self.hidden: dict[str, Tensor] = {}
        self.nonfinite: dict[str, Tensor] = {}

    def add(self, index_B: Integers) -> None:
        """Run the teacher on some of the rows and put what is kept in its place."""
        inputs, rows = self.extractor.batch(index_B)
        logits, kept = self.extractor.knowledge(inputs, rows)
        local = np.searchsorted(self.rows, index_B)
        if kept:
            self._add_hidden(local, kept, rows.kept_B)
        row_index = torch.from_numpy(local).to(self.device, non_blocking=True)
        self.logits.index_copy_(0, row_index, logits)
        self._note("the logits", row_index, logits)

    def _add_hidden(self, local_B: Integers, kept: dict[int, Kept], kept_B: Integers) -> None:
        selector = self.extractor.selector
        assert selector is not None
        within = np.arange(kept_B.sum()) - np.repeat(np.cumsum(kept_B) - kept_B, kept_B)
        target = torch.from_numpy(np.repeat(self.offsets[local_B], kept_B) + within).to(self.device, non_blocking=True)
        owner = torch.from_numpy(np.repeat(local_B, kept_B)).to(self.device, non_blocking=True)
        encoding, num_columns = get_encoding(selector.field.encoding), selector.field.num_columns
        for layer, entries in kept.items():
            arrays = selector.encode(entries)
            for name, tensor in arrays.items():
                self._buffer(f"{layer_name(layer)}/{name}", tensor).index_copy_(0, target, tensor)
            # What is read back counts: an encoding of less range than the states may overflow.
            self._note(f"hidden layer {layer}", owner, encoding.decode(arrays, num_columns))

    def _note(self, what: str, owner: Tensor, values: Tensor) -> None:
        """Count the values that are not finite, by the row that each entry of the first axis belongs to."""
        if what not in self.nonfinite:
            self.nonfinite[what] = torch.zeros(len(self.rows), dtype=torch.int32, device=self.device)
        self.nonfinite[what].index_add_(0, owner, (~torch.isfinite(values)).sum(-1, dtype=torch.int32))

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        if name not in self.hidden:
            shape = (int(self.offsets[-1]), *like.shape[1:])
            self.hidden[name] = torch.empty(shape, dtype=like.dtype, device=like.device)
        return self.hidden[name]

    def to_host(self) -> "HostArrays":
        """Start the copy to pinned host memory; the device goes on computing."""
        tensors = {f"nonfinite/{what}": counts for what, counts in self.nonfinite.items()}
        tensors |= {"logits/logits": self.logits}
        tensors |= {f"hidden/{name}": tensor for name, tensor in self.hidden.items()}
        return HostArrays(tensors, self.rows, self.offsets if self.hidden else None)


class HostArrays:
    """Arrays of some rows on their way to the host; :meth:`wait` hands them over."""

    def __init__(self, tensors: dict[str, Tensor], rows: Integers, position_offsets: Integers | None) -> None:
        self.rows = rows
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

    def wait(self, source: str) -> dict[str, Arrays]:
        """The arrays by field, as stored.

        Args:
            source: what to call the data.

        Raises:
            TeacherError: a value to be stored is not finite; names its row and field.
        """
        if self.event is not None:
            self.event.synchronize()
        fields: dict[str, Arrays] = {}
        for name, tensor in self.tensors.items():
            field, _, inner = name.partition("/")
            stored = _STORED_AS.get(inner.rpartition("/")[2])
            array = tensor.numpy()
            fields.setdefault(field, {})[inner] = array.view(stored) if stored else array
        self._refuse(source, fields.pop("nonfinite"))
        if self.offsets is not None:
            fields["hidden"]["position_offsets"] = self.offsets
        return fields

    def _refuse(self, source: str, nonfinite: Arrays) -> None:
        for what, counts in nonfinite.items():
            places = np.flatnonzero(counts)
            if len(places):
                raise TeacherError(
                    f"{source} row {self.rows[places[0]]}, counted from 0: {what} would be stored with values that are "
                    f"not finite, as in {len(places) - 1} more rows of its shard; if they overflow, give --encoding "
                    "bfloat16 and --dtype float32, else mend the teacher"
                )
