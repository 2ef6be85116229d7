"""Files of a cache, read and verified: shards, and the documents beside them."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hskcache.errors import DamageError
from hskcache.store.fields import Field, check_offsets
from hskcache.store.files import read_file, sha256_hex
from hskcache.store.record import Record, describe
from hskcache.store.shard import unpack_shard

MAX_DOCUMENT_BYTES = 512 << 20
"""Of a manifest: a record takes about 1 kB of it, so that 100,000 shards of four fields still fit."""


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
    data = _read(path, record.num_bytes)
    if sha256_hex(data) != record.sha256:
        raise DamageError("has another content than was written: its SHA-256 differs")
    arrays = unpack_shard(data, names)
    if describe(arrays) != {name: info for name, info in record.arrays.items() if names is None or name in names}:
        raise DamageError("holds other arrays than its record says")
    check_offsets(field, record, arrays)
    return arrays


def _read(path: Path, num_bytes: int) -> bytes:
    try:
        if (size := path.lstat().st_size) != num_bytes and path.is_file() and not path.is_symlink():
            raise DamageError(f"has {size} bytes where {num_bytes} were written")
        return read_file(path, num_bytes)
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
