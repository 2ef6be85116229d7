"""Positions of a view that are ranked anew, where all of them are stored: by what the rows alone tell.

Attention is the teacher's, so that no view can rank by it what was not ranked by it before.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hskcache.selection.length import random_score
from hskcache.spec import SCORES, Length
from hskcache.text.tokenize import load_tokenizer, special_ids
from hskcache.views.abc import RowTokens, best_first, starts_of

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
        self._is_eligible = self._eligible()
        counts = np.add.reduceat(self._is_eligible.astype(np.int64), rows.offsets[:-1])
        self._offsets = starts_of(counts)

    @property
    def offsets(self) -> Integers:
        """Offsets of the positions that are kept of each row, int64 [n + 1]."""
        return self._offsets if self._length.tokens is None else best_first(self._offsets, self._length.tokens)[1]

    def places(self, positions: NDArray[np.uint16]) -> Integers:
        """Places of the kept positions among all, best first, int64 [P'].

        ``positions``: all of each row, row after row, uint16 [sum L].
        """
        own = positions.astype(np.int64)
        rows = np.repeat(np.arange(len(self._lengths)), self._lengths)
        entries = np.flatnonzero(self._is_eligible[self._rows.offsets[rows] + own])
        own, rows = own[entries], rows[entries]
        order = entries[np.lexsort((own, self._keys(rows, own, entries), rows))]
        tokens = self._length.tokens
        return order if tokens is None else order[best_first(self._offsets, tokens)[0]]

    def _eligible(self) -> NDArray[np.bool_]:
        """Tokens whose positions may be kept, bool [sum L]."""
        first = np.zeros(len(self._rows.input_ids), bool)
        first[self._rows.offsets[:-1]] = True
        if SCORES[self._length.score].first_alone:
            return first
        if self._length.specials:
            return np.ones_like(first)
        return first | ~np.isin(self._rows.input_ids, sorted(self._rows.special_ids))

    def _keys(self, rows: Integers, positions: Integers, entries: Integers) -> NDArray[np.generic]:
        """Keys that rise from the best position of a row to its last, [P]."""
        if not self._ranks:
            return entries
        if self._length.tokens is None or self._length.score in {"left", "cls", "all"}:
            return positions
        if self._length.score == "right":
            return -positions
        row_ids = torch.from_numpy(self._rows.row_ids)
        drawn: NDArray[np.float32] = random_score(row_ids, int(self._lengths.max()), self._length.seed).numpy()
        return -drawn[rows, positions]
