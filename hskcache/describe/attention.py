"""Description of attention scores."""

from hskcache.counted import counted
from hskcache.describe.abc import OfPositions, told_positions
from hskcache.store.kinds.attention import AttentionField


class DescribedAttention(OfPositions[AttentionField]):
    """Scores between kept positions, flat."""

    holds = "attention scores"
    key = "attention"
    heading = "attention"
    noun = "attention"
    flag = "attention"
    pairs = "attention_layers"
    entries = "keys"

    def told(self, field: AttentionField) -> str:
        """Layers, pairs of positions, heads and encoding."""
        heads = "mean of the heads" if field.heads == "mean" else counted(field.num_heads, "head")
        tokens = field.max_tokens
        positions = f"{tokens} x {tokens} positions" if tokens else told_positions(field) or "all positions"
        return f"layers {', '.join(map(str, field.layers))}; {positions}; {heads}; {field.encoding}"
