"""Description of hidden states."""

from collections.abc import Mapping
from typing import ClassVar

from hskcache.counted import counted
from hskcache.describe.abc import POSITIONS, About, OfPositions
from hskcache.store.kinds.hidden import HiddenField


class DescribedHidden(OfPositions[HiddenField]):
    """Vectors of columns at kept positions."""

    holds = "hidden states"
    arrays: ClassVar[Mapping[str, About]] = POSITIONS | {
        "values": About("kept position, column", "hidden states, encoded"),
        "scales": About("kept position", "what the integers of values are multiplied by"),
        "columns": About("kept position, column", "which columns of the state values holds"),
        "bitmask": About(
            "kept position, 8 columns",
            "which columns values holds: column c is bit c % 8, low first, of byte c // 8",
        ),
    }
    constants: ClassVar[Mapping[str, About]] = {
        "columns": About("column", "which columns of the state values holds, in all positions"),
        "mean": About("column of the state", "mean of the states, which was taken off before the projection"),
        "basis": About("component, column of the state", "values @ basis + mean is the state"),
    }
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
