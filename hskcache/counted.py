"""Counts with their nouns, for people."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count and what is counted: ``1 row``, ``2 rows``, ``1,024 classes``.

    Args:
        count: how many.
        noun: of one.
        plural: of several; empty: the noun and an s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
