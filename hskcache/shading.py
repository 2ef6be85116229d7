"""Strength of a kept position's colour, on a page and in a terminal alike: the better its rank, the stronger."""

from collections.abc import Sequence

_FAINT, _STRONG = (0x9F, 0xB3, 0xB1), (0x0B, 0x8F, 0x84)
"""Colours of much the same lightness, told apart by how grey they are on any background."""


def strength(position: int, kept: Sequence[int]) -> float:
    """Strength of a position among the kept ones, best first: 1 of the best, above 0 of the last, 0 of others."""
    return 1 - kept.index(position) / len(kept) if position in kept else 0.0


def terminal_style(shade: float) -> str:
    """Style of rich for text of a strength above 0: both colours, as that of the terminal is not known."""
    mixed = (round(faint + (strong - faint) * shade) for faint, strong in zip(_FAINT, _STRONG, strict=True))
    return f"{'white' if shade > 0.5 else 'black'} on rgb({','.join(map(str, mixed))})"
