"""Export of a cache to one Zarr group, whose arrays hold the rows of all shards one after the other, as HDF5's do.

Any implementation of Zarr v3 reads it. It is for others to read and is not read back: what proves the shards stays in
the cache.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache import disk
from hskcache.cache import Cache, open_cache
from hskcache.describe import DESCRIPTIONS
from hskcache.move.hdf5.describe import dataset_attributes, file_attributes
from hskcache.move.hdf5.layout import LAYOUT_VERSION, DatasetGroup, StoredDataset, blocks, derived, derived_arrays
from hskcache.move.whole import OnProgress, Written, replacing_folder, stands
from hskcache.store.beside import read_beside
from hskcache.store.fields import StoredField, kind_of
from hskcache.store.ledger import TOKENIZER
from hskcache.store.meaning import attributes, dimensions
from hskcache.store.record import CONSTANTS

# What is read at once to get at one entry, and the file that such chunks share.
_CHUNK_BYTES = 256 << 10
_FILE_BYTES = 32 << 20


def export_zarr(root: Path, target: Path, force: bool = False, on_progress: OnProgress | None = None) -> Written:
    """Write a cache to a folder that is one Zarr v3 group, every shard verified; one of the same cache is left alone.

    Args:
        root: the cache's directory.
        target: the folder.
        force: replace the export of another cache.
        on_progress: told of the bytes of shards.

    Raises:
        CacheError: there is no complete cache, or the folder cannot be written.
        DamageError: a file of the cache is missing or altered.
        MismatchError: something else stands at ``target``.
    """
    beside, cache = read_beside(root), open_cache(root)
    if stands(target, cache.id, force, _exported, "Zarr group of a cache"):
        return Written(beside.manifest, was_there=True)
    disk.require_space(target, beside.manifest.num_bytes, f"{target} needs about", "export to another disk", "folder")
    with disk.writing_to(target, "the beginning"), replacing_folder(target) as partial:
        writer = _GroupWriter(partial, cache, on_progress)
        for block in blocks(cache.manifest):
            writer.write(block)
        for name, data in beside.tokenizer.items():
            path = partial / TOKENIZER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return Written(beside.manifest, was_there=False)


def _exported(target: Path) -> str | None:
    """Id of the cache that a folder is the export of; None if it is something else."""
    import zarr

    try:
        found: Mapping[str, Any] = zarr.open_group(target, mode="r", zarr_format=3).attrs
    except (OSError, ValueError, KeyError, TypeError):
        return None
    named = found.get("cache_id")
    return named if found.get("format") == "hskcache" and isinstance(named, str) else None


class _GroupWriter:
    """Writes the arrays of a group, field after field and of each a shard at a time."""

    def __init__(self, folder: Path, cache: Cache, on_progress: OnProgress | None) -> None:
        import zarr

        self._root = zarr.open_group(folder, mode="w-", zarr_format=3)
        self._root.attrs.update(_plain(file_attributes(cache.manifest, LAYOUT_VERSION)))
        for name, field in cache.fields.items():
            self._root.require_group(name).attrs.update(_plain(DESCRIPTIONS[field.kind].attributes(field)))
        self._cache = cache
        self._on_progress = on_progress

    def write(self, block: DatasetGroup) -> None:
        """The shards of a field, or its constants."""
        cache, field = self._cache, self._cache.fields[block.name]
        is_constant = any(record.shard == CONSTANTS for record in block.records)
        wanted = block.arrays | ({} if is_constant else derived(block, field))
        arrays = {name: self._array(field, name, stored, is_constant) for name, stored in wanted.items()}
        for index, record in enumerate(block.records):
            entries = cache.constants(record.field) if is_constant else cache.read(record.field, record.shard)
            entries |= {} if is_constant else derived_arrays(field, entries)
            for name, array in arrays.items():
                array.append(entries[name], index)
            if self._on_progress is not None:
                self._on_progress(record.num_bytes, cache.manifest.num_bytes)
        for array in arrays.values():
            array.finish()

    def _array(self, field: StoredField, name: str, stored: StoredDataset, is_constant: bool) -> "_Growing":
        meaning = kind_of(field).meanings.get((name.rpartition("/")[2], len(stored.shape)))
        told = dataset_attributes(field, name, stored, is_constant)
        if meaning is not None:
            told |= attributes(name, stored.dtype, meaning)
        entry_bytes = max(1, math.prod(stored.shape[1:]) * np.dtype(stored.dtype).itemsize)
        chunk = max(1, min(stored.shape[0], _CHUNK_BYTES // entry_bytes))
        of_file = chunk * max(1, min(-(-stored.shape[0] // chunk), _FILE_BYTES // (chunk * entry_bytes)))
        rest = tuple(max(1, size) for size in stored.shape[1:])
        array = self._root.create_array(
            stored.path, shape=stored.shape, dtype=stored.dtype, chunks=(chunk, *rest), shards=(of_file, *rest),
            dimension_names=meaning and dimensions(name, stored.dtype, meaning), attributes=told,
        )  # fmt: skip
        return _Growing(array, of_file, stored.is_offsets)


class _Growing:
    """An array that is written file by file, whatever the pieces that it comes in."""

    def __init__(self, array: Any, file_entries: int, is_offsets: bool) -> None:
        self._array = array
        self._step = file_entries
        self._is_offsets = is_offsets
        self._end, self._at, self._num_waiting = 0, 0, 0
        self._waiting: list[NDArray[Any]] = []

    def append(self, entries: NDArray[Any], shard: int) -> None:
        """The entries of the next shard; offsets go on where those of the shard before end."""
        if self._is_offsets:
            last = int(entries[-1])
            entries = (entries[1:] if shard else entries) + self._end
            self._end += last
        self._waiting.append(entries)
        self._num_waiting += len(entries)
        if self._num_waiting >= self._step:
            self._flush(self._num_waiting // self._step * self._step)

    def finish(self) -> None:
        """Write the rest."""
        self._flush(self._num_waiting)

    def _flush(self, count: int) -> None:
        if not count:
            return
        joined = np.concatenate(self._waiting)
        self._array[self._at : self._at + count] = joined[:count]
        self._at += count
        self._waiting, self._num_waiting = [joined[count:]], len(joined) - count


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in attributes.items()}
