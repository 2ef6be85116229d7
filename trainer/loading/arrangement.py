"""Places of the tokens of rows in a batch: each row in a sequence of its own, or several behind one another."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hskcache.ragged import Integers


class Arrangement(NamedTuple):
    """Places of the tokens of several batches, one after the other: runs of a row's tokens with padding behind them.

    Attributes:
        shapes: sequences S and slots L of each batch, [n, 2].
        begin: where each row begins in its flattened batch, row after row as the batches have them.
        row_of: row of each run of slots, [R]; of padding alone whichever.
        size_of: its slots.
        num_of: tokens of the row in it.
    """

    shapes: Integers
    begin: Integers
    row_of: Integers
    size_of: Integers
    num_of: Integers

    @property
    def within(self) -> Integers:
        """Number of each slot in its run, counted from 0: of a token, that in its row; int64 [sum of S x L]."""
        return np.arange(self.size_of.sum()) - np.repeat(np.cumsum(self.size_of) - self.size_of, self.size_of)


def padded(lengths: Integers, batches: Integers) -> Arrangement:
    """Every row in a sequence of its own, as long as the longest of its batch.

    Args:
        lengths: tokens of each row, batch after batch.
        batches: where the rows of each batch begin, [n + 1].
    """
    own, numbers = np.diff(batches), np.arange(len(lengths))
    longest = np.maximum.reduceat(lengths, batches[:-1])
    slots = np.repeat(longest, own)
    begin = (numbers - np.repeat(batches[:-1], own)) * slots
    return Arrangement(np.stack([own, longest], 1), begin, numbers, slots, lengths)


def packed(lengths: Integers, batches: Integers, most: int) -> Arrangement:
    """Rows behind one another in sequences of at most so many tokens.

    A sequence is as long as the longest of its batch, and what is left of it counts as one more row.

    Args:
        lengths: tokens of each row, batch after batch.
        batches: where the rows of each batch begin, [n + 1].
        most: tokens of a sequence; at least those of the longest row.
    """
    shapes, begin = np.empty((len(batches) - 1, 2), np.int64), np.empty_like(lengths)
    runs: list[tuple[int, int, int]] = []
    for batch, (first, last) in enumerate(pairwise(batches.tolist())):
        sequences = _fitted(lengths[first:last].tolist(), most)
        slots = max(int(lengths[first:last][rows].sum()) for rows in sequences)
        shapes[batch] = len(sequences), slots
        for number, rows in enumerate(sequences):
            end = number * slots
            for row in rows:
                begin[first + row] = end
                runs.append((first + row, int(lengths[first + row]), int(lengths[first + row])))
                end += int(lengths[first + row])
            runs.append((first + rows[-1], (number + 1) * slots - end, 0))
    return Arrangement(shapes, begin, *(np.array(column) for column in zip(*runs, strict=True)))


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
