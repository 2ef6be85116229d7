"""Embeddings as they are built: the last hidden states pooled, led on as the teacher does, and encoded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hskcache.build.kinds.abc import BuiltKind, Encoded, FieldBasis, Size, num_nonfinite
from hskcache.build.positions import PaddedRows
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.pooling import finished, pooled
from hskcache.resolved import embedding_field
from hskcache.spec import Spec
from hskcache.store.kinds.embedding import EmbeddingField, Embeddings
from hskcache.teacher.capture import Captured, Wanted
from hskcache.text import TokenizedRows

if TYPE_CHECKING:
    from hskcache.build.job import Job


class EmbeddingSelector:
    """Pooling of one teacher, and the encoding.

    Args:
        field: how it is stored.
        layer: the teacher's last.
        head: what leads a pooled vector on; None: nothing.
    """

    name = Embeddings.name

    def __init__(self, field: EmbeddingField, layer: int, head: nn.Module | None) -> None:
        self.field, self.layer, self.head = field, layer, head

    def with_dims(self, num_dims: int) -> "EmbeddingSelector":
        """The same with another number of first values."""
        field = self.field.model_copy(update={"num_dims": num_dims, "num_encoded": None})
        return EmbeddingSelector(field, self.layer, self.head)

    @property
    def wanted(self) -> Wanted:
        """The last layer."""
        return Wanted(hidden=frozenset({self.layer}))

    def select(self, captured: Captured, rows: PaddedRows) -> dict[None, Tensor]:
        """Embeddings [B, W] float32."""
        vectors_BD = pooled(captured.hidden[self.layer], rows.valid_BL, self.field.pooling)
        return {None: finished(vectors_BD, self.head, self.field.num_dims, self.field.is_normalized)}

    def encode(self, kept: Tensor, rows: PaddedRows) -> Encoded:
        """The parts of the encoding."""
        encoding = get_encoding(self.field.encoding)
        values = encoding.encode(kept)
        # What is read back counts: an encoding of less range than the vectors may overflow.
        return Encoded(values, num_nonfinite(encoding.decode(values, self.field.num_dims)))


class BuiltEmbedding(BuiltKind[EmbeddingField]):
    """Building of what the spec says of embeddings."""

    def field(self, asked: FieldBasis) -> EmbeddingField | None:
        """Field of the pooling and the values that the spec names."""
        return None if asked.spec.embedding is None else embedding_field(asked.spec.embedding, asked.teacher)

    def size(self, field: EmbeddingField, spec: Spec, rows: TokenizedRows) -> Size:
        """Size of a vector a row."""
        encoded = ENCODED[field.encoding]
        row_bytes_N = np.broadcast_to(np.int64(encoded.num_bytes(field.num_dims)), len(rows))
        return Size(row_bytes_N, num_arrays=1 + len(encoded.beside))

    def wanted(self, field: EmbeddingField, asked: FieldBasis) -> Wanted:
        """The last layer."""
        return Wanted(hidden=frozenset({asked.teacher.num_layers}))

    def selector(self, job: "Job", field: EmbeddingField, constants: Mapping[str, NDArray[Any]]) -> EmbeddingSelector:
        """Pooling of the job's teacher."""
        return EmbeddingSelector(field, job.teacher.info.num_layers, job.teacher.head)
