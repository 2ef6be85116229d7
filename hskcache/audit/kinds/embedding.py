"""Embeddings as they are audited."""

import torch
from torch import Tensor

from hskcache.audit.kinds.abc import AuditedKind, Fresh, TeacherVectors
from hskcache.build.kinds.embedding import EmbeddingSelector
from hskcache.decoded import Vectors
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.errors import MismatchError
from hskcache.resolved import embedding_width
from hskcache.store.kinds.embedding import EmbeddingField
from hskcache.teacher.load import Teacher


class AuditedEmbedding(AuditedKind[EmbeddingField]):
    """Row by row."""

    def table(self, field: EmbeddingField, fresh: Fresh, layer: int | None, vectors: Vectors) -> TeacherVectors:
        """All stored values of the rows, anew."""
        batch, rows_V = fresh.batch, vectors.rows_V
        entries_BW = fresh.selector.select(batch.captured, batch.rows)[None].cpu()[rows_V]
        table = TeacherVectors(entries_BW, entries_BW.abs().amax(-1))
        if field.num_encoded is None:
            return table
        assert isinstance(fresh.selector, EmbeddingSelector)
        wide = fresh.selector.with_dims(field.num_encoded)
        whole_BV = wide.select(batch.captured, batch.rows)[None].cpu()[rows_V]
        return table._replace(bound_VE=_bound_of_prefix(whole_BV, entries_BW, field))

    def check_shape(self, field: EmbeddingField, teacher: Teacher, where: str) -> None:
        """Raise unless the embedding is as wide."""
        if field.width != (width := embedding_width(teacher.info)):
            raise MismatchError(
                f"an embedding of {teacher.info.name} has {width} values and those of {where} had {field.width}; give "
                "the teacher that it was built with"
            )


def _bound_of_prefix(whole_BV: Tensor, entries_BW: Tensor, field: EmbeddingField) -> Tensor:
    """Largest error of the first values of vectors that were encoded as a whole, [B, W].

    Of length 1, they were divided by the length of what was stored, which is off by the length of all errors at most;
    floats are rounded again after that.
    """
    encoding = get_encoding(field.encoding)
    bound_BW, own_BW = encoding.bound(whole_BV)[:, : field.num_dims], whole_BV[:, : field.num_dims]
    if not field.is_normalized:
        return bound_BW
    off_B, length_B = bound_BW.norm(dim=-1, keepdim=True), own_BW.norm(dim=-1, keepdim=True)
    divided_BW: Tensor = (bound_BW + own_BW.abs() * off_B / length_B) / (length_B - off_B)
    # Where all of a vector may have been lost, nothing is promised.
    divided_BW = divided_BW.masked_fill(off_B >= length_B, torch.inf)
    return divided_BW if ENCODED[field.encoding].beside else divided_BW + encoding.bound(entries_BW)
