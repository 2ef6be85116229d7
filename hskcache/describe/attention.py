"""Description of attention scores."""

from collections.abc import Mapping
from typing import ClassVar

from hskcache.counted import counted
from hskcache.describe.abc import POSITIONS, About, OfPositions
from hskcache.store.kinds.attention import AttentionField


class DescribedAttention(OfPositions[AttentionField]):
    """Scores between kept positions, flat."""

    holds = "attention scores"
    arrays: ClassVar[Mapping[str, About]] = POSITIONS | {
        "value_offsets": About("row", "entries [i, i + 1) of values are those of row i, in every layer"),
        "vector_offsets": About("row", "scales [i, i + 1) are those of row i, in every layer"),
        "values": About(
            "score",
            "scores before mask and softmax, encoded: head by head, query by query, a score for each kept key",
        ),
        "scales": About(
            "vector", "what the integers of each vector (the scores of one head and query) are multiplied by"
        ),
    }
    key = "attention"
    heading = "attention"
    noun = "attention"
    flag = "attention"
    pairs = "attention_layers"

    def told(self, field: AttentionField) -> str:
        """Layers, pairs of positions, heads and encoding."""
        heads = "mean of the heads" if field.heads == "mean" else counted(field.num_heads, "head")
        tokens = field.max_tokens
        positions = f"{tokens} x {tokens}" if tokens else "all"
        return f"layers {', '.join(map(str, field.layers))}; {positions} positions; {heads}; {field.encoding}"
