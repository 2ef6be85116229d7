"""The kinds of knowledge that can be loaded: one file a kind, and the table of them."""

from typing import Any

from hskcache.table import Table
from trainer.loading.kinds.abc import LoadedKind
from trainer.loading.kinds.attention import LoadedAttention
from trainer.loading.kinds.embedding import LoadedEmbedding
from trainer.loading.kinds.hidden import LoadedHidden
from trainer.loading.kinds.logits import LoadedLogits
from trainer.loading.kinds.vocabulary import LoadedVocabulary

__all__ = ["LOADED", "LoadedKind"]

LOADED: Table[LoadedKind[Any]] = Table(
    "a kind that is loaded",
    {
        "logits": LoadedLogits(),
        "hidden": LoadedHidden(),
        "attention": LoadedAttention(),
        "embedding": LoadedEmbedding(),
        "vocabulary": LoadedVocabulary(),
    },
)
"""Loaders by the name of the kind."""
