"""Logits as they are built: all that a classifier puts out, row by row."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.kinds.abc import BuiltKind, Encoded, FieldBasis, Size, num_nonfinite
from hskcache.build.positions import PaddedRows
from hskcache.classes import reordering
from hskcache.counted import counted
from hskcache.errors import MismatchError, SpecError
from hskcache.recall import task_of, told_rows
from hskcache.spec import Spec
from hskcache.store.kinds.logits import Logits, LogitsField
from hskcache.store.request import Request
from hskcache.teacher.capture import Captured, Wanted
from hskcache.text import TokenizedRows
from hskcache.text.layout import class_order

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.teacher.load import Teacher


class LogitsSelector:
    """Keeps the logits of every row as they are."""

    name = Logits.name
    wanted = Wanted()

    def __init__(self, field: LogitsField) -> None:
        self.field = field

    def select(self, captured: Captured, rows: PaddedRows) -> dict[None, Tensor]:
        """Logits [B, C] float32."""
        assert captured.logits is not None
        return {None: captured.logits}

    def encode(self, kept: Tensor, rows: PaddedRows) -> Encoded:
        """The logits."""
        return Encoded({"logits": kept}, num_nonfinite(kept))


class BuiltLogits(BuiltKind[LogitsField]):
    """Building of the logits of every teacher with a classifier."""

    def field(self, asked: FieldBasis) -> LogitsField | None:
        """Field of as many logits as the teacher has."""
        return None if asked.num_labels is None else LogitsField(num_labels=asked.num_labels)

    def size(self, field: LogitsField, spec: Spec, rows: TokenizedRows) -> Size:
        """4 bytes each."""
        return Size(np.broadcast_to(np.int64(4 * field.num_labels), len(rows)), num_arrays=1)

    def selector(self, job: "Job", field: LogitsField, constants: Mapping[str, NDArray[Any]]) -> LogitsSelector:
        """Everything."""
        return LogitsSelector(field)

    def check_addition(self, teacher: "Teacher", request: Request, where: str) -> None:
        """Raise for caches without a task."""
        if not request.data.has_task or teacher.num_labels is None:
            raise SpecError(f"{where} holds {told_rows(request.data)}, of which there are no logits; add hidden states")

    def check_classes(self, teacher: "Teacher", request: Request) -> None:
        """Raise unless there are as many, of the same names in the same order."""
        own, name = request.data.label_names, teacher.info.name
        count = len(own) or 1
        if teacher.num_labels != count:
            raise MismatchError(
                f"{name} has {counted(teacher.num_labels or 0, 'output')} and the cache has {count} (1 is a "
                "score); give a teacher of "
                "the same task"
            )
        names = class_order(name, teacher.model.config, task_of(request.data))
        if names is not None and list(names) != own:
            raise MismatchError(
                f"{name} has the classes {', '.join(names)} and the cache has {', '.join(own)}; give a teacher of the "
                f"same task, or {reordering(name, names, own)}"
            )
