"""Logits as they are built: all that a classifier puts out, row by row, or of a tagger those of each word."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.kinds.abc import BuiltKind, Encoded, FieldBasis, Size, num_nonfinite
from hskcache.build.positions import PaddedRows, owners
from hskcache.classes import is_other, is_tagger, problem_of, reordering
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
    """Keeps the logits of every row, or of the first piece of every word, as they are."""

    name = Logits.name
    wanted = Wanted()

    def __init__(self, field: LogitsField) -> None:
        self.field = field

    def select(self, captured: Captured, rows: PaddedRows) -> dict[None, Tensor]:
        """Logits [B, C] float32, or of words [P, C]."""
        assert captured.logits is not None
        return {None: at_words(captured.logits, rows.first_pieces_P)}

    def encode(self, kept: Tensor, rows: PaddedRows) -> Encoded:
        """The logits."""
        bad = num_nonfinite(kept)
        if self.field.of_words:
            kept_B = rows.kept_B[self.name]
            nonfinite = torch.zeros(len(kept_B), dtype=torch.int32, device=bad.device)
            bad = nonfinite.index_add_(0, owners(kept_B, bad.device), bad)
        return Encoded({self.field.array: kept}, bad)


def at_words(logits: Tensor, first_pieces_P: Tensor | None) -> Tensor:
    """Logits [P, C] of the first pieces of words, out of those of all tokens [B, L, C]; else those of rows [B, C]."""
    return logits if first_pieces_P is None else logits.flatten(0, 1).index_select(0, first_pieces_P)


class BuiltLogits(BuiltKind[LogitsField]):
    """Building of the logits of every teacher with a classifier."""

    def field(self, asked: FieldBasis) -> LogitsField | None:
        """Field of as many logits as the teacher has."""
        if asked.num_labels is None:
            return None
        return LogitsField(num_labels=asked.num_labels, of_words=asked.answers_words)

    def size(self, field: LogitsField, spec: Spec, rows: TokenizedRows) -> Size:
        """4 bytes each."""
        if rows.words is not None:
            return Size(rows.words.counts * 4 * field.num_labels + 8, num_arrays=2, kept_N=rows.words.counts)
        return Size(np.broadcast_to(np.int64(4 * field.num_labels), len(rows)), num_arrays=1)

    def selector(self, job: "Job", field: LogitsField, constants: Mapping[str, NDArray[Any]]) -> LogitsSelector:
        """Everything."""
        return LogitsSelector(field)

    def check_addition(self, teacher: "Teacher", request: Request, where: str) -> None:
        """Raise for caches without a task."""
        if not request.data.has_task or teacher.num_labels is None:
            raise SpecError(f"{where} holds {told_rows(request.data)}, of which there are no logits; add hidden states")
        if is_tagger(teacher.model.config) != (request.data.problem == "tagging"):
            unit = "word" if request.data.problem == "tagging" else "row"
            raise SpecError(
                f"{where} holds {told_rows(request.data)}, which want an answer for each {unit}, and "
                f"{teacher.info.name} gives none; give a teacher of the same task"
            )

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
        if is_other(problem_of(teacher.model.config), request.data.problem):
            raise MismatchError(
                f"{name} has the problem_type {teacher.model.config.problem_type}, and the cache holds rows of a "
                f"{request.data.problem} task; give a teacher of the same task"
            )
        names = class_order(name, teacher.model.config, task_of(request.data))
        if names is not None and list(names) != own:
            raise MismatchError(
                f"{name} has the classes {', '.join(names)} and the cache has {', '.join(own)}; give a teacher of the "
                f"same task, or {reordering(name, names, own)}"
            )
