"""Rows of a cache, taken out of the shards that hold them, still encoded."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hskcache.store.fields import OFFSETS, Field, row_offsets
from hskcache.store.row_ranges import RowRanges

Arrays = dict[str, NDArray[Any]]
Integers = NDArray[np.int64]


class Stored(Protocol):
    """A cache, as far as its rows are read."""

    shards: RowRanges

    @property
    def fields(self) -> Mapping[str, Field]:
        """Fields by name."""

    def ahead(self, shards: Iterable[tuple[str, int]], names: Mapping[str, Collection[str]] | None = None) -> None:
        """Tell that some shards, by field and number, will be read soon."""

    def read(self, field: str, shard: int, names: Collection[str] | None = None) -> Arrays:
        """Arrays of a shard, still encoded."""


def take(field: Field, arrays: Mapping[str, NDArray[Any]], rows: Integers) -> Arrays:
    """Rows of a shard as a shard of those rows alone would hold them.

    ``arrays``: of the shard, all or some; where rows have different numbers of entries, their offsets too. ``rows``:
    places in the shard, int64 [n], in any order.
    """
    taken = {}
    for name, array in arrays.items():
        offsets = row_offsets(field, name, arrays)
        if name in OFFSETS:
            taken[name] = _starts(np.diff(array)[rows])
        elif offsets is None:
            taken[name] = array[rows]
        else:
            taken[name] = array[_entries(offsets[rows], np.diff(offsets)[rows])]
    return taken


def join(parts: list[Arrays]) -> Arrays:
    """Rows of several shards as one shard would hold them; at least one part."""
    joined = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        is_offsets = name in OFFSETS
        joined[name] = _starts(np.concatenate(list(map(np.diff, arrays)))) if is_offsets else np.concatenate(arrays)
    return joined


def by_shard(shards: RowRanges, rows: Integers) -> Iterator[tuple[int, slice]]:
    """The shards that hold some of the rows, which ascend, and which of them each holds."""
    first = 0
    while first < len(rows):
        shard = shards.shard_of(int(rows[first]))
        last = int(np.searchsorted(rows, shards[shard][1]))
        yield shard, slice(first, last)
        first = last


def read_rows(cache: Stored, name: str, rows: Integers, names: Collection[str] | None = None) -> Arrays:
    """Rows of a field; of the shards that hold them, one at a time is in memory.

    ``rows``: numbers of the rows, ascending, at least one. ``names``: arrays to read, offsets among them; None reads
    all. Raises MismatchError if the cache has no such field, DamageError if a file is missing or altered.
    """
    places = list(by_shard(cache.shards, rows))
    cache.ahead(((name, shard) for shard, _ in places), None if names is None else {name: names})
    parts = []
    for shard, inside in places:
        arrays = cache.read(name, shard, names)
        parts.append(take(cache.fields[name], arrays, rows[inside] - cache.shards[shard][0]))
    return join(parts)


def in_pieces(rows: Integers, sizes: Integers, most: int) -> Iterator[Integers]:
    """Rows in pieces whose sizes together are about ``most`` at most; a single row always is one; none of no rows.

    ``sizes``: of each of the rows, int64 [n].
    """
    if len(rows):
        yield from np.split(rows, np.flatnonzero(np.diff(np.cumsum(sizes) // most)) + 1)


def _starts(counts: Integers) -> Integers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _entries(begin: Integers, counts: Integers) -> Integers:
    """Places ``begin[i] ... begin[i] + counts[i]``, row after row."""
    shift = begin - (np.cumsum(counts) - counts)
    return np.repeat(shift, counts) + np.arange(counts.sum())
