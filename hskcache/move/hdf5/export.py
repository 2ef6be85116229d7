"""Export of a cache to an HDF5 file, a shard at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hskcache import disk
from hskcache.cache import Cache, open_cache
from hskcache.describe import DESCRIPTIONS
from hskcache.move.hdf5.describe import dataset_attributes, file_attributes
from hskcache.move.hdf5.layout import (
    BESIDE_DIGEST,
    DIGESTS,
    INDEX,
    LAYOUT_VERSION,
    MANIFEST,
    README,
    ROWS,
    DatasetGroup,
    StoredDataset,
    beside_sha256,
    blocks,
    content_sha256,
    derived,
    derived_arrays,
)
from hskcache.move.hdf5.reading import manifest_of
from hskcache.move.hdf5.sink import Sink
from hskcache.move.whole import OnProgress, Written, is_written, replacing
from hskcache.store.beside import Beside, read_beside
from hskcache.store.ledger import TOKENIZER
from hskcache.store.record import CONSTANTS

Compression = Literal["gzip", "lzf", "none"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)

# A row is read by whole chunks, and every chunk costs an entry of an index, which takes 2 kB even of one. A dataset
# keeps the chunk that it is in the middle of, which the next shard goes on with, in a memory of its own.
_LEAST_BYTES = 4 << 10
_CHUNK_BYTES = 512 << 10
_CHUNK_MEMORY_BYTES = 2 * _CHUNK_BYTES


def export_hdf5(
    root: Path,
    target: Path,
    compression: Compression = "gzip",
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Written:
    """Write a cache to one HDF5 file, every shard verified; a finished file of the same cache is left alone.

    Args:
        root: the cache's directory.
        target: the file.
        compression: of the datasets; ``gzip`` is what every HDF5 reads, ``lzf`` is known to h5py alone.
        force: replace whatever stands there.
        on_progress: told of the bytes of shards.

    Raises:
        CacheError: there is no complete cache, or the file cannot be written.
        DamageError: a file of the cache is missing or altered.
        MismatchError: something else stands at ``target``.
    """
    beside, cache = read_beside(root), open_cache(root)
    if not force and is_written(target, beside.manifest, manifest_of):
        return Written(beside.manifest, was_there=True)
    layout = blocks(beside.manifest)
    raw = sum(stored.num_bytes for block in layout for stored in block.arrays.values())
    packed = beside.manifest.num_bytes
    need = raw if compression == "none" else min(raw, packed)
    disk.require_space(target, need, f"{target} needs about", "export to another disk", "file")
    with disk.writing_to(target, "the beginning"), replacing(target) as partial, Sink(partial) as sink:
        with _created(sink) as file:
            _Writer(file, compression, on_progress, sink).write(cache, beside, layout)
        sink.finish()
    return Written(beside.manifest, was_there=False)


class _Writer:
    """Writes the datasets of a file."""

    def __init__(self, file: Any, compression: Compression, on_progress: OnProgress | None, sink: Sink) -> None:
        self._file = file
        self._sink = sink
        self._compression = compression
        self._on_progress = on_progress

    def write(self, cache: Cache, beside: Beside, layout: list[DatasetGroup]) -> None:
        """Everything; fields one after the other, and of each a shard at a time."""
        manifest = beside.manifest
        self._file.attrs.update(file_attributes(manifest, LAYOUT_VERSION))
        self._content(MANIFEST, beside.data)
        for page in manifest.index:
            self._content(f"{INDEX}/{page.path}", page.read())
        if beside.readme is not None:
            self._content(README, beside.readme)
        self._content(BESIDE_DIGEST, beside_sha256(beside.data, beside.readme))
        for name, data in beside.tokenizer.items():
            self._content(f"{TOKENIZER}/{name}", data)
        for name, field in manifest.fields.items():
            self._file.require_group(name).attrs.update(DESCRIPTIONS[field.kind].attributes(field))
        total = manifest.num_bytes
        digests = [digest for block in layout for digest in self._block(cache, block, total)]
        self._array(ROWS, np.array(cache.shards, np.int64).reshape(-1, 2))
        self._array(DIGESTS, np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32))

    def _block(self, cache: Cache, block: DatasetGroup, total: int) -> Iterator[bytes]:
        """Write the shards of a block; digests of their content."""
        field = cache.fields[block.name]
        kinds = block.arrays | derived(block, field)
        is_constant = any(record.shard == CONSTANTS for record in block.records)
        datasets = {name: self._dataset(stored) for name, stored in kinds.items()}
        for name, dataset in datasets.items():
            dataset.attrs.update(dataset_attributes(field, name, kinds[name], is_constant))
        ends = dict.fromkeys(kinds, 0)
        for index, record in enumerate(block.records):
            arrays = cache.constants(record.field) if is_constant else cache.read(record.field, record.shard)
            yield content_sha256(arrays)
            for name, array in (arrays | ({} if is_constant else derived_arrays(field, arrays))).items():
                first, last = kinds[name].span(index)
                # Offsets go on where those of the shard before end.
                datasets[name][first:last] = array + ends[name] if kinds[name].is_offsets else array
                ends[name] += int(array[-1]) if kinds[name].is_offsets else 0
            self._sink.check()
            if self._on_progress is not None:
                self._on_progress(record.num_bytes, total)

    def _content(self, path: str, data: bytes) -> None:
        self._array(path, np.frombuffer(data, np.uint8))

    def _array(self, path: str, array: NDArray[Any]) -> None:
        self._dataset(StoredDataset(path, array.shape, array.dtype.name, []))[...] = array

    def _dataset(self, stored: StoredDataset) -> Any:
        """A new dataset; what is small has no chunks and is not compressed."""
        settings: dict[str, Any] = {}
        if self._compression != "none" and stored.num_bytes >= _LEAST_BYTES:
            row_bytes = stored.num_bytes // stored.shape[0]
            settings["chunks"] = (max(1, min(stored.shape[0], _CHUNK_BYTES // row_bytes)), *stored.shape[1:])
            settings["compression"] = self._compression
            settings["shuffle"] = np.dtype(stored.dtype).itemsize > 1
            if self._compression == "gzip":
                settings["compression_opts"] = 1
        dtype = np.dtype(stored.dtype).newbyteorder("<")
        return self._file.create_dataset(stored.path, stored.shape, dtype, track_times=False, **settings)


@contextmanager
def _created(sink: Sink) -> Iterator[Any]:
    """A new HDF5 file that old libraries read, too."""
    import h5py

    try:
        with h5py.File(sink, "w", libver=("earliest", "v110"), rdcc_nbytes=_CHUNK_MEMORY_BYTES) as file:
            yield file
    except Exception:
        # What the library stumbles over after a write has failed is not the reason.
        sink.check()
        raise
