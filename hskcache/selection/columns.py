"""Number of columns that a share is, and those that are evenly spread; what needs values is in ``width``."""


def num_columns(width: int, fraction: float) -> int:
    """W of D columns: ``fraction * width`` rounded, halves to even, and at least 1."""
    return max(1, round(fraction * width))


def uniform_columns(width: int, fraction: float) -> list[int]:
    """Columns round(i / p) for i < int(D * p), evenly spread [MUD 3.3]; column 0 where that is none.

    ``width``: D; ``fraction``: p in (0, 1]. Returns W' columns, ascending and distinct; W' is ``int(D * p)``, which can
    be one below :func:`num_columns`.
    """
    return [round(index / fraction) for index in range(max(1, int(width * fraction)))]
