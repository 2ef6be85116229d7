"""Tables for people, on stdout."""

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]], num_words: int) -> str:
    """Columns beside each other, the first ``num_words`` of them to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        [
            cell.ljust(width) if place < num_words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
