"""A kind of knowledge as vectors of floats, whichever way it is stored."""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.store.fields import StoredField

Stored = Mapping[str, NDArray[Any]]

FieldModel = TypeVar("FieldModel", bound=StoredField)


class Vectors(NamedTuple):
    """Stored vectors of one layer over some rows.

    Of logits there is one a row, of hidden states one a kept position, of attention one a head and query.

    Attributes:
        rows_V: place of the row among those given, int64.
        heads_V: place of the head among those stored; 0 where there are none, int64.
        positions_V: position of the state or of the query in its row; 0 for logits, int64.
        values_VE: float32; 0 where nothing is stored.
        entries_VE: what each value is of, int64: a class, a hidden column, a component of ``pca``, or the position of
            a key; -1 where nothing is stored.
    """

    rows_V: Tensor
    heads_V: Tensor
    positions_V: Tensor
    values_VE: Tensor
    entries_VE: Tensor


class LayerRows(NamedTuple):
    """Rows of one layer of a field.

    Attributes:
        arrays: of the rows; of a field with layers, those of the layer by their names within it, and the offsets.
        constants: what all rows share, likewise.
    """

    arrays: Stored
    constants: Stored


class Dense(NamedTuple):
    """Values of some rows, one row after the other, with 0 for every column that is not kept.

    Attributes:
        values: float32, flat.
        shapes: of each row's part, int64 [n, r]; their products add up to the length of ``values``.
    """

    values: NDArray[np.float32]
    shapes: NDArray[np.int64]


class DecodedKind(Generic[FieldModel]):
    """Decoder of the fields of one kind. An object of it stands in the table under the kind's name."""

    def vectors(self, field: FieldModel, part: LayerRows) -> Vectors:
        """The vectors of one layer of some rows, on the host."""
        raise NotImplementedError

    def reconstructed(self, field: FieldModel, vectors: Vectors, part: LayerRows) -> Vectors:
        """Vectors in the teacher's own columns, where they are stored as something else."""
        return vectors

    def dense(self, field: FieldModel, part: LayerRows) -> Dense:
        """The values of each row in the teacher's own columns; by default those of one vector a row."""
        values_VE = self.reconstructed(field, self.vectors(field, part), part).values_VE
        return Dense(values_VE.numpy().reshape(-1), np.full((len(values_VE), 1), values_VE.shape[1]))

    def heads(self, field: FieldModel, vectors: Vectors) -> Tensor:
        """The teacher's head that each vector is of, int64 [V]; 0 where there are none."""
        return vectors.heads_V

    def are_scores(self, field: FieldModel, width: int) -> bool:
        """True if a softmax turns vectors of ``width`` entries into distributions."""
        return False

    def are_comparable(self, here: FieldModel, there: FieldModel) -> bool:
        """True if values of the same entry in two fields are of the same kind."""
        return True

    def num_values(self, field: FieldModel, arrays: Stored) -> NDArray[np.int64]:
        """Values of each row once every vector of a layer has an entry for everything it might store, at most.

        Args:
            field: how they are stored.
            arrays: of the rows, all layers.
        """
        raise NotImplementedError


def each(values_VE: Tensor) -> Tensor:
    """Entries 0, 1, 2 ... of every vector."""
    return torch.arange(values_VE.shape[-1]).expand(values_VE.shape)


def tensor_of(array: NDArray[Any]) -> Tensor:
    """An array as a tensor on the host."""
    return torch.from_numpy(np.ascontiguousarray(array))
