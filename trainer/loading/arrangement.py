"""Places of the tokens of rows in a batch: each row in a sequence of its own, or several behind one another."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hskcache.ragged import Integers


class Arrangement(NamedTuple):
    """Slots of several batches, one batch after the other, and what stands in each.

    Attributes:
        shapes: sequences S and slots L of each batch, [n, 2].
        begin: where each row begins in its flattened batch, row after row as the batches have them.
        rows: row whose token, or padding behind its token, stands in each slot; int64, of all batches.
        within: number of the token in its row, counted from 0; in packed padding counted from its own first slot.
        is_own: whether a slot holds a token rather than padding, bool.
    """

    shapes: Integers
    begin: Integers
    rows: Integers
    within: Integers
    is_own: "np.typing.NDArray[np.bool_]"

    @property
    def pads(self) -> bool:
        """True if there is padding."""
        return not bool(self.is_own.all())


def padded(lengths: Integers, batches: Integers) -> Arrangement:
    """Every row in a sequence of its own, as long as the longest of its batch.

    Args:
        lengths: tokens of each row, batch after batch.
        batches: where the rows of each batch begin, [n + 1].
    """
    own = np.diff(batches)
    longest = np.maximum.reduceat(lengths, batches[:-1])
    slots = np.repeat(longest, own)
    begin = (np.arange(len(lengths)) - np.repeat(batches[:-1], own)) * slots
    rows = np.repeat(np.arange(len(lengths)), slots)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(slots) - slots, slots)
    return Arrangement(np.stack([own, longest], 1), begin, rows, within, within < lengths[rows])


def packed(lengths: Integers, batches: Integers, most: int) -> Arrangement:
    """Rows behind one another in sequences of at most so many tokens.

    A sequence is as long as the longest of its batch, and what is left of it counts as one more row.

    Args:
        lengths: tokens of each row, batch after batch.
        batches: where the rows of each batch begin, [n + 1].
        most: tokens of a sequence; at least those of the longest row.
    """
    shapes, begin = np.empty((len(batches) - 1, 2), np.int64), np.empty_like(lengths)
    pieces: list[tuple[int, int, bool]] = []
    for batch, (first, last) in enumerate(pairwise(batches.tolist())):
        sequences = _fitted(lengths[first:last].tolist(), most)
        slots = max(int(lengths[first:last][rows].sum()) for rows in sequences)
        shapes[batch] = len(sequences), slots
        for number, rows in enumerate(sequences):
            end = number * slots
            for row in rows:
                begin[first + row] = end
                pieces.append((first + row, int(lengths[first + row]), True))
                end += int(lengths[first + row])
            pieces.append((first + rows[-1], (number + 1) * slots - end, False))
    row_of, size_of, is_own_of = (np.array(column) for column in zip(*pieces, strict=True))
    within = np.arange(size_of.sum()) - np.repeat(np.cumsum(size_of) - size_of, size_of)
    return Arrangement(shapes, begin, np.repeat(row_of, size_of), within, np.repeat(is_own_of, size_of))


def _fitted(lengths: list[int], most: int) -> list[list[int]]:
    """Rows of each sequence: as few sequences as first fit decreasing takes, and these as even as they can be had.

    An even division, where each row goes to the sequence with the fewest tokens, leaves less padding, but now and then
    does not fit.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    left: list[int] = []
    first: list[list[int]] = []
    for row in order:
        place = next((number for number, room in enumerate(left) if room >= lengths[row]), len(left))
        if place == len(left):
            left.append(most)
            first.append([])
        first[place].append(row)
        left[place] -= lengths[row]
    sums = [0] * len(first)
    even: list[list[int]] = [[] for _ in first]
    for row in order:
        place = sums.index(min(sums))
        even[place].append(row)
        sums[place] += lengths[row]
    return even if max(sums) <= most else first
