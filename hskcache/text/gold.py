"""Spellings that stand for 'no gold label': an empty cell, ``-`` and -1, where they are neither a class nor a score.

SNLI's own files write ``-`` where annotators do not agree, the hub's copy -1, and GLUE's test sets have -1 throughout.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hskcache.errors import DataError
from hskcache.text.table import RowPolicy

NO_GOLD = frozenset({"", "-", "-1", "-1.0"})
"""Spellings that may stand for no gold label, where nothing is known of the classes."""

_WHOLE = re.compile(r"[+-]?\d+")


class Unlabelled(NamedTuple):
    """Spellings, as in a column, that stand for no gold label; ``remark`` tells of -1 where it is one all the same."""

    spellings: frozenset[str]
    remark: str | None = None


def unlabelled_classes(
    source: str, counts: Mapping[str, int], known: tuple[Sequence[str] | None, int | None], policy: RowPolicy
) -> Unlabelled:
    """Find what stands for no gold label among classes.

    Of known classes it is whatever of ``-`` and -1 is none of them. Else ``-`` is, unless ``+`` is a class, too; and -1
    is where it stands alone, beside words, or below three classes or more that are numbered from 0 or 1. Beside 1 alone
    it is a class, as it is among numbers that do not follow each other. Raises DataError where -1 may be either.

    Args:
        counts: rows of each spelling, whole numbers without a point.
        known: the names of the classes, and their number; None where nothing is known.
        policy: rows without a gold label that are to be left out or kept settle what -1 is.
    """
    names, num_classes = known
    if names is not None:
        return Unlabelled(frozenset({"-", "-1"} - set(names)))
    marks = {"-"} - ({"-"} if "+" in counts else set())
    if "-1" not in counts:
        return Unlabelled(frozenset(marks))
    others = set(counts) - marks - {"-1"}
    minus_one = _is_minus_one_none(others, num_classes, policy)
    if minus_one is None:
        listed = ", ".join(sorted({*others, "-1"}, key=int))
        none = "--unlabelled skip to leave such rows out"
        if policy.unlabelled in {"skip", "keep"}:
            none = f"--classes {','.join(map(str, range(num_classes or 0)))} where it is none"
        raise DataError(
            f"{source}: the labels are {listed}, and -1 may be a class or stand for no gold label; give --classes "
            f"{listed.replace(' ', '')}, or {none}"
        )
    if minus_one:
        return Unlabelled(frozenset({*marks, "-1"}))
    return Unlabelled(frozenset(marks), f"-1 taken for a class in {counts['-1']:,} of them")


def _is_minus_one_none(others: set[str], num_classes: int | None, policy: RowPolicy) -> bool | None:
    """True if -1 is no class; None where nobody can tell."""
    if not others or not all(map(_WHOLE.fullmatch, others)):
        return True
    if num_classes is not None and len(others) + 1 == num_classes and others != {"0"}:
        # Rows that are to be left out may be these, or others whose label is empty.
        return None if policy.unlabelled in {"skip", "keep"} and "0" in others else False
    if policy.unlabelled in {"skip", "keep"}:
        return True
    values = sorted(map(int, others))
    if values[0] < 0 or values == [1]:
        return False
    follows = values[0] in {0, 1} and values == list(range(values[0], values[0] + len(values)))
    if num_classes is not None and values[-1] < num_classes:
        return True
    if follows and len(values) > 2:
        return True
    return None if follows else False


def unlabelled_scores(counts: Mapping[str, int], policy: RowPolicy) -> Unlabelled:
    """Find what stands for no gold label among scores: ``-``, and -1 where no other score is there.

    The lowest of other scores may be -1; it is taken for one unless rows without a gold label are asked for, and told.
    """
    scores = {text: number(text) for text in counts}
    minus_ones = {text for text, score in scores.items() if score == -1}
    others = [score for text, score in scores.items() if text not in minus_ones and score is not None]
    if not minus_ones or any(score < 0 for score in others):
        return Unlabelled(frozenset({"-"}))
    if not others or policy.unlabelled in {"skip", "keep"}:
        return Unlabelled(frozenset({"-", *minus_ones}))
    rows = sum(counts[text] for text in minus_ones)
    told = f"-1 in {rows:,} of them taken for a score, the only one below 0; --unlabelled skip leaves such rows out"
    return Unlabelled(frozenset({"-"}), told)


def truth(value: object) -> float | None:
    """The value of a class in a cell: a number, or 1 and 0 for true and false; None where it is neither."""
    text = str(value).strip().casefold()
    return {"true": 1.0, "false": 0.0}.get(text, number(text))


def number(text: str) -> float | None:
    """The number that ``text`` reads as, finite or not; None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None
