"""Description of hidden states."""

from hskcache.describe.abc import OfPositions, told_positions
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
                told_positions(field) or "all positions",
                f"{field.num_columns} of {field.width} columns ({field.columns})",
                field.encoding,
            )
        )
