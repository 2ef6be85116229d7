"""Import of an HDF5 file as a cache, a shard at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import DamageError, MismatchError
from hskcache.move.arrival import Arrival, arriving
from hskcache.move.hdf5.layout import DIGESTS, DatasetGroup, StoredDataset, blocks, content_sha256, place
from hskcache.move.hdf5.reading import Hdf5File, opened
from hskcache.move.whole import OnProgress
from hskcache.store.content import check_content
from hskcache.store.fields import check_offsets, check_positions, check_words
from hskcache.store.files import sha256_hex
from hskcache.store.manifest import Manifest
from hskcache.store.record import CONSTANTS, Record
from hskcache.versions import version_of

_PACKER = "numcodecs"


class Imported(NamedTuple):
    """A cache that came out of an HDF5 file.

    Attributes:
        manifest: of the cache.
        exported_id: of the cache that was exported; another one only where a new id was asked for.
        num_written: shards that were written.
        num_kept: shards that already stood there.
    """

    manifest: Manifest
    exported_id: str
    num_written: int
    num_kept: int


def import_hdf5(path: Path, root: Path, new_id: bool = False, on_progress: OnProgress | None = None) -> Imported:
    """Write the cache that an HDF5 file was exported from; shards that already stand in the folder are kept.

    Args:
        path: the file.
        root: the folder: new, empty, or where the same import was begun.
        new_id: accept that shards of the same values come out in other bytes here, and name the cache anew.
        on_progress: told of the bytes of shards.

    Raises:
        DamageError: the file is no export of a cache, or damaged; names the dataset or the shard. What was whole stays
            in the folder.
        MismatchError: the folder holds another cache, or something else; or shards come out in other bytes, because
            another version of the library compresses them.
        CacheError: the folder cannot be written.
    """
    with opened(path) as source:
        manifest, data = source.manifest()
        layout = blocks(manifest)
        taking = _Taking(source, path, manifest, new_id)
        total = manifest.num_bytes
        with arriving(root, manifest) as arrival:
            try:
                arrival.put_beside(source.beside(manifest, data))
            except DamageError as error:
                raise DamageError(_named(path, error)) from None
            records = []
            for record, block, index in _shards(layout):
                records.append(taking.take(arrival, block, index))
                if on_progress is not None:
                    on_progress(record.num_bytes, total)
            if records != list(manifest.records):
                manifest, data = _renamed(manifest, records)
            landed = arrival.finish(data, manifest)
    return Imported(manifest, taking.exported_id, landed.num_written, landed.num_kept)


class _Taking:
    """Takes shards out of an open file."""

    def __init__(self, source: Hdf5File, path: Path, manifest: Manifest, new_id: bool) -> None:
        self.exported_id = manifest.cache_id
        self._source = source
        self._path = path
        self._manifest = manifest
        self._new_id = new_id
        count = manifest.num_records
        self._digests = source.entries(StoredDataset(DIGESTS, (count, 32), "uint8", []), 0, count)
        self._numbers = {(record.field, record.shard): number for number, record in enumerate(manifest.records)}

    def take(self, arrival: Arrival, block: DatasetGroup, index: int) -> Record:
        """Put one shard in place; its record, which is another one only if that was allowed."""
        record = block.records[index]
        if arrival.keeps(record):
            return record
        arrays = {name: self._entries(stored, index) for name, stored in block.arrays.items()}
        data = self._manifest.format.pack(arrays, record.sha256)
        if sha256_hex(data) != record.sha256:
            self._check_content(record, arrays)
            record = self._manifest.format.record(data, record.facts)
            if arrival.keeps(record):
                return record
        arrival.put_shard(record, data)
        arrival.put_record(record)
        return record

    def _entries(self, stored: StoredDataset, index: int) -> NDArray[Any]:
        """A shard's part of a dataset; its offsets begin at 0 again."""
        entries = self._source.entries(stored, *stored.span(index))
        return entries - entries[0] if stored.is_offsets else entries

    def _check_content(self, record: Record, arrays: dict[str, NDArray[Any]]) -> None:
        """Tell damage from the same values in other bytes, and see that those can be a shard."""
        number = self._numbers[record.field, record.shard]
        if content_sha256(arrays) != self._digests[number].tobytes():
            raise DamageError(
                f"{self._path} is damaged: {place(record)} holds other values than were exported; copy or export it "
                "again and give the same command, which keeps what is whole"
            )
        if not self._new_id:
            made, here = self._manifest.environment.get(_PACKER, "of an unknown version"), version_of(_PACKER)
            raise MismatchError(
                f"{self._path}: {place(record)} holds the values that were exported, but {_PACKER} {here} here "
                f"compresses them to other bytes than {_PACKER} {made} did, so the cache cannot have the id "
                f"{self.exported_id[:12]}; install that version, or give --new-id"
            )
        try:
            field = self._manifest.fields[record.field]
            check_offsets(field, record, arrays)
            check_content(self._manifest.request, field, arrays)
            if "position_offsets" in arrays:
                check_positions(arrays, np.diff(self._offsets(record, "row_offsets")))
            if getattr(field, "of_words", False):
                begin = self._offsets(record, "position_offsets")
                check_words(field, arrays, begin - begin[0])
        except DamageError as error:
            raise DamageError(f"{self._path} is damaged: {place(record)}: {error}") from None

    def _offsets(self, record: Record, name: str) -> NDArray[np.int64]:
        """Beginning of the tokens, or words, of each row of a shard in the whole file, int64 [n + 1]."""
        rows = self._manifest.request.num_rows
        stored = StoredDataset(f"inputs/{name}", (rows + 1,), "int64", [])
        return self._source.entries(stored, record.start, record.stop + 1)


def _shards(layout: list[DatasetGroup]) -> Iterator[tuple[Record, DatasetGroup, int]]:
    for block in layout:
        for index, record in enumerate(block.records):
            yield record, block, index


def _renamed(manifest: Manifest, records: list[Record]) -> tuple[Manifest, bytes]:
    """The manifest of the same values in other bytes."""
    changes = {
        "constants": {record.field: record for record in records if record.shard == CONSTANTS},
        "environment": manifest.environment | {_PACKER: version_of(_PACKER)},
    }
    shards = {
        name: [one for one in records if one.field == name and one.shard != CONSTANTS] for name in manifest.fields
    }
    renamed = manifest.with_records(shards).model_copy(update=changes).signed()
    return renamed, renamed.to_json()


def _named(path: Path, error: DamageError) -> str:
    text = str(error)
    return text if text.startswith(str(path)) else f"{path} {text}"
