"""Logits of a teacher in the loop."""

from trainer.source.live_kinds.abc import LiveLayer, LiveTarget


def live_logits(kept: LiveLayer) -> LiveTarget:
    """Logits [B, C] float32."""
    return LiveTarget(kept.entries.clone(), kept.entries)
