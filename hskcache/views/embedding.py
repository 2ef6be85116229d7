"""Views of embeddings: the first of their values.

Where the teacher's vectors have length 1, so have the shorter ones: they are divided by their own length, which a build
does before it encodes and a view after. Encoded integers stay, and their scale is divided; of floats the quotient is
rounded once more.
"""

from dataclasses import dataclass
from typing import Any

from hskcache.counted import counted
from hskcache.encoded import ENCODED
from hskcache.resolved import embedding_field
from hskcache.spec import Embedding, Spec
from hskcache.store.fields import EmbeddingField
from hskcache.store.request import LayerKept, TeacherInfo
from hskcache.views.abc import Arrays, Narrowed, ShardContext, ViewedField
from hskcache.views.view import View


class EmbeddingNarrowing:
    """The one dimension of embeddings."""

    def spec(self, view: View, kept: Embedding) -> Embedding:
        """The spec with as many values as the view has."""
        return kept if view.dims is None else kept.model_copy(update={"dims": view.dims})

    def pairs(self, spec: Spec, teacher: TeacherInfo) -> dict[str, list[LayerKept]]:
        """No pairs: a row has one vector, of no layer."""
        return {}

    def field(self, source: ViewedField, kept: Any) -> Narrowed:
        """The field of the narrower spec.

        Raises:
            MismatchError: it has values that are not stored.
        """
        stored, field = source.field, embedding_field(kept, source.request.teacher)
        assert isinstance(stored, EmbeddingField)
        if field.num_dims > stored.num_dims:
            source.refuse(
                f"{counted(field.num_dims, 'value')} are asked for, and {stored.num_dims} are stored; ask for at most "
                f"{stored.num_dims}"
            )
        if field.num_dims == stored.num_dims:
            return Narrowed(stored, stored)
        together = stored.num_encoded
        # float32 divides as a build does, but for the last digit.
        is_rounded = field.is_normalized and field.encoding != "float32"
        if together is None and (is_rounded or ENCODED[field.encoding].beside):
            together = stored.num_dims
        return NarrowedEmbedding(stored, field.model_copy(update={"num_encoded": together}))


@dataclass(frozen=True)
class NarrowedEmbedding(Narrowed):
    """Embeddings of a view, of fewer values."""

    source: EmbeddingField
    field: EmbeddingField

    def shard(self, arrays: Arrays, beside: ShardContext) -> Arrays:
        """The first values of each row, of length 1 where those of the cache are."""
        from hskcache.views.prefix import prefix

        return prefix(self.source, self.field, arrays)
