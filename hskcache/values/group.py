"""Arrays of a shard as a Zarr group in memory."""

from typing import Any

from hskcache.errors import DataError
from hskcache.rows import Arrays
from hskcache.store.archive import read_archive
from hskcache.store.dimensions import dimension_names
from hskcache.store.shard import pack_shard


def group(arrays: Arrays) -> Any:
    """A ``zarr.Group`` of them, read-only, laid out as a shard's file is. Raises DataError if zarr is missing."""
    try:
        import zarr
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import MemoryStore
    except ImportError:
        raise DataError("a Zarr group needs the package zarr; install it with: pip install 'zarr>=3.1'") from None
    data = pack_shard(arrays, dimension_names({name: array.ndim for name, array in arrays.items()}))
    entry = default_buffer_prototype().buffer.from_bytes
    entries = {name: entry(content.tobytes()) for name, content in read_archive(data).items()}
    return zarr.open_group(MemoryStore(entries, read_only=True), mode="r")
