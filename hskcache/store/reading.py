"""Files of a cache, read and verified: shards, and the documents beside them."""

import os
import time
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hskcache.errors import DamageError
from hskcache.store.fields import Field, check_offsets
from hskcache.store.files import read_file, read_with_status, sha256_hex
from hskcache.store.record import Record, describe
from hskcache.store.shard import unpack_shard

MAX_DOCUMENT_BYTES = 512 << 20
"""Of a manifest: a record takes about 1 kB of it, so that 100,000 shards of four fields still fit."""
MOST_REMEMBERED = 1 << 16
"""Files whose digests a process remembers; of more, those that were read longest ago are hashed again."""

# The coarsest steps in which a file system in use counts time: those of FAT.
_STEP_NS = 2_000_000_000


def read_shard(
    path: Path, record: Record, field: Field, names: Collection[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Read a shard with one read of its file, and verify it.

    Args:
        path: the file.
        record: what the manifest says of it.
        field: that it belongs to.
        names: arrays to decode; None decodes all.

    Raises:
        DamageError: the file is missing or not what the record says. The message tells what is wrong without naming
            the file; the caller knows how the user calls it.
    """
    data, _ = _read(path, record.num_bytes)
    _check_digest(data, record)
    return _unpack(data, record, field, names)


def reread_shard(
    path: Path, record: Record, field: Field, names: Collection[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Read a shard as :func:`read_shard` does, without hashing a file twice that has not changed in between.

    Whoever reads a cache epoch after epoch hashes each file once. The checksums of the chunks are compared every time.

    Args:
        path: the file.
        record: what the manifest says of it.
        field: that it belongs to.
        names: arrays to decode; None decodes all.

    Raises:
        DamageError: as :func:`read_shard`.
    """
    data, status = _read(path, record.num_bytes)
    hashed = _digests(_State.of(path, status))
    if record.sha256 not in hashed:
        _check_digest(data, record)
        if _is_settled(status):
            hashed.add(record.sha256)
    return _unpack(data, record, field, names)


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
    """The digests that a file was found to have; empty until it is hashed.

    The table belongs to the interpreter, which lets threads share it, and no lock of it can be held across a fork.
    """
    return set()


def _is_settled(status: os.stat_result) -> bool:
    """Whether a write after the one before would be seen in the times of a file, which advance in steps."""
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _STEP_NS


def _check_digest(data: bytes, record: Record) -> None:
    if sha256_hex(data) != record.sha256:
        raise DamageError("has another content than was written: its SHA-256 differs")


def _unpack(data: bytes, record: Record, field: Field, names: Collection[str] | None) -> dict[str, NDArray[Any]]:
    arrays = unpack_shard(data, names)
    if describe(arrays) != {name: info for name, info in record.arrays.items() if names is None or name in names}:
        raise DamageError("holds other arrays than its record says")
    check_offsets(field, record, arrays)
    return arrays


def _read(path: Path, num_bytes: int) -> tuple[bytes, os.stat_result]:
    try:
        if (size := path.lstat().st_size) != num_bytes and path.is_file() and not path.is_symlink():
            raise DamageError(f"has {size} bytes where {num_bytes} were written")
        return read_with_status(path, num_bytes)
    except (FileNotFoundError, NotADirectoryError):
        raise DamageError("is missing") from None


def read_document(path: Path) -> bytes:
    """One of the cache's JSON files.

    Raises:
        DamageError: it is no regular file, or absurdly large; names it.
        OSError: it is missing or cannot be read.
    """
    try:
        return read_file(path, MAX_DOCUMENT_BYTES)
    except DamageError as error:
        raise DamageError(f"{path} {error}") from None
