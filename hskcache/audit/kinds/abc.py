"""A kind of knowledge as it is audited: what the teacher gives now in the place of what is stored."""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.kinds.abc import Selector
from hskcache.build.positions import PaddedRows
from hskcache.decoded import Vectors
from hskcache.store.fields import StoredField
from hskcache.teacher.capture import Captured
from hskcache.teacher.load import Teacher

Arrays = Mapping[str, NDArray[Any]]

FieldModel = TypeVar("FieldModel", bound=StoredField)


class CapturedBatch(NamedTuple):
    """Rows that the teacher has run over.

    ``rows``: as the selection sees them; ``numbers_B``: of the rows in the cache; ``lengths_B``: tokens of each row.
    """

    captured: Captured
    rows: PaddedRows
    numbers_B: NDArray[np.int64]
    lengths_B: NDArray[np.int64]


class ColumnChoice(NamedTuple):
    """A choice among all values of vectors: what is stored, what would be, and the score it goes by, [V, D] each."""

    then_VD: Tensor
    now_VD: Tensor
    score_VD: Tensor


class TeacherVectors(NamedTuple):
    """Values of the teacher for vectors: everything that could have been stored of each.

    ``values_VE``: float32, at the places that entries name. ``scale_V``: the largest magnitude of what each vector is
    computed with. ``states_VD``: the hidden states behind the values, with all columns; None where there are none.
    ``bound_VE``: the largest error that the encoding alone allows each value, infinite where none is promised; None:
    that of encoding the stored ones alone. ``is_gathered``: whether there is a value for each entry already, in their
    order. ``choice``: of the entries, where that is known with the values.

    Of next tokens alone, ``same_first_V``: whether the likeliest token is that of what is stored; ``log_z_error_V``:
    absolute error of the stored log Z; ``kl_V``: Kullback-Leibler divergence, in nats, of what is stored from the
    teacher's, where the values are states and no scores.
    """

    values_VE: Tensor
    scale_V: Tensor
    states_VD: Tensor | None = None
    bound_VE: Tensor | None = None
    is_gathered: bool = False
    choice: ColumnChoice | None = None
    same_first_V: Tensor | None = None
    log_z_error_V: Tensor | None = None
    kl_V: Tensor | None = None


class Fresh(NamedTuple):
    """Output of a teacher for a batch, and the choices that it is compared with.

    ``selector``: what would be kept now; ``constants``: what the rows of the field share; ``arrays``: what is stored of
    the batch.
    """

    batch: CapturedBatch
    selector: Selector
    constants: Arrays
    arrays: Arrays


class AuditedKind(Generic[FieldModel]):
    """Comparison of one kind. An object of it stands in the table under the kind's name."""

    def table(self, field: FieldModel, fresh: Fresh, layer: int | None, vectors: Vectors) -> TeacherVectors:
        """Values that the teacher gives for the vectors of a layer, on the host."""
        raise NotImplementedError

    def stored_as(self, field: FieldModel) -> str:
        """Word for the way in which values are stored: an encoding, as a rule."""
        return str(getattr(field, "encoding", "float32"))

    def chooses(self, field: FieldModel) -> bool:
        """True if every vector has columns of its own, see :meth:`columns`."""
        return False

    def columns(self, field: FieldModel, vectors: Vectors, table: TeacherVectors) -> ColumnChoice:
        """The columns of each vector, then and now."""
        raise NotImplementedError

    def check_shape(self, field: FieldModel, teacher: Teacher, where: str) -> None:
        """Raise MismatchError unless a teacher gives what a field of the cache ``where`` stores."""


def scale_of_scores(scores: Tensor) -> Tensor:
    """The largest magnitude along the last axis, and at least 1: a softmax sees no smaller differences as large."""
    return scores.abs().amax(-1).clamp(min=1.0)
