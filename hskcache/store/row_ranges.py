"""Row ranges of shards, which follow from few numbers: none of them is in memory, however many there are."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RowRanges(Sequence[tuple[int, int]]):
    """Row ranges [start, stop) of the shards of rows that come in parts, each of which begins with a shard of its own.

    Args:
        parts: rows of each part.
        shard_rows: rows of a shard; the last one of a part may have fewer.
    """

    def __init__(self, parts: Sequence[int], shard_rows: int) -> None:
        self._shard_rows = shard_rows
        self._rows = [0, *accumulate(parts)]
        self._shards = [0, *accumulate(-(-num_rows // shard_rows) for num_rows in parts)]

    def __len__(self) -> int:
        return self._shards[-1]

    @overload
    def __getitem__(self, place: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, place: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        """The row range of a shard, or those of several."""
        if isinstance(place, slice):
            return [self[shard] for shard in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"{len(self)} shards have no shard {place}")
        shard = place % len(self)
        part = bisect_right(self._shards, shard) - 1
        start = self._rows[part] + (shard - self._shards[part]) * self._shard_rows
        return start, min(start + self._shard_rows, self._rows[part + 1])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for begin, end in pairwise(self._rows):
            for start in range(begin, end, self._shard_rows):
                yield start, min(start + self._shard_rows, end)

    def __eq__(self, other: object) -> bool:
        """True if the ranges are the same, of whatever kind of sequence."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> "NDArray[Any]":
        """The ranges as an array, int64 [number of shards, 2]."""
        import numpy as np

        parts = [np.arange(*part, self._shard_rows) for part in pairwise(self._rows)]
        starts = np.concatenate([np.zeros(0, np.int64), *parts])
        stops = np.append(starts[1:], self._rows[-1])[: len(starts)]
        return np.stack([starts, stops], axis=1).astype(dtype or np.int64)

    def first(self, num_rows: int) -> "RowRanges":
        """The ranges as far as they lie within the first rows."""
        stops = [min(row, num_rows) for row in self._rows]
        return RowRanges([stop - start for start, stop in pairwise(stops)], self._shard_rows)

    def shard_of(self, row: int) -> int:
        """The shard that holds a row, one that there is."""
        part = bisect_right(self._rows, row) - 1
        return self._shards[part] + (row - self._rows[part]) // self._shard_rows
