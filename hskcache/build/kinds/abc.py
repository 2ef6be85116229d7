"""A kind of knowledge as it is built: its sizes, what it wants of a forward pass, and how it selects and encodes."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.positions import PaddedRows
from hskcache.ragged import Integers
from hskcache.selection.positions import num_positions
from hskcache.spec import SCORES, Length, Spec
from hskcache.store.fields import StoredField
from hskcache.store.request import Request, TeacherInfo
from hskcache.store.targets import places_of_targets
from hskcache.teacher.capture import Captured, Wanted
from hskcache.text import TokenizedRows

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.teacher.load import Teacher

Arrays = dict[str, NDArray[np.generic]]

FieldModel = TypeVar("FieldModel", bound=StoredField)

ARRAY_BYTES = 2048
"""More than the documents, headers and checksums of one array take in a shard."""

_BLOCK_ROWS = 1 << 14


class Encoded(NamedTuple):
    """One layer of a batch, or all of a kind without layers, as it is stored.

    Attributes:
        arrays: by their names within the layer; the first axis holds the entries of row after row.
        nonfinite_B: values of each row that are not finite when they are read back, int32.
    """

    arrays: dict[str, Tensor]
    nonfinite_B: Tensor


class Selector(Protocol):
    """Selection of one field's knowledge, applied to captured batches on the device."""

    @property
    def name(self) -> str:
        """The kind, by which a job calls the field."""
        ...

    @property
    def field(self) -> StoredField:
        """Field that it is stored in."""
        ...

    @property
    def wanted(self) -> Wanted:
        """Parts of a forward pass that must be captured for it."""
        ...

    def select(self, captured: Captured, rows: PaddedRows) -> Mapping[Any, Any]:
        """Kept entries by stored layer; under None of a kind without layers."""
        ...

    def encode(self, kept: Any, rows: PaddedRows) -> Encoded:
        """One layer's kept entries as they are stored."""
        ...


Run = Callable[[Selector, Integers], Iterable[Mapping[Any, Any]]]
"""Runs the teacher over some rows, ascending: what a selector keeps of each batch."""


class Size(NamedTuple):
    """Size of a field, before the teacher runs and before compression.

    Attributes:
        row_bytes_N: bytes of each row.
        num_arrays: arrays of a shard, at most.
        kept_N: positions kept of each row, the same for every layer; None where nothing is by position.
        constant_bytes: of what all rows share.
    """

    row_bytes_N: Integers
    num_arrays: int
    kept_N: Integers | None = None
    constant_bytes: int = 0


class FieldBasis(NamedTuple):
    """Basis that a field is made on.

    Attributes:
        spec: what to keep, resolved.
        teacher: its sizes.
        num_labels: width C of the logits; None where there are none.
        answers_words: whether they are of each word.
    """

    spec: Spec
    teacher: TeacherInfo
    num_labels: int | None
    answers_words: bool = False


class BuiltKind(Generic[FieldModel]):
    """Building of one kind. An object of it stands in the table under the kind's name."""

    def field(self, asked: FieldBasis) -> FieldModel | None:
        """Field that the kind will be stored in; None where it is not kept.

        Raises:
            SpecError: layers or heads are asked for that do not exist.
        """
        raise NotImplementedError

    def size(self, field: FieldModel, spec: Spec, rows: TokenizedRows) -> Size:
        """Size of the field."""
        raise NotImplementedError

    def constants(self, job: "Job", field: FieldModel, run: Run, sample_rows: int) -> Arrays:
        """Arrays that all rows share, by the names of the format.

        Args:
            job: what is to be kept.
            field: how it is stored.
            run: the teacher, over rows of the job.
            sample_rows: rows, spread evenly over the data, that what is fitted is fitted to.
        """
        return {}

    def wanted(self, field: FieldModel, asked: FieldBasis) -> Wanted:
        """Parts of a forward pass that must be captured for the field; nothing beside the logits."""
        return Wanted()

    def selector(self, job: "Job", field: FieldModel, constants: Mapping[str, NDArray[Any]]) -> Selector:
        """Selector of what is kept of a captured batch."""
        raise NotImplementedError

    def check_addition(self, teacher: "Teacher", request: Request, where: str) -> None:
        """Raise unless a field of the kind can be added to a cache, by its request; ``where`` is what to call it.

        Raises:
            SpecError: it cannot.
        """

    def check_classes(self, teacher: "Teacher", request: Request) -> None:
        """Raise unless a teacher answers as the rows of a cache ask.

        Raises:
            MismatchError: it does not.
        """


def num_nonfinite(values: Tensor) -> Tensor:
    """Values along the last axis that are NaN or infinite, int32 [...]."""
    # On a CPU sums take a tenth of the time, and tell when there is nothing to count; a GPU would be waited for.
    if values.device.type == "cpu" and bool(values.sum(-1).isfinite().all()):
        return torch.zeros(values.shape[:-1], dtype=torch.int32)
    return (~values.isfinite()).sum(-1, dtype=torch.int32)


def kept_counts(length: Length, rows: TokenizedRows) -> Integers:
    """Positions kept of each row, int64 [N]: of those that may be kept, at most as many as asked for."""
    return num_positions(length, eligible_counts(length, rows))


def eligible_counts(length: Length, rows: TokenizedRows) -> Integers:
    """Positions of each row that may be kept: all, all but the special tokens after the first, or the first alone.

    Of a language model's rows those whose next token is to be predicted, where the length says so.
    """
    if SCORES[length.score].first_alone:
        return np.ones(len(rows), np.int64)
    counts = rows.num_targets if length.targets else rows.lengths.astype(np.int64)
    if length.specials:
        return counts
    special = np.array(sorted(rows.special_ids), dtype=rows.input_ids.dtype)
    # Some rows at a time: those of a corpus do not fit into memory.
    for first in range(0, len(rows), _BLOCK_ROWS):
        offsets = rows.offsets[first : first + _BLOCK_ROWS + 1]
        is_special = np.isin(rows.input_ids[offsets[0] : offsets[-1]], special)
        is_special[offsets[:-1] - offsets[0]] = False
        if length.targets:
            targets = None if rows.targets is None else rows.targets[offsets[0] : offsets[-1]]
            says = np.zeros_like(is_special)
            says[places_of_targets(targets, offsets - offsets[0]) - 1] = True
            is_special &= says
        before = np.concatenate([[0], np.cumsum(is_special)])
        counts[first : first + _BLOCK_ROWS] -= np.diff(before[offsets - offsets[0]])
    return counts
