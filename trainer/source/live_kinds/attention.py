"""Attention scores of a teacher in the loop."""

from trainer.batch import AttentionTarget
from trainer.source.live_kinds.abc import LiveLayer, LiveTarget


def live_attention(kept: LiveLayer) -> LiveTarget:
    """Scores as they are, before any encoding."""
    entries = kept.entries
    target = AttentionTarget(entries.positions_BK.clone(), entries.valid_BK.clone(), entries.scores_BHKK.clone())
    return LiveTarget(target, entries.scores_BHKK)
