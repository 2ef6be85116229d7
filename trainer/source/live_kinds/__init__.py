"""Targets that a teacher in the loop computes: one file a kind, and the table of them."""

from collections.abc import Callable

from hskcache.table import Table
from trainer.source.live_kinds.abc import LiveLayer, LiveTarget
from trainer.source.live_kinds.attention import live_attention
from trainer.source.live_kinds.embedding import live_embedding
from trainer.source.live_kinds.hidden import live_hidden
from trainer.source.live_kinds.logits import live_logits
from trainer.source.live_kinds.vocabulary import live_vocabulary

__all__ = ["LIVE", "LiveLayer", "LiveTarget"]

LIVE: Table[Callable[[LiveLayer], LiveTarget]] = Table(
    "a kind that a teacher in the loop gives",
    {
        "logits": live_logits,
        "hidden": live_hidden,
        "attention": live_attention,
        "embedding": live_embedding,
        "vocabulary": live_vocabulary,
    },
)
"""Live targets by the name of the kind."""
