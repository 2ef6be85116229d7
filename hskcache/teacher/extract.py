"""Run the teacher over the rows of a shard and gather what is kept into the shard's arrays."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.errors import TeacherError
from hskcache.spec import Spec
from hskcache.teacher.capture import capture
from hskcache.teacher.knowledge import Kept, Rows, Selector
from hskcache.teacher.layout import Integers, Layout
from hskcache.teacher.load import Teacher
from hskcache.text import TokenizedRows

Arrays = dict[str, NDArray[np.generic]]

# Types Zarr or torch lack travel as signed integers of the same size and are named again on the host.
_STORED_AS = {"positions": np.uint16, "columns": np.uint16}


@dataclass(frozen=True)
class Extractor:
    """A teacher over tokenized rows, with what is to be kept of each.

    ``selector`` is None where logits alone are kept.
    """

    teacher: Teacher
    rows: TokenizedRows
    layout: Layout
    spec: Spec
    selector: Selector | None

    def batch(self, index_B: Integers) -> tuple[dict[str, Tensor], Rows]:
        """The teacher's inputs for some rows, padded to the longest of them, on its device."""
        lengths = self.layout.lengths_N[index_B]
        valid = np.arange(lengths.max()) < lengths[:, None]
        flat = np.concatenate([np.arange(*self.rows.offsets[row : row + 2]) for row in index_B])
        ids = np.full(valid.shape, self.teacher.tokenizer.pad_token_id or 0, np.int64)
        ids[valid] = self.rows.input_ids[flat]
        inputs = {"input_ids": ids, "attention_mask": valid.astype(np.int64)}
        if self.rows.token_type_ids is not None:
            types = np.zeros(valid.shape, np.int64)
            types[valid] = self.rows.token_type_ids[flat]
            inputs["token_type_ids"] = types
        device = self.teacher.device
        tensors = {name: self._move(torch.from_numpy(array), device) for name, array in inputs.items()}
        mask = self._move(torch.from_numpy(valid), device)
        row_ids = self._move(torch.from_numpy(np.ascontiguousarray(index_B)), device)
        return tensors, Rows(tensors["input_ids"], mask, row_ids, self.layout.kept_N[index_B])

    def knowledge(self, inputs: dict[str, Tensor], rows: Rows) -> tuple[Tensor, dict[int, Kept]]:
        """Logits [B, C] and the kept entries of every stored layer for one batch."""
        selector = self.selector
        if selector is None:
            logits = capture(self.teacher.model, inputs).logits
            assert logits is not None
            return logits, {}
        captured = capture(
            self.teacher.model, inputs, selector.field.layers, selector.hidden.length.score, selector.score_layers
        )
        assert captured.logits is not None
        with torch.inference_mode():
            return captured.logits, selector.select(captured, rows)

    @staticmethod
    def _move(tensor: Tensor, device: torch.device) -> Tensor:
        if device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(device, non_blocking=True)


class Buffers:
    """The arrays of some rows, such as a shard's, filled batch by batch on the device and copied to the host once.

    Args:
        extractor: runs the teacher.
        rows: the rows, ascending.
    """

    def __init__(self, extractor: Extractor, rows: Integers) -> None:
        self.extractor = extractor
        self.rows = rows
        device = extractor.teacher.device
        count = len(rows)
        self.logits = torch.empty((count, extractor.teacher.num_labels), device=device)
        self.offsets = np.concatenate([[0], np.cumsum(extractor.layout.kept_N[rows])]).astype(np.int64)
        self.hidden: dict[str, Tensor] = {}
        self.nonfinite = torch.zeros(count, dtype=torch.bool, device=device)

    def add(self, index_B: Integers) -> None:
        """Run the teacher on some of the rows and put what is kept in its place."""
        inputs, rows = self.extractor.batch(index_B)
        logits, kept = self.extractor.knowledge(inputs, rows)
        local = np.searchsorted(self.rows, index_B)
        device = logits.device
        row_index = torch.from_numpy(local).to(device, non_blocking=True)
        bad = ~torch.isfinite(logits).all(-1)
        self.logits.index_copy_(0, row_index, logits)
        selector = self.extractor.selector
        if selector is not None:
            counts = rows.kept_B
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            target = torch.from_numpy(np.repeat(self.offsets[local], counts) + within).to(device, non_blocking=True)
            owner = torch.from_numpy(np.repeat(np.arange(len(local)), counts)).to(device, non_blocking=True)
            arrays = selector.encode(kept)
            for name, tensor in arrays.items():
                self._buffer(name, tensor).index_copy_(0, target, tensor)
            for layer, entries in kept.items():
                values = arrays[f"layer_{layer:02d}/values"]
                stored = values if values.dtype == torch.float16 else entries.values_PW
                bad.index_add_(0, owner, ~torch.isfinite(stored).all(-1))
        self.nonfinite.index_copy_(0, row_index, bad)

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        if name not in self.hidden:
            shape = (int(self.offsets[-1]), *like.shape[1:])
            self.hidden[name] = torch.empty(shape, dtype=like.dtype, device=like.device)
        return self.hidden[name]

    def to_host(self) -> "HostArrays":
        """Start the copy to pinned host memory; the device goes on computing."""
        tensors = {"logits/logits": self.logits, "nonfinite": self.nonfinite}
        tensors |= {f"hidden/{name}": tensor for name, tensor in self.hidden.items()}
        return HostArrays(tensors, self.offsets if self.extractor.selector is not None else None)


class HostArrays:
    """A shard's arrays on their way to the host; :meth:`wait` hands them over."""

    def __init__(self, tensors: dict[str, Tensor], position_offsets: Integers | None) -> None:
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

    def wait(self, where: str) -> dict[str, Arrays]:
        """The arrays by field, as stored.

        Raises:
            TeacherError: a kept value of some row is not finite.
        """
        if self.event is not None:
            self.event.synchronize()
        arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}
        bad = np.flatnonzero(arrays.pop("nonfinite"))
        if len(bad):
            raise TeacherError(
                f"{len(bad)} rows of {where} give values that are not finite (the first is row {bad[0]} of it); use "
                "--encoding float32 or bfloat16 if float16 overflows, else look at the teacher"
            )
        fields: dict[str, Arrays] = {}
        for name, array in arrays.items():
            field, _, inner = name.partition("/")
            stored = _STORED_AS.get(inner.rpartition("/")[2])
            fields.setdefault(field, {})[inner] = array.view(stored) if stored else array
        if self.offsets is not None:
            fields["hidden"]["position_offsets"] = self.offsets
        return fields
