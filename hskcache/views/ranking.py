"""Positions of a view that are ranked anew, where all of them are stored: by what the rows alone tell.

Attention is the teacher's, so that no view can rank by it what was not ranked by it before.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hskcache.selection.length import random_score
from hskcache.selection.positions import num_positions
from hskcache.spec import Length
from hskcache.text.tokenize import load_tokenizer, special_ids
from hskcache.views.abc import RowTokens, best_first, starts_of
from hskcache.views.eligible import eligible, num_eligible

Integers = NDArray[np.int64]


def special_ids_in(tokenizer: Path) -> frozenset[int]:
    """Ids of the tokens that mark structure, of the tokenizer in a folder. Raises TeacherError if it is none."""
    return special_ids(load_tokenizer(tokenizer))


class RankedPositions:
    """Ranks the positions of the rows of a shard.

    Args:
        length: how they are chosen.
        ranks: whether by the score; else the order in which they are stored is theirs.
        rows: the rows.
    """

    def __init__(self, length: Length, ranks: bool, rows: RowTokens) -> None:
        self._length = length
        self._ranks = ranks
        self._rows = rows
        self._lengths = np.diff(rows.offsets)
        self._is_eligible = eligible(length, rows)
        self._offsets = starts_of(num_eligible(length, rows))

    @property
    def offsets(self) -> Integers:
        """Offsets of the positions that are kept of each row, int64 [n + 1]."""
        return best_first(self._offsets, self._kept)[1]

    @property
    def _kept(self) -> Integers:
        """Positions that are kept of each row, int64 [n]."""
        return num_positions(self._length, np.diff(self._offsets))

    def places(self, positions: NDArray[np.uint16], offsets: Integers) -> Integers:
        """Places of the kept positions among the stored ones, best first, int64 [P'].

        ``positions``: stored of each row, all that may be kept among them, row after row, uint16 [P]; ``offsets``:
        where those of each row begin, int64 [n + 1].
        """
        own, rows = positions.astype(np.int64), np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        entries = np.flatnonzero(self._is_eligible[self._rows.offsets[rows] + own])
        own, rows = own[entries], rows[entries]
        order = entries[np.lexsort((own, self._keys(rows, own, entries), rows))]
        return order[best_first(self._offsets, self._kept)[0]]

    def _keys(self, rows: Integers, positions: Integers, entries: Integers) -> NDArray[np.generic]:
        """Keys that rise from the best position of a row to its last, [P]."""
        if not self._ranks:
            return entries
        if self._length.is_whole or self._length.score in {"left", "cls", "all"}:
            return positions
        if self._length.score in {"right", "last"}:
            return -positions
        row_ids = torch.from_numpy(self._rows.row_ids)
        drawn: NDArray[np.float32] = random_score(row_ids, int(self._lengths.max()), self._length.seed).numpy()
        return -drawn[rows, positions]
