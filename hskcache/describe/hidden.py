"""Description of hidden states."""

from hskcache.counted import counted
from hskcache.describe.abc import OfPositions
from hskcache.store.kinds.hidden import HiddenField


class DescribedHidden(OfPositions[HiddenField]):
    """Vectors of columns at kept positions."""

    holds = "hidden states"
    key = "kept"
    heading = "layer"
    noun = "hidden states"
    flag = "keep"
    pairs = "layers"

    def told(self, field: HiddenField) -> str:
        """Layers, positions, columns and encoding."""
        return "; ".join(
            (
                f"layers {', '.join(map(str, field.layers))}",
                counted(field.max_tokens, "position") if field.max_tokens else "all positions",
                f"{field.num_columns} of {field.width} columns ({field.columns})",
                field.encoding,
            )
        )
