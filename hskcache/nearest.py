"""Names that were mistyped: which of those that exist was meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def meant(given: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name, ``; do you mean 'epochs'?``; empty where no name is near."""
    folded = {_folded(name): name for name in known}
    near = get_close_matches(_folded(given), folded, n=1)
    return f"; do you mean {folded[near[0]]!r}?" if near else ""


def _folded(name: str) -> str:
    return name.casefold().replace("_", "-")
