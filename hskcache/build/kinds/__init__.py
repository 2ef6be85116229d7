"""The kinds of knowledge that a teacher is run for: one file a kind, and the table of them.

The inputs are not among them: they are there before the teacher runs.
"""

from typing import Any

from hskcache.build.kinds.abc import BuiltKind
from hskcache.build.kinds.attention import BuiltAttention
from hskcache.build.kinds.embedding import BuiltEmbedding
from hskcache.build.kinds.hidden import BuiltHidden
from hskcache.build.kinds.logits import BuiltLogits
from hskcache.build.kinds.vocabulary import BuiltVocabulary
from hskcache.table import Table

__all__ = ["BUILT", "BuiltKind"]

BUILT: Table[BuiltKind[Any]] = Table(
    "a kind that is built",
    {
        "logits": BuiltLogits(),
        "hidden": BuiltHidden(),
        "attention": BuiltAttention(),
        "embedding": BuiltEmbedding(),
        "vocabulary": BuiltVocabulary(),
    },
)
"""Builders by the name of the kind, in the order of the fields of a cache."""
