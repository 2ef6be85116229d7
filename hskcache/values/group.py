"""Arrays of a shard as a Zarr group in memory."""

from typing import Any

from hskcache.errors import DataError
from hskcache.rows import Arrays
from hskcache.store.archive import read_archive
from hskcache.store.version2 import VERSION_2


def group(arrays: Arrays) -> Any:
    """A ``zarr.Group`` of them, read-only, laid out as a shard's file is. Raises DataError if zarr is missing."""
    try:
        import zarr
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import MemoryStore
    except ImportError:
        raise DataError("a Zarr group needs the package zarr; install it with: pip install 'hskcache[share]'") from None
    entry = default_buffer_prototype().buffer.from_bytes
    entries = {name: entry(content.tobytes()) for name, content in read_archive(VERSION_2.pack(arrays)).items()}
    return zarr.open_group(MemoryStore(entries, read_only=True), mode="r")
