"""The records and the identity of a view, which stand in no file."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import MismatchError
from hskcache.store.fields import OFFSETS, kind_of
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.kinds.abc import ROW
from hskcache.store.manifest import Format, Manifest, named_content
from hskcache.store.record import ArrayInfo, Record, Skipped
from hskcache.store.records import ListedRecords, Records
from hskcache.store.request import Request
from hskcache.views.abc import Narrowed


class ViewFormat(Format):
    """Naming of a view: by the content of the cache that it sees, and by what it sees of that.

    Attributes:
        version: of the cache.

    Args:
        origin: manifest of the cache.
        start: first row of the cache that the view has.
    """

    keeps_records = False

    def __init__(self, origin: Manifest, start: int) -> None:
        self.version = origin.format_version
        self._origin = origin
        self._start = start

    def identity(self, manifest: Manifest, names: Collection[str]) -> str:
        """SHA-256 over the identity that the cache's fields of these names have, and over the view."""
        content = {
            "origin": self._origin.identity(names),
            "start": self._start,
            "view": named_content(manifest, names),
        }
        return sha256_hex(canonical_json(content))

    def records(self, field: str, records: Iterable[Record]) -> Records:
        """Records of a field, in memory."""
        return ListedRecords(records)

    def spelled(self, manifest: Manifest) -> bytes:
        """Refuse: a view has no file."""
        raise _no_file()

    def extended(self, records: Records, more: Iterable[Record]) -> Records:
        """Refuse: a view has the shards of its cache."""
        raise _no_file()

    def pack(self, arrays: Mapping[str, NDArray[Any]], sha256: str | None = None) -> bytes:
        """Refuse: a view has no file."""
        raise _no_file()

    def record(self, data: bytes, facts: Mapping[str, Any]) -> Record:
        """Refuse: a view has no file."""
        raise _no_file()

    def parse_record(self, data: bytes, file: str) -> Record:
        """Refuse: a view has no file."""
        raise _no_file()


def _no_file() -> MismatchError:
    return MismatchError("a view has no files of its own; hskcache extract writes a cache of it")


class ViewRecords(Records):
    """Records of a field of a view, each made from that of the cache when it is asked for.

    They tell how much is read on disk, and of arrays how large they are at most: how many positions the rows of a shard
    have, only the shard tells.

    Args:
        stored: records of the cache.
        narrowed: the field.
        request: of the view.
        first: number of the cache's shard that is the first of the view.
    """

    def __init__(self, stored: Records, narrowed: Narrowed, request: Request, first: int) -> None:
        self._stored = stored
        self._narrowed = narrowed
        self._request = request
        self._first = first
        self._start = stored[first].start

    def __len__(self) -> int:
        return self._request.num_shards

    @property
    def num_bytes(self) -> int:
        """Bytes of the cache's shards that the view is read from."""
        return self._stored.num_bytes if len(self) == len(self._stored) else int(self.shard_bytes().sum())

    def shard_bytes(self) -> NDArray[np.int64]:
        """Bytes of each of these shards, int64 [number of shards]."""
        return self._stored.shard_bytes()[self._first : self._first + len(self)]

    @property
    def array_bytes(self) -> Mapping[str, int]:
        """Bytes in memory of all shards' arrays together, by name, at most."""
        found: dict[str, int] = {}
        for record in self:
            for name, info in record.arrays.items():
                found[name] = found.get(name, 0) + info.memory_bytes
        return found

    def skipped(self) -> Iterator[Skipped]:
        """Rows of which the field holds nothing, ascending."""
        rows = range(self._start, self._start + self._request.num_rows)
        return (_moved(one, self._start) for one in self._stored.skipped() if one.row in rows)

    def _at(self, shard: int) -> Record:
        record, (start, stop) = self._stored[self._first + shard], self._request.shards[shard]
        told = [self._narrowed.field.model_dump(mode="json"), stop - start, *self._narrowed.told]
        digest = canonical_json([record.sha256, *told])
        return Record(
            field=record.field,
            shard=shard,
            start=start,
            stop=stop,
            num_bytes=record.num_bytes,
            sha256=sha256_hex(digest),
            num_nonfinite=record.num_nonfinite,
            skipped=[_moved(one, self._start) for one in record.skipped if one.row < self._start + stop],
            arrays=arrays_at_most(self._narrowed, record, stop - start),
        )


def arrays_at_most(narrowed: Narrowed, record: Record, num_rows: int) -> dict[str, ArrayInfo]:
    """The arrays of the first rows of a shard of a view, each as large as it can be.

    Args:
        narrowed: the field.
        record: of the cache's shard.
        num_rows: of the view's.
    """
    kind, field = kind_of(narrowed.field), narrowed.field
    sizes = {kind.axis(name): info.shape[0] for name, info in record.arrays.items() if name not in OFFSETS}
    found = {}
    for name, array in kind.arrays(field).items():
        axis = kind.axis(name)
        size = num_rows + (name in OFFSETS) if axis == ROW else narrowed.most(axis, sizes[axis], num_rows)
        known = record.arrays[name].dtype if name in record.arrays else ""
        dtype = known if known in array.dtypes else array.dtypes[0]
        found[name] = ArrayInfo(shape=[size, *array.shape], dtype=dtype)
    return found


def _moved(skipped: Skipped, start: int) -> Skipped:
    return skipped.model_copy(update={"row": skipped.row - start})
