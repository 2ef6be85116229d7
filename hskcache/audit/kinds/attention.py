"""Attention scores as they are audited."""

from torch import Tensor

from hskcache.audit.kinds.abc import AuditedKind, Fresh, TeacherVectors, scale_of_scores
from hskcache.build.kinds.attention import AttentionSelector
from hskcache.build.positions import PaddedRows, Positions
from hskcache.decoded import Vectors
from hskcache.spec import Length
from hskcache.store.kinds.attention import AttentionField


class AuditedAttention(AuditedKind[AttentionField]):
    """Head by head and query by query."""

    def table(self, field: AttentionField, fresh: Fresh, layer: int | None, vectors: Vectors) -> TeacherVectors:
        """Scores for the keys of all positions."""
        assert layer is not None
        scores_BHLL = _scores(field, fresh, layer)
        scale_BH = scale_of_scores(scores_BHLL.flatten(2))
        rows, heads = vectors.rows_V, vectors.heads_V
        return TeacherVectors(scores_BHLL[rows, heads, vectors.positions_V], scale_BH[rows, heads])


def _scores(field: AttentionField, fresh: Fresh, layer: int) -> Tensor:
    """Attention scores [B, H, L, L] of the stored heads between all positions."""
    # Of all positions none is special.
    whole = AttentionSelector(
        field.model_copy(update={"layers": [layer]}), Positions(Length(score="all"), [layer], layer, frozenset())
    )
    rows = fresh.batch.rows
    rows = PaddedRows(rows.input_ids_BL, rows.valid_BL, rows.row_ids_B, {whole.name: fresh.batch.lengths_B})
    scores: Tensor = whole.select(fresh.batch.captured, rows)[layer].scores_BHKK.cpu()
    return scores
