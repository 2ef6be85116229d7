"""Logits as they are audited."""

from hskcache.audit.kinds.abc import AuditedKind, Fresh, TeacherVectors, scale_of_scores
from hskcache.build.kinds.logits import at_words
from hskcache.decoded import Vectors
from hskcache.errors import MismatchError
from hskcache.store.kinds.logits import LogitsField
from hskcache.teacher.load import Teacher


class AuditedLogits(AuditedKind[LogitsField]):
    """Row by row, or word by word."""

    def table(self, field: LogitsField, fresh: Fresh, layer: int | None, vectors: Vectors) -> TeacherVectors:
        """All classes of the rows, or of their words."""
        captured, first_pieces_P = fresh.batch.captured, fresh.batch.rows.first_pieces_P
        assert captured.logits is not None
        logits_VC = at_words(captured.logits, first_pieces_P).cpu()
        if first_pieces_P is None:
            logits_VC = logits_VC[vectors.rows_V]
        return TeacherVectors(logits_VC, scale_of_scores(logits_VC))

    def check_shape(self, field: LogitsField, teacher: Teacher, where: str) -> None:
        """Raise unless there are as many outputs."""
        if field.num_labels != teacher.num_labels:
            raise MismatchError(
                f"{teacher.info.name} has {teacher.num_labels or 'no'} outputs and {where} holds {field.num_labels} "
                "logits a row; give the teacher that it was built with"
            )
