"""The records of a field's shards as a sequence, whichever way a cache keeps them, and what follows from them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, overload

from hskcache.store.record import Record, Skipped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Records(Sequence[Record], ABC):
    """The records of the shards of a field, in order; constants are none of them.

    Sums are known without looking at every record where the cache keeps them.
    """

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Bytes of the shards on disk."""

    @abstractmethod
    def shard_bytes(self) -> "NDArray[np.int64]":
        """Bytes on disk of each shard, int64 [number of shards]."""

    @property
    @abstractmethod
    def array_bytes(self) -> Mapping[str, int]:
        """Bytes in memory of all shards' arrays together, by name."""

    @abstractmethod
    def skipped(self) -> Iterator[Skipped]:
        """Rows of which the field holds nothing, ascending."""

    def since(self, first: int) -> Iterator[Record]:
        """The records from that of a shard on, one after the other."""
        return (self._at(shard) for shard in range(first, len(self)))

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> list[Record]: ...
    def __getitem__(self, place: int | slice) -> Record | list[Record]:
        """The record of a shard, or those of several."""
        if isinstance(place, slice):
            return [self._at(shard) for shard in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"there is no shard {place} of {len(self)}")
        return self._at(place % len(self))

    def __eq__(self, other: object) -> bool:
        """True if the records are the same, one by one."""
        if not isinstance(other, Records):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @abstractmethod
    def _at(self, shard: int) -> Record:
        """The record of one shard that there is."""


class ListedRecords(Records):
    """Records that are all in memory."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = tuple(records)

    def __len__(self) -> int:
        return len(self._records)

    def _at(self, shard: int) -> Record:
        return self._records[shard]

    @property
    def num_bytes(self) -> int:
        """Bytes of the shards on disk."""
        return sum(record.num_bytes for record in self._records)

    def shard_bytes(self) -> "NDArray[np.int64]":
        """Bytes on disk of each shard, int64 [number of shards]."""
        import numpy as np

        return np.array([record.num_bytes for record in self._records], np.int64)

    @property
    def array_bytes(self) -> Mapping[str, int]:
        """Bytes in memory of all shards' arrays together, by name."""
        sums: dict[str, int] = {}
        for record in self._records:
            for name, info in record.arrays.items():
                sums[name] = sums.get(name, 0) + info.memory_bytes
        return sums

    def skipped(self) -> Iterator[Skipped]:
        """Rows of which the field holds nothing, ascending."""
        return (one for record in self._records for one in record.skipped)
