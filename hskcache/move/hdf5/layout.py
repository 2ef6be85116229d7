"""Datasets of a cache's HDF5 file, and the part of each that is each shard's."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import DamageError, MismatchError
from hskcache.store.fields import AXES, OFFSETS, StoredField, kind_of
from hskcache.store.files import canonical_json
from hskcache.store.grid import DTYPES, MAX_SHARD_BYTES
from hskcache.store.manifest import Manifest
from hskcache.store.record import CONSTANTS, ArrayInfo, Record

LAYOUT_VERSION = 1

# A dot or a leading _ is in no field's name, so these stand in no field's way.
MANIFEST = "manifest.json"
README = "README.md"
ROWS = "_shards/rows"
DIGESTS = "_shards/sha256"
BESIDE_DIGEST = "_shards/beside_sha256"
INDEX = "_index"
"""Group of the pages of records, by their paths within the cache."""


class StoredDataset(NamedTuple):
    """A dataset: one array of a field, the entries of all shards one after the other.

    Attributes:
        path: within the file.
        shape: of the whole.
        dtype: numpy's name.
        starts: where each shard begins along the first axis, and where the last ends.
        is_offsets: whether it divides other arrays into rows: then a shard shares its last entry with the next.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    starts: list[int]
    is_offsets: bool = False

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def span(self, index: int) -> tuple[int, int]:
        """Entries [first, last) along the first axis of one shard."""
        return self.starts[index], self.starts[index + 1] + self.is_offsets


class DatasetGroup(NamedTuple):
    """The shards of a field, or its constants alone.

    Attributes:
        name: of the field.
        path: of the group.
        records: of the shards.
        arrays: datasets by the names that the arrays have in a shard.
    """

    name: str
    path: str
    records: list[Record]
    arrays: dict[str, StoredDataset]


def blocks(manifest: Manifest) -> list[DatasetGroup]:
    """Blocks of the file; the records of all, one after the other, are those of the manifest.

    Raises:
        MismatchError: shards of a field hold arrays that do not fit together.
        DamageError: a shard claims to hold what none can.
    """
    constants = [_block(name, f"{name}/constants", [record], [0, 0]) for name, record in manifest.constants.items()]
    rows = [0, *(stop for _, stop in manifest.request.shards)]
    return [*constants, *(_block(name, name, list(records), rows) for name, records in manifest.shards.items())]


def derived_name(axis: str) -> str:
    """Offsets of an axis that HDF5 alone has, because every reader would otherwise compute them."""
    return f"{axis}_offsets"


def derived_arrays(field: StoredField, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.int64]]:
    """Offsets of a shard that follow from its others, int64 [n + 1] each; most kinds have none."""
    kind = kind_of(field)
    derived = {}
    for axis in kind.derived:
        counts = kind.entries(field, axis, np.diff(arrays[AXES[axis] or ""]))
        derived[derived_name(axis)] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return derived


def derived(block: DatasetGroup, field: StoredField) -> dict[str, StoredDataset]:
    """Datasets of :func:`derived_arrays`."""
    stored = {axis: block.arrays.get(AXES[axis] or "") for axis in kind_of(field).derived}
    return {
        derived_name(axis): like._replace(path=f"{block.path}/{derived_name(axis)}")
        for axis, like in stored.items()
        if like is not None
    }


def content_sha256(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """SHA-256 over the arrays of a shard, whatever compresses them.

    For each array in the order of names: canonical JSON of [name, dtype, shape], then its entries, little-endian and
    in C order.
    """
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(canonical_json([name, array.dtype.name, list(array.shape)]))
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return digest.digest()


def beside_sha256(data: bytes, readme: bytes | None) -> bytes:
    """SHA-256 over manifest.json and README.md, one after the other; the tokenizer's is in the manifest."""
    return hashlib.sha256(data + (readme or b"")).digest()


def place(record: Record) -> str:
    """Name of a shard in messages."""
    return f"{record.field} " + ("constants" if record.shard == CONSTANTS else f"shard {record.shard}")


def _block(name: str, path: str, records: list[Record], rows: list[int]) -> DatasetGroup:
    for record in records:
        _check_sizes(record)
    names = records[0].arrays if records else {}
    arrays = {
        array: _stored(f"{path}/{array}", array, [record.arrays[array] for record in records], rows) for array in names
    }
    return DatasetGroup(name, path, records, arrays)


def _stored(path: str, name: str, infos: Sequence[ArrayInfo], rows: list[int]) -> StoredDataset:
    kinds = {(info.dtype, *info.shape[1:]) for info in infos}
    if len(kinds) > 1:
        raise MismatchError(f"{path} is not of one type and width in all shards, so it is no single dataset")
    if name in OFFSETS:
        return StoredDataset(path, (rows[-1] + 1,), infos[0].dtype, rows, is_offsets=True)
    starts = list(accumulate((info.shape[0] for info in infos), initial=0))
    return StoredDataset(path, (starts[-1], *infos[0].shape[1:]), infos[0].dtype, starts)


def _check_sizes(record: Record) -> None:
    """Raise unless a shard which a stranger's manifest describes can be one, before memory is taken for it."""
    total = 0
    for name, info in record.arrays.items():
        if info.dtype not in DTYPES or not info.shape or any(not 0 <= size <= MAX_SHARD_BYTES for size in info.shape):
            raise DamageError(f"{place(record)} claims an absurd array {name}: {info.dtype:.20} {info.shape!s:.80}")
        if any(part in {"", ".", ".."} for part in name.split("/")):
            raise DamageError(f"{place(record)} claims an array {name!r:.80}, which is no name")
        total += math.prod(info.shape) * np.dtype(info.dtype).itemsize
    if total > MAX_SHARD_BYTES:
        raise DamageError(f"{place(record)} claims to hold {total} bytes, and a shard holds {MAX_SHARD_BYTES} at most")
