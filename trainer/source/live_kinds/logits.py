"""Logits of a teacher in the loop."""

from trainer.source.live_kinds.abc import Kept, LiveTarget


def live_logits(kept: Kept) -> LiveTarget:
    """Logits [B, C] float32."""
    return LiveTarget(kept.entries.clone(), kept.entries)
