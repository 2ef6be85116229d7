"""Copies among rows, as ``hskcache augment`` marks them in two columns, and rows in the order of their copies.

The originals come first, then the first copies, then the second ones: fewer copies of every row are then the first rows
of a cache, and whatever can be done with its first rows can be done with them.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache import console
from hskcache.counted import counted
from hskcache.errors import ColumnError, DataError
from hskcache.text.examples import Examples
from hskcache.text.head import check_head
from hskcache.text.labels import LabelSet
from hskcache.text.memory import Source
from hskcache.text.rows import read_table
from hskcache.text.strings import column
from hskcache.text.table import Columns, RowPolicy

ORIGIN, COPY = "origin", "copy"
"""Columns of the row that a copy was made from, and of the copy's number, 0 for the original."""

MOST_NUMBER = 20_000
"""Number of a copy at most: those of two texts, 10,000 of each."""
UNKNOWN = -1
"""Original of a row whose original is not among the rows."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies among N rows.

    Attributes:
        numbers: of the copy that each row is, ascending, 0 for originals, int32 [N]; of pairs, of which one text at a
            time varies, the copies of either text are counted from 1.
        origins: row that each one was made from, its own number for an original, or ``UNKNOWN``, int64 [N].
        column: of the numbers in the source, by name or by number.
    """

    numbers: NDArray[np.int32]
    origins: Integers
    column: str | int

    @property
    def counts(self) -> list[int]:
        """Rows that are originals, that are first copies, and so on."""
        counts: list[int] = np.bincount(self.numbers).tolist()
        return counts


def in_order_of_copies(examples: Examples, source: Source, copy: str | int | None = None) -> Examples:
    """Rows in the order of the numbers of their copies, which are told; the same where nothing tells of copies.

    Args:
        examples: as they were read of the source.
        source: that they were read of.
        copy: column of the numbers, by name or number; that of the origins is called so, or stands before it. None:
            ``copy`` where there are columns of both names; an empty string reads neither.

    Raises:
        DataError: there is no such column, or it holds something else.
    """
    if copy and examples.words is not None:
        raise DataError(
            f"{examples.source}: --copy {copy}: rows are words with a tag each, of which there are no copies"
        )
    if copy == "" or examples.reading.columns is None or examples.words is not None:
        return examples
    number = COPY if copy is None else int(copy) if str(copy).isdecimal() else copy
    try:
        marks = _marks(examples, source, number)
    except ColumnError:
        if copy is not None:
            raise
        return examples
    is_odd = (marks < 0).any(0) | (marks[1] > MOST_NUMBER)
    if copy is None and is_odd.all():
        # Columns of other data that happen to be called so.
        return examples
    if (odd := np.flatnonzero(is_odd)).size:
        problem = f"{examples.where(int(odd[0]))}: the columns of origin and copy hold no numbers of a row and a copy"
        if copy is not None:
            raise DataError(f"{problem}; name the column of the copy's number, or read none with --copy ''")
        console.say(f"{problem}; rows are read without regard to copies")
        return examples
    return _ordered(examples, marks, number)


def _marks(examples: Examples, source: Source, number: str | int) -> Integers:
    """Origins and numbers of copies as the source has them, below 0 where it has none, int64 [2, N]."""
    reading = examples.reading
    if number == 0:
        raise DataError(
            f"{examples.source}: --copy 0: the column of origins stands before that of copies; there is none"
        )
    if isinstance(number, int):
        columns = Columns(number, number - 1, None, None if reading.columns is None else reading.columns.header)
    else:
        columns = Columns(number, ORIGIN)
    check_head(source, columns)
    table = read_table(source, columns, LabelSet(), RowPolicy(bad_rows="skip"))
    assert table.pairs is not None
    places = np.searchsorted(np.asarray(table.numbers), np.asarray(reading.numbers))
    marks = [np.array([_whole(value) for value in values], np.int64)[places] for values in (table.pairs, table.texts)]
    return np.stack(marks)


def _whole(value: Any) -> int:
    """A whole number from 0 on; -1 of anything else."""
    if isinstance(value, str):
        # Of a column with a gap pandas makes floats, and writes 1 as 1.0.
        value = value.strip().removesuffix(".0")
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 16 else -1
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15 and value == int(value):
        return int(value)
    return -1


def _ordered(examples: Examples, marks: Integers, number: str | int) -> Examples:
    origins, numbers = marks
    lines = np.asarray(examples.reading.numbers)
    # Of pairs that are read as single texts, both are of one line.
    keys = 2 * origins + np.append(False, lines[1:] == lines[:-1])
    found = _originals(keys, numbers)
    numbers = _of_either_text(examples, numbers, found)
    order = np.argsort(numbers, kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    made_from = np.where(found < 0, UNKNOWN, places[found])[order]
    copies = Copies(numbers[order].astype(np.int32), made_from, number)
    rows = order.tolist()
    _tell(copies, examples.source)
    # Of the rows as they stand in the source: their order follows from their copies.
    digest = hashlib.sha256(f"hskcache copies 1\n{examples.fingerprint}\n".encode())
    digest.update(copies.numbers.astype("<i4").tobytes() + made_from.astype("<i8").tobytes())
    return replace(
        examples,
        texts=column(examples.texts[row] for row in rows),
        pairs=None if examples.pairs is None else column(examples.pairs[row] for row in rows),
        labels=None if examples.labels is None else examples.labels[order],
        fingerprint=digest.hexdigest(),
        reading=replace(examples.reading, numbers=lines[order].tolist()),
        copies=copies,
    )


def _tell(copies: Copies, source: str) -> None:
    """Say how many rows and copies there are, and of how many the original is missing."""
    counts, num_lost = copies.counts, int((copies.origins == UNKNOWN).sum())
    told, made = f"{source}: {counted(counts[0], 'row')}", sum(counts[1:])
    if made:
        told += f" and {counted(made, 'copy', 'copies')}, up to {len(counts) - 1} of a text, in this order"
    if num_lost:
        told += (
            f"; the originals of {num_lost} are not among them: where the columns {ORIGIN} and {COPY} mean something "
            "else, --copy '' leaves rows as they stand"
        )
    console.say(told)


def _originals(keys: Integers, numbers: Integers) -> Integers:
    """Row of the original of each row, itself of an original, int64 [N]; -1 where there is none.

    Args:
        keys: same for rows of one origin, int64 [N].
        numbers: of copies, int64 [N].
    """
    rows = np.flatnonzero(numbers == 0)
    if not rows.size:
        return np.full(len(keys), -1)
    rows = rows[np.argsort(keys[rows], kind="stable")]
    at = np.minimum(np.searchsorted(keys[rows], keys), len(rows) - 1)
    found: Integers = np.where(keys[rows][at] == keys, rows[at], -1)
    found[rows] = rows
    return found


def _of_either_text(examples: Examples, numbers: Integers, originals: Integers) -> Integers:
    """Numbers of the copies of either text of pairs, each counted from 1.

    ``augment`` counts the copies of the second text, beside which the first stays, after all of the first's.
    """
    if examples.pairs is None:
        return numbers
    first, second = (np.array([hash(text) for text in texts], np.int64) for texts in (examples.texts, examples.pairs))
    is_copy = (numbers > 0) & (originals >= 0)
    is_second = is_copy & (first == first[originals]) & (second != second[originals])
    most = int(numbers[is_copy & ~is_second].max(initial=0))
    is_counted_on = is_second.any() and most < numbers[is_second].min()
    return numbers - most * is_second if is_counted_on else numbers
