"""Embeddings of a teacher in the loop."""

from trainer.source.live_kinds.abc import LiveLayer, LiveTarget


def live_embedding(kept: LiveLayer) -> LiveTarget:
    """Vectors [B, W] float32, before any encoding."""
    return LiveTarget(kept.entries.clone(), kept.entries)
