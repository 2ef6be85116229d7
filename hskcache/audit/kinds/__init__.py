"""The kinds of knowledge that can be audited: one file a kind, and the table of them."""

from typing import Any

from hskcache.audit.kinds.abc import AuditedKind
from hskcache.audit.kinds.attention import AuditedAttention
from hskcache.audit.kinds.embedding import AuditedEmbedding
from hskcache.audit.kinds.hidden import AuditedHidden
from hskcache.audit.kinds.logits import AuditedLogits
from hskcache.audit.kinds.vocabulary import AuditedVocabulary
from hskcache.table import Table

__all__ = ["AUDITED", "AuditedKind"]

AUDITED: Table[AuditedKind[Any]] = Table(
    "a kind that is audited",
    {
        "logits": AuditedLogits(),
        "hidden": AuditedHidden(),
        "attention": AuditedAttention(),
        "embedding": AuditedEmbedding(),
        "vocabulary": AuditedVocabulary(),
    },
)
"""Comparisons by the name of the kind."""
