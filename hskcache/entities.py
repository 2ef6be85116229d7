"""Entities that tags spell, and how well those of two sides agree: the F1 of CoNLL's shared tasks.

The scheme is not asked for: IOB1, IOB2, IOE, IOBES and BILOU without their U and L are read alike, by when a run of
tags begins and ends, as ``conlleval`` does ["Introduction to the CoNLL-2003 Shared Task", Tjong Kim Sang and De
Meulder, 2003, section 3] and as the library seqeval does where it is given no scheme. A tag is a letter and, behind the
first hyphen, the type of the entity.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.classes import NO_CLASS

_OUTSIDE = ("O", "_")


class Spelled(NamedTuple):
    """Tags of words, one row after the other, with O between rows: letters <U1 and numbers of types int64, [n] each."""

    letters: NDArray[np.str_]
    types: NDArray[np.int64]


class EntityCounts(NamedTuple):
    """Entities that both sides have, with their bounds and type, and those that each has."""

    agreed: int
    answered: int
    gold: int

    @property
    def precision(self) -> float:
        """Share of the answered entities that are gold; 0 where there is none."""
        return self.agreed / max(1, self.answered)

    @property
    def recall(self) -> float:
        """Share of the gold entities that are answered; 0 where there is none."""
        return self.agreed / max(1, self.gold)

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where there is no entity on either side."""
        return 2 * self.agreed / max(1, self.answered + self.gold)


def entity_counts(answers_N: NDArray[Any], tags_N: NDArray[Any], names: Sequence[str]) -> EntityCounts:
    """Entities of answers beside those of gold tags.

    Args:
        answers_N: of each row the class of every word, int64; below 0 where there is no answer, which is O.
        tags_N: the gold classes likewise; words without one, NO_CLASS, are taken out of both sides.
        names: the tags in the order of their classes.
    """
    is_gold = [tags != NO_CLASS for tags in tags_N]
    sides = []
    for rows in (answers_N, tags_N):
        kept = [row[is_own] for row, is_own in zip(rows, is_gold, strict=True)]
        sides.append(entities(spelled(kept, names)))
    answered, gold = sides
    # Whatever ends where another ends is compared with that alone.
    _, ours, theirs = np.intersect1d(answered[:, 1], gold[:, 1], assume_unique=True, return_indices=True)
    return EntityCounts(int((answered[ours] == gold[theirs]).all(1).sum()), len(answered), len(gold))


def spelled(rows: Sequence[NDArray[Any]], names: Sequence[str]) -> Spelled:
    """Letters and types of the classes of some rows, with an O behind each row."""
    parts = [_parts(name) for name in names]
    numbers: dict[str, int] = {}
    letters = np.array([*(letter for letter, _ in parts), _OUTSIDE[0]])
    types = np.array([numbers.setdefault(type_, len(numbers)) for _, type_ in [*parts, _OUTSIDE]], np.int64)
    outside = len(names)
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    flat = np.insert(np.concatenate([np.empty(0, np.int64), *rows]), ends, outside)
    flat[flat < 0] = outside
    return Spelled(letters[flat], types[flat])


def entities(tags: Spelled) -> NDArray[np.int64]:
    """The entities of tags: first and last place and type of each, int64 [n, 3], in order."""
    # Before the first word there is nothing, which is as if an O stood there.
    before = np.append(_OUTSIDE[0], tags.letters[:-1]), np.append(tags.types[-1:], tags.types[:-1])
    begins, ends = _begins(before, tags), _ends(before, tags)
    places = np.arange(len(tags.letters))
    # An entity ends before the place that shows it, and began where the last one did before that.
    first = np.maximum.accumulate(np.where(begins, places, 0))
    shown = np.flatnonzero(ends)
    return np.stack([first[shown - 1], shown - 1, tags.types[shown - 1]], 1).reshape(-1, 3)


def _parts(name: str) -> tuple[str, str]:
    """Letter and type of a tag."""
    return name[:1], name[1:].split("-", 1)[-1] or _OUTSIDE[1]


def _begins(before: tuple[NDArray[Any], NDArray[Any]], tags: Spelled) -> NDArray[np.bool_]:
    """Flags of the places where an entity begins."""
    letters, is_other = tags.letters, before[1] != tags.types
    goes_on = np.isin(letters, ["I", "E"]) & np.isin(before[0], ["E", "S", "O"])
    # S and E end what they stand in, but E after S or O, and I after any of these, begin anew.
    found: NDArray[np.bool_] = np.isin(letters, ["B", "S"]) | goes_on | (~np.isin(letters, ["O", "."]) & is_other)
    return found


def _ends(before: tuple[NDArray[Any], NDArray[Any]], tags: Spelled) -> NDArray[np.bool_]:
    """Flags of the places before which an entity ends."""
    letters, is_other = before[0], before[1] != tags.types
    cut = np.isin(letters, ["B", "I"]) & np.isin(tags.letters, ["B", "S", "O"])
    found: NDArray[np.bool_] = np.isin(letters, ["E", "S"]) | cut | (~np.isin(letters, ["O", "."]) & is_other)
    return found
