"""Names that were mistyped: which of those that exist was meant."""

from collections.abc import Iterable

_NEAR, _BEGINNING = 0.75, 2


def meant(given: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name, ``; do you mean 'epochs'?``; empty where no name is near."""
    # Of no use to a command that is spelled right.
    from difflib import get_close_matches

    folded = {_folded(name): name for name in known}
    word = _folded(given)
    # Long words have many letters in common; those of a mistake mostly begin alike.
    alike = [name for name in folded if name[:_BEGINNING] == word[:_BEGINNING]]
    near = get_close_matches(word, folded, n=1, cutoff=_NEAR) or get_close_matches(word, alike, n=1)
    return f"; do you mean {folded[near[0]]!r}?" if near else ""


def _folded(name: str) -> str:
    return name.casefold().replace("_", "-")
