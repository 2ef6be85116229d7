"""Shards of a cache, read and verified."""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hskcache.errors import DamageError
from hskcache.store.archive import spans
from hskcache.store.fields import StoredField, check_offsets
from hskcache.store.files import opened, sha256_hex
from hskcache.store.grid import check_memory
from hskcache.store.record import ArrayInfo, NamedRecord, Record
from hskcache.store.shard import unpack_array, unpack_shard
from hskcache.system import read_at

MOST_REMEMBERED = 1 << 16
"""Files whose digests a process remembers; of more, those that were read longest ago are hashed again."""

# The coarsest steps in which a file system in use counts time: those of FAT.
_STEP_NS = 2_000_000_000


def read_shard(
    path: Path, record: Record, field: StoredField, names: Collection[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Read a shard with one read of its file, and verify all of it.

    Args:
        path: the file.
        record: what the manifest says of it.
        field: that it belongs to.
        names: arrays to decode; None decodes all.

    Raises:
        DamageError: the file is missing or not what the record says. The message tells what is wrong without naming
            the file; the caller knows how the user calls it.
    """
    with _File(path, record.num_bytes).opened() as file:
        data = file.part(0, record.num_bytes)
    return shard_of(data, record, field, names)


def shard_of(
    data: bytes, record: Record, field: StoredField, names: Collection[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Arrays of a shard from the bytes of its file, as :func:`read_shard` gives and refuses them."""
    _check_digest(data, record.sha256)
    arrays = unpack_shard(data, names)
    if isinstance(record, NamedRecord):
        _check_places(data, record, arrays)
    return checked(arrays, record, field, names)


def reread_shard(
    path: Path, record: Record, field: StoredField, names: Collection[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Read a shard as :func:`read_shard` does, but no more of it than is wanted and hashing nothing twice.

    Where the record tells in which part of the file each array is, the parts of those that are wanted are read and
    verified. Whoever reads a cache epoch after epoch hashes each part once, as long as the file does not change. The
    checksums of the chunks are compared every time.

    Args:
        path: the file.
        record: what the manifest says of it.
        field: that it belongs to.
        names: arrays to decode; None decodes all.

    Raises:
        DamageError: as :func:`read_shard`.
    """
    if isinstance(record, NamedRecord) and names is not None:
        arrays = reread_part(path, (0, record.num_bytes), record, names)
    else:
        with _File(path, record.num_bytes).opened() as file:
            arrays = unpack_shard(file.verified(0, record.num_bytes, record.sha256), names)
    return checked(arrays, record, field, names)


def reread_part(
    path: Path, span: tuple[int, int], record: NamedRecord, names: Collection[str]
) -> dict[str, NDArray[Any]]:
    """Read those of some arrays of a shard that a part of its file holds, as :func:`reread_shard` does.

    Args:
        path: a file that holds the part and nothing else.
        span: the part, bytes [start, stop) of the shard's file.
        record: what the manifest says of the shard.
        names: arrays that are wanted of it, of this part and others.

    Raises:
        DamageError: as :func:`read_shard`, but for how arrays divide the rows, which :func:`checked` sees.
    """
    start, stop = span
    check_memory(sum(record.arrays[name].memory_bytes for name in names), record.num_bytes)
    arrays = {}
    with _File(path, stop - start).opened() as file:
        for name in names:
            info = record.arrays[name]
            if start <= info.offset and info.offset + info.num_bytes <= stop:
                arrays[name] = unpack_array(file.verified(info.offset - start, info.num_bytes, info.sha256), name)
                # Each at once: all of them, other than they are said to be, could take more memory than there is.
                _check_array(arrays[name], info)
    return arrays


class _State(NamedTuple):
    """A file as it was when it was read; any change to its content changes one of these."""

    path: str
    device: int
    inode: int
    num_bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> "_State":
        return cls(str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(MOST_REMEMBERED)
def _digests(_state: _State) -> set[str]:
    """The digests that a file, or parts of it, were found to have; empty until it is hashed.

    The table belongs to the interpreter, which lets threads share it, and no lock of it can be held across a fork.
    """
    return set()


def _is_settled(status: os.stat_result) -> bool:
    """True if a write after the one before would be seen in the times of a file, which advance in steps."""
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _STEP_NS


class _File:
    """The file of a shard, while it is read."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        self._path = path
        self._num_bytes = num_bytes
        self._descriptor = -1

    @contextmanager
    def opened(self) -> Iterator["_File"]:
        try:
            with opened(self._path) as (self._descriptor, status):
                if status.st_size != self._num_bytes:
                    raise DamageError(f"has {status.st_size} bytes where {self._num_bytes} were written")
                yield self
        except (FileNotFoundError, NotADirectoryError):
            raise DamageError("is missing") from None

    def part(self, offset: int, num_bytes: int) -> bytes:
        """Bytes of the file; fewer than asked for where it is cut short meanwhile."""
        pieces, end = [], offset + num_bytes
        while offset < end and (piece := read_at(self._descriptor, end - offset, offset)):
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def verified(self, offset: int, num_bytes: int, sha256: str) -> bytes:
        """Bytes of the file, which have this digest, known from before or computed now."""
        data = self.part(offset, num_bytes)
        # As it is after the last byte was read.
        status = os.fstat(self._descriptor)
        hashed, known = _digests(_State.of(self._path, status)), f"{offset} {num_bytes} {sha256}"
        if known not in hashed:
            _check_digest(data, sha256)
            if _is_settled(status):
                hashed.add(known)
        return data


def _check_digest(data: bytes, sha256: str) -> None:
    if sha256_hex(data) != sha256:
        raise DamageError("has another content than was written: its SHA-256 differs")


def _check_places(data: bytes, record: NamedRecord, names: Collection[str]) -> None:
    """Raise unless all arrays are where a record says, and those of these names are the same."""
    places = spans(data, {f"{name}/" for name in record.arrays})
    for name, info in record.arrays.items():
        start, stop = info.offset, info.offset + info.num_bytes
        if places.get(f"{name}/") != (start, stop) or (name in names and sha256_hex(data[start:stop]) != info.sha256):
            raise DamageError(f"holds {name} elsewhere, or another, than its record says")


def _check_array(array: NDArray[Any], info: ArrayInfo) -> None:
    if (list(array.shape), array.dtype.name) != (info.shape, info.dtype):
        raise DamageError("holds other arrays than its record says")


def checked(
    arrays: dict[str, NDArray[Any]], record: Record, field: StoredField, names: Collection[str] | None
) -> dict[str, NDArray[Any]]:
    """Arrays of a shard that are those of its record, divided into rows as they should be.

    Raises:
        DamageError: they are not; does not name the file.
    """
    if arrays.keys() != (record.arrays.keys() if names is None else set(names)):
        raise DamageError("holds other arrays than its record says")
    for name, array in arrays.items():
        _check_array(array, record.arrays[name])
    check_offsets(field, record, arrays)
    return arrays
