"""Documents of a shard: what the ``zarr.json`` of each of its arrays and groups says, and what is refused.

Shapes of a stranger's shard are believed by nobody: a document is word for word of the form that is written here, and
nothing is allocated before all of them are known to be right.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from hskcache.errors import DamageError
from hskcache.spec import CodecName
from hskcache.store.archive import Bytes
from hskcache.store.codec import CODECS, DEFAULT_CODEC

MAX_SHARD_BYTES = 4 << 30
MAX_EXPANSION = 256
"""Multiple of its file's size that a shard may take in memory, where that is more than ``HARMLESS_BYTES``."""
HARMLESS_BYTES = 256 << 20
DTYPES = frozenset(
    {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"}
)

GROUP = {"attributes": {}, "node_type": "group", "zarr_format": 3}
DOCUMENT = "zarr.json"


class Grid(NamedTuple):
    """Shape, type, chunks and codec of one array, and what is told of it; chunks split the first axis alone."""

    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    names: tuple[str, ...] | None = None
    codec: CodecName = DEFAULT_CODEC
    attributes: Mapping[str, str] = {}

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk, in which no axis has the length 0."""
        return (self.chunk_rows, *(max(1, size) for size in self.shape[1:]))

    @property
    def num_bytes(self) -> int:
        """Bytes in memory, decompressed."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def num_chunks(self) -> int:
        """Chunks that the array is stored in; none where it holds nothing."""
        return -(-self.shape[0] // self.chunk_rows) if self.num_bytes else 0

    def keys(self, name: str) -> list[str]:
        """Entries of the chunks, in the order of the first axis."""
        rest = "/0" * (len(self.shape) - 1)
        return [f"{name}/c/{index}{rest}" for index in range(self.num_chunks)]

    def document(self, codec: Mapping[str, Any]) -> dict[str, Any]:
        """The array's ``zarr.json``, with what it says of its codec."""
        wide = np.dtype(self.dtype).itemsize > 1
        order = {"name": "bytes", "configuration": {"endian": "little"}} if wide else {"name": "bytes"}
        return {
            "attributes": dict(self.attributes),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunk_shape)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [order, dict(codec), {"name": "crc32c"}],
            "data_type": self.dtype,
            **({} if self.names is None else {"dimension_names": list(self.names)}),
            "fill_value": 0.0 if self.dtype.startswith("float") else 0,
            "node_type": "array",
            "shape": list(self.shape),
            "storage_transformers": [],
            "zarr_format": 3,
        }


def read_grids(entries: Mapping[str, Bytes]) -> dict[str, Grid]:
    """Read every document of a shard.

    Raises:
        DamageError: one is not of this format, an entry belongs to no array or group, or something is missing.
    """
    grids: dict[str, Grid] = {}
    found = set()
    for key in entries:
        name, _, last = key.rpartition("/")
        if last != DOCUMENT:
            continue
        document = parse_document(entries[key], key)
        if document == GROUP:
            found.add(name)
        else:
            grids[name] = grid_of(document, key)
    total = sum(grid.num_bytes for grid in grids.values())
    try:
        groups = groups_above(grids)
    except ValueError as error:
        raise DamageError(f"is not a shard: {error}") from None
    claimed = {join(name, DOCUMENT) for name in groups | grids.keys()} | set(chunk_keys(grids, len(entries)))
    if odd := (claimed ^ entries.keys()) or (groups ^ found):
        raise DamageError(f"lacks or should not hold {min(odd)!r}")
    check_memory(total, sum(map(len, entries.values())))
    return grids


def chunk_keys(grids: Mapping[str, Grid], limit: int) -> Iterator[str]:
    """Entries of the chunks of all arrays. Raises DamageError if they are more than ``limit``."""
    # A document can claim more chunks than there is memory for their names.
    if sum(grid.num_chunks for grid in grids.values()) > limit:
        raise DamageError("lacks chunks")
    for name, grid in grids.items():
        yield from grid.keys(name)


def parse_document(entry: Bytes, key: str) -> Any:
    """Content of a document, as JSON values. Raises DamageError if it cannot be read; names it by its ``key``."""
    try:
        return json.loads(entry.tobytes())
    except (ValueError, RecursionError):
        raise DamageError(f"holds an unreadable {key}") from None


def grid_of(document: Any, key: str) -> Grid:
    """Shape, type, chunks and codec of an array's document, which must otherwise be word for word as it is written.

    The codec's settings may differ, since decoding does not need them, and so may names of axes and attributes.

    Raises:
        DamageError: it is not of this format; names it by its ``key``.
    """
    try:
        shape, dtype = document["shape"], document["data_type"]
        rows = document["chunk_grid"]["configuration"]["chunk_shape"][0]
        codec, names = document["codecs"][1], document.get("dimension_names")
        sizes = [*shape, rows]
        if dtype not in DTYPES or any(type(size) is not int or not 0 <= size <= MAX_SHARD_BYTES for size in sizes):
            raise DamageError(f"claims an absurd array in {key}: {dtype!s:.20} {sizes!s:.80}")
        named = None if names is None else tuple(names)
        grid = Grid(tuple(shape), dtype, rows, named, _codec_name(codec), document["attributes"])
        is_told = named is None or (len(named) == len(shape) and all(type(name) is str for name in named))
        is_told &= all(type(text) is str for text in grid.attributes.values())
        if not 1 <= rows <= max(1, shape[0]) or not is_told or document != grid.document(codec):
            raise DamageError(f"holds a {key} that is not of this format")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise DamageError(f"holds a {key} that is not of this format") from None
    return grid


def _codec_name(document: Any) -> CodecName:
    """The codec that an entry among the codecs of a document is of, whatever its settings."""
    for name, codec in CODECS.items():
        known = codec.document(1)
        is_same = document.keys() == known.keys() and document["name"] == known["name"]
        if is_same and isinstance(document["configuration"], dict):
            return name
    raise DamageError(f"is compressed by {document['name']!s:.40}, which this program does not know")


def check_memory(claimed: int, num_bytes: int) -> None:
    """Raise unless arrays from a file, or a part of it, take no more memory than such a file's may.

    Args:
        claimed: bytes in memory of the arrays.
        num_bytes: of the file or the part.

    Raises:
        DamageError: they take more.
    """
    if claimed > MAX_SHARD_BYTES:
        raise DamageError(f"claims to hold more than {MAX_SHARD_BYTES} bytes")
    if claimed > max(HARMLESS_BYTES, MAX_EXPANSION * num_bytes):
        raise DamageError(f"claims to hold {claimed} bytes, more than {MAX_EXPANSION} times its own size")


def groups_above(names: Collection[str]) -> set[str]:
    """Every group above the named arrays, the root ("") included. Raises ValueError if one has the name of an array."""
    groups = {""} | {name[:end] for name in names for end, letter in enumerate(name) if letter == "/"}
    if both := groups & set(names):
        raise ValueError(f"{min(both)!r} is the name of an array and of a group")
    return groups


def join(group: str, name: str) -> str:
    """Name of what is in a group; the root is ""."""
    return f"{group}/{name}" if group else name
