"""Positions of the rows of a shard that may be kept, by what the rows alone tell."""

import numpy as np
from numpy.typing import NDArray

from hskcache.spec import SCORES, Length
from hskcache.store.targets import places_of_targets
from hskcache.views.abc import RowTokens


def eligible(length: Length, rows: RowTokens) -> NDArray[np.bool_]:
    """Tokens whose positions may be kept, bool [sum L]."""
    first = np.zeros(len(rows.input_ids), bool)
    first[rows.offsets[:-1]] = True
    if SCORES[length.score].first_alone:
        return first
    admitted = np.ones_like(first)
    if length.targets:
        admitted = np.zeros_like(first)
        admitted[places_of_targets(rows.targets, rows.offsets) - 1] = True
    if length.specials:
        return admitted
    return admitted & (first | ~np.isin(rows.input_ids, sorted(rows.special_ids())))


def num_eligible(length: Length, rows: RowTokens) -> NDArray[np.int64]:
    """Number of these of each row, int64 [n]."""
    before = np.concatenate([[0], np.cumsum(eligible(length, rows), dtype=np.int64)])
    counts: NDArray[np.int64] = np.diff(before[rows.offsets])
    return counts
