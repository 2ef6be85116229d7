"""Positions of a view that are chosen otherwise than in the cache, where that holds all of them."""

from typing import NamedTuple

from hskcache.selection.positions import num_positions
from hskcache.spec import SCORES, Length
from hskcache.store.files import canonical_json
from hskcache.views.abc import ViewedField, check_tokens, most_positions


class RankedAnew(NamedTuple):
    """Positions that are chosen otherwise than in the cache: how, and whether by another score."""

    length: Length
    ranks: bool

    @property
    def told(self) -> str:
        """Words that tell them from those of another view."""
        return canonical_json(self.length.model_dump(mode="json")).decode()


def ranking(source: ViewedField, length: Length, was: Length) -> RankedAnew | None:
    """Positions of a view, where they are chosen otherwise than in the cache; None: the first of those stored.

    Args:
        source: the field.
        length: of the view.
        was: of the cache.

    Raises:
        MismatchError: they are not stored, or what is stored does not tell which these are.
    """
    if (length.score, length.specials) == (was.score, was.specials):
        check_tokens(source, length, was)
        return None
    check_ranking(source, length, was)
    return RankedAnew(length, length.score != was.score)


def check_ranking(source: ViewedField, length: Length, was: Length) -> None:
    """Raise unless positions that are chosen otherwise are stored, and what is stored tells which these are.

    Args:
        source: the field.
        length: of the view.
        was: of the cache.

    Raises:
        MismatchError: they are not; tells why.
    """
    longest = source.request.spec.max_length
    admits_all = was.specials and not SCORES[was.score].first_alone and (length.targets or not was.targets)
    if not admits_all or not _has_all(source, was):
        source.refuse(
            f"positions are to be chosen by {length.score}{'' if length.specials else ' without special tokens'}, and "
            f"not every position is stored; a cache built with {longest}t holds all"
        )
    if length.score == was.score and was.is_whole and not length.is_whole and length.score != "left":
        source.refuse(
            "every position is stored, in the order of the row, so nothing tells which are best; a cache built with "
            f"{longest}t holds as many, best first"
        )


def _has_all(source: ViewedField, was: Length) -> bool:
    """True if every position of the longest row that may be kept is."""
    most = most_positions(source, was)
    return int(num_positions(was, most)[0]) == int(most[0])
