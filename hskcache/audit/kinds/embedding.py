"""Embeddings as they are audited."""

from hskcache.audit.kinds.abc import AuditedKind, Fresh, TeacherVectors
from hskcache.decoded import Vectors
from hskcache.errors import MismatchError
from hskcache.resolved import embedding_width
from hskcache.store.kinds.embedding import EmbeddingField
from hskcache.teacher.load import Teacher


class AuditedEmbedding(AuditedKind[EmbeddingField]):
    """Row by row."""

    def table(self, field: EmbeddingField, fresh: Fresh, layer: int | None, vectors: Vectors) -> TeacherVectors:
        """All stored values of the rows, anew."""
        entries_BW = fresh.selector.select(fresh.batch.captured, fresh.batch.rows)[None].cpu()[vectors.rows_V]
        return TeacherVectors(entries_BW, entries_BW.abs().amax(-1))

    def check_shape(self, field: EmbeddingField, teacher: Teacher, where: str) -> None:
        """Raise unless the embedding is as wide."""
        if field.width != (width := embedding_width(teacher.info)):
            raise MismatchError(
                f"an embedding of {teacher.info.name} has {width} values and those of {where} had {field.width}; give "
                "the teacher that it was built with"
            )
