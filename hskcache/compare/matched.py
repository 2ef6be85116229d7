"""The rows that two caches have in common, read side by side, a shard of each at a time."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.cache import Cache
from hskcache.rows import Arrays, Integers, take
from hskcache.store.fields import INPUTS

Flags = NDArray[np.bool_]


class Segment(NamedTuple):
    """Common rows that stand in one shard of each cache.

    ``start``, ``stop``: among the common rows; ``here``, ``there``: the shard in each; ``is_whole``: whether they are
    all rows of both shards.
    """

    start: int
    stop: int
    here: int
    there: int
    is_whole: bool


@dataclass(frozen=True, eq=False)
class Matched:
    """Two caches whose rows are matched by their numbers in the data set, which a part of a cache keeps."""

    here: Cache
    there: Cache

    @cached_property
    def firsts(self) -> tuple[int, int]:
        """The row of each cache that the first common row is."""
        here, there = (_first_row(cache) for cache in (self.here, self.there))
        first = max(here, there)
        return first - here, first - there

    @cached_property
    def start(self) -> int:
        """The number in the data set of the first common row."""
        return _first_row(self.here) + self.firsts[0]

    @property
    def num_rows(self) -> int:
        """Rows that both have."""
        here, there = self.firsts
        return max(0, min(self.here.num_rows - here, self.there.num_rows - there))

    @property
    def fields(self) -> list[str]:
        """Fields of one name and kind that both have, the inputs first."""
        ours, theirs = self.here.fields, self.there.fields
        return sorted(
            (name for name in ours if name in theirs and ours[name].kind == theirs[name].kind),
            key=lambda name: name != INPUTS,
        )

    def segments(self) -> Iterator[Segment]:
        """The common rows, cut wherever a shard of either begins."""
        ours, theirs = self._shards
        here = there = 0
        while here < len(ours) and there < len(theirs):
            start, stop = max(ours[here][0], theirs[there][0]), min(ours[here][1], theirs[there][1])
            if start < stop:
                yield Segment(start, stop, here, there, ours[here] == theirs[there] == (start, stop))
            if ours[here][1] <= stop:
                here += 1
            else:
                there += 1

    def same_shard(self, field: str, segment: Segment) -> bool:
        """True if a segment is one shard of a field that is the same, byte for byte, in both caches."""
        if not segment.is_whole or self.here.fields[field] != self.there.fields[field]:
            return False
        ours, theirs = self.here.manifest, self.there.manifest
        constants = [getattr(manifest.constants.get(field), "sha256", None) for manifest in (ours, theirs)]
        digests = ours.shards[field][segment.here].sha256, theirs.shards[field][segment.there].sha256
        return digests[0] == digests[1] and constants[0] == constants[1]

    def same_rows(self, field: str) -> Flags:
        """Flags of the common rows that stand in such shards."""
        same = np.zeros(self.num_rows, np.bool_)
        for segment in self.segments():
            same[segment.start : segment.stop] = self.same_shard(field, segment)
        return same

    def skipped(self, field: str) -> tuple[list[int], list[int]]:
        """Common rows that each cache has left out of a field."""
        ours, theirs = (
            [int(row) - first for row in cache.skipped([field]) if 0 <= row - first < self.num_rows]
            for cache, first in zip((self.here, self.there), self.firsts, strict=True)
        )
        return ours, theirs

    def pairs(
        self, field: str, names: tuple[Collection[str] | None, Collection[str] | None] = (None, None)
    ) -> Iterator[tuple[Segment, Arrays, Arrays]]:
        """The rows of each segment whose shards are not the same, as both caches store them.

        ``names``: arrays to read of each; None reads all. Raises DamageError if a file is missing or altered.
        """
        ours, theirs = _FieldRows(self.here, field, names[0]), _FieldRows(self.there, field, names[1])
        segments = [segment for segment in self.segments() if not self.same_shard(field, segment)]
        self.here.ahead((field, shard) for shard in dict.fromkeys(segment.here for segment in segments))
        self.there.ahead((field, shard) for shard in dict.fromkeys(segment.there for segment in segments))
        for segment in segments:
            here, there = (np.arange(segment.start, segment.stop) + first for first in self.firsts)
            yield segment, ours.rows(segment.here, here), theirs.rows(segment.there, there)

    @property
    def _shards(self) -> tuple[list[tuple[int, int]], ...]:
        """Row ranges of the shards of each, counted by common rows and cut to these."""
        return tuple(
            [(max(start - first, 0), min(stop - first, self.num_rows)) for start, stop in cache.shards]
            for cache, first in zip((self.here, self.there), self.firsts, strict=True)
        )


class _FieldRows:
    """Rows of a field of one cache, the last shard of which that was read stays in memory."""

    def __init__(self, cache: Cache, field: str, names: Collection[str] | None) -> None:
        self.cache, self.field, self.names = cache, field, names
        self.shard, self.arrays = -1, Arrays()

    def rows(self, shard: int, rows: Integers) -> Arrays:
        if shard != self.shard:
            self.arrays = {}
            self.arrays, self.shard = self.cache.read(self.field, shard, self.names), shard
        return take(self.cache.fields[self.field], self.arrays, rows - self.cache.shards[shard][0])


def _first_row(cache: Cache) -> int:
    """The number in the data set of a cache's first row."""
    return int(cache.read(INPUTS, 0, ["row_ids"])["row_ids"][0]) if cache.num_rows else 0
