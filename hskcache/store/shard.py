"""One shard as bytes: a Zarr v3 group in a zip whose entries are stored, which any Zarr implementation opens.

The metadata documents are written and read here rather than through zarr-python, for three reasons. Their bytes then
do not depend on which zarr is installed, so the same content has the same digest everywhere. A document that is not
exactly of the form written here is refused before anything is allocated, where zarr-python believes any shape and
reads a missing chunk as zeros. And reading starts no event loop, which threads would share and a fork would break: a
shard of 1 MB takes a fifth of zarr-python's time, one of 7 MB half, one of 30 MB nine tenths.

A chunk goes through a codec, then CRC-32C. The codec zstd is Blosc with byte shuffle and Zstandard. Measured
on 10 positions of 77 int8 values and a 10 % bitmask per row: levels 3 and above are slower and no smaller (bitmasks
grow from 0.50 to 0.54 of their size); the shuffle brings float32 states from 0.92 to 0.84 and float16 from 0.92 to
0.85 of their size and doubles the speed of decoding. A chunk is one Blosc block of at most 4 MiB: blocks of 16 MiB
decode wide types at a third of the speed, because their buffers come fresh from the operating system each time.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from hskcache.errors import DamageError, SpecError
from hskcache.store.archive import Bytes, read_archive, read_entries, spans, write_archive
from hskcache.store.codec import CHUNK_BYTES, CODECS
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.grid import (
    DOCUMENT,
    DTYPES,
    GROUP,
    HARMLESS_BYTES,
    MAX_EXPANSION,
    MAX_SHARD_BYTES,
    Grid,
    check_memory,
    chunk_keys,
    grid_of,
    groups_above,
    join,
    parse_document,
    read_grids,
)
from hskcache.store.kinds.abc import Meaning
from hskcache.store.meaning import attributes, dimensions
from hskcache.store.record import StoredArray

_CRC_BYTES = 4


def pack_shard(
    arrays: Mapping[str, NDArray[Any]], told: Mapping[str, Meaning] | None = None, with_attributes: bool = True
) -> bytes:
    """Arrays as the bytes of one shard; the same arrays give the same bytes.

    Args:
        arrays: by name; names may have parts, ``layer_06/values``. At least one axis each, types of ``DTYPES``.
        told: what is told of arrays; of those that are not among them nothing is, as in version 1.
        with_attributes: whether more than the names of axes is told.

    Raises:
        SpecError: more than ``MAX_SHARD_BYTES`` together, or next to nothing in much space.
        ValueError: a name, a type or a number of axes that a shard cannot hold.
    """
    total = sum(array.nbytes for array in arrays.values())
    if total > MAX_SHARD_BYTES:
        raise SpecError(
            f"a shard of {total} bytes is more than the {MAX_SHARD_BYTES} that readers accept; lower shard_rows"
        )
    entries = {join(group, DOCUMENT): canonical_json(GROUP) for group in groups_above(arrays)}
    for name, array in arrays.items():
        if not all(part.isidentifier() and part.isascii() and part != "c" for part in name.split("/")):
            raise ValueError(f"array name {name!r} is not of the form layer_06/values")
        if array.dtype.name not in DTYPES or not array.ndim:
            raise ValueError(f"array {name!r} is {array.dtype} with {array.ndim} axes; give a number type and an axis")
        entries |= _encode(name, array, (told or {}).get(name), with_attributes)
    if total > max(HARMLESS_BYTES, MAX_EXPANSION * sum(map(len, entries.values()))):
        raise SpecError(
            f"a shard of {total} bytes shrinks to less than a part in {MAX_EXPANSION}, which readers take for an "
            "attack; lower shard_rows"
        )
    return write_archive(entries)


def unpack_shard(data: bytes, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Arrays of a shard, every chunk's checksum verified.

    Args:
        data: the whole shard.
        names: arrays to decode; None decodes all. The metadata of the others is checked too.

    Returns:
        By name, each array writable and with memory of its own.

    Raises:
        DamageError: anything that :func:`pack_shard` does not write: a missing or foreign entry, a wrong checksum, an
            absurd shape. Nothing is allocated before all of that is known to be right.
    """
    entries = read_archive(data)
    grids = read_grids(entries)
    wanted = grids.keys() if names is None else names
    if missing := set(wanted) - grids.keys():
        raise DamageError(f"holds no array {min(missing)}")
    chunks = {name: [_payload(entries, key, grids[name]) for key in grids[name].keys(name)] for name in wanted}
    return {name: _decode(name, grids[name], chunks[name]) for name in wanted}


def retold(data: bytes, tell: Callable[[Mapping[str, int]], Mapping[str, Meaning]]) -> bytes:
    """A shard of which other things are told; its chunks stay what they are.

    Args:
        data: the shard.
        tell: gives what to tell of arrays, as :func:`pack_shard` takes it, from how many axes each has.

    Raises:
        DamageError: it is no shard.
    """
    entries = read_archive(data)
    grids = read_grids(entries)
    told = tell({array: len(grid.shape) for array, grid in grids.items()})
    others = {key: entry.tobytes() for key, entry in entries.items()}
    for array, grid in grids.items():
        key = f"{array}/{DOCUMENT}"
        codec = parse_document(entries[key], key)["codecs"][1]
        others[key] = canonical_json(_told(array, grid, told.get(array)).document(codec))
    return write_archive(others)


def stored_arrays(data: bytes) -> dict[str, StoredArray]:
    """Arrays of a shard by name: shape, type, codec, part of the file and its digest.

    Raises:
        DamageError: it is no shard, or other entries lie between those of an array.
    """
    grids = read_grids(read_archive(data))
    places = spans(data, {f"{name}/" for name in grids})
    arrays = {}
    for name, grid in grids.items():
        start, stop = places[f"{name}/"]
        arrays[name] = StoredArray(
            shape=list(grid.shape),
            dtype=grid.dtype,
            codec=grid.codec,
            offset=start,
            num_bytes=stop - start,
            sha256=sha256_hex(data[start:stop]),
        )
    return arrays


def unpack_array(data: bytes, name: str) -> NDArray[Any]:
    """One array from its part of a shard's file, every chunk's checksum verified.

    Args:
        data: the part, as :func:`stored_arrays` tells it.
        name: of the array.

    Raises:
        DamageError: it is not what :func:`pack_shard` writes; nothing is allocated before that is known.
    """
    entries, document = read_entries(data), f"{name}/{DOCUMENT}"
    if document not in entries:
        raise DamageError(f"holds no array {name}")
    grid = grid_of(parse_document(entries[document], document), document)
    check_memory(grid.num_bytes, len(data))
    if odd := {document, *chunk_keys({name: grid}, len(entries))} ^ entries.keys():
        raise DamageError(f"lacks or should not hold {min(odd)!r}")
    return _decode(name, grid, [_payload(entries, key, grid) for key in grid.keys(name)])


def _told(name: str, grid: Grid, meaning: Meaning | None, with_attributes: bool = True) -> Grid:
    """The grid of an array with its meaning."""
    if meaning is None:
        return grid._replace(names=None, attributes={})
    if not with_attributes:
        return grid._replace(names=meaning.dimensions, attributes={})
    names = dimensions(name, grid.dtype, meaning)
    return grid._replace(names=names, attributes=attributes(name, grid.dtype, meaning))


def _encode(name: str, array: NDArray[Any], meaning: Meaning | None, with_attributes: bool) -> dict[str, bytes]:
    """Entries of one array: its document and its chunks."""
    num_chunks = max(1, -(-array.nbytes // CHUNK_BYTES))
    grid = Grid(array.shape, array.dtype.name, max(1, -(-array.shape[0] // num_chunks)))
    grid = _told(name, grid, meaning, with_attributes)
    codec = CODECS[grid.codec]
    entries = {f"{name}/{DOCUMENT}": canonical_json(grid.document(codec.document(array.itemsize)))}
    for index, key in enumerate(grid.keys(name)):
        rows = array[index * grid.chunk_rows : (index + 1) * grid.chunk_rows]
        chunk = np.ascontiguousarray(rows, array.dtype.newbyteorder("<"))
        if len(chunk) < grid.chunk_rows:
            chunk = np.concatenate(
                [chunk, np.zeros((grid.chunk_rows - len(chunk), *grid.chunk_shape[1:]), chunk.dtype)]
            )
        payload = codec.encode(chunk)
        entries[key] = payload + _crc32c(payload)
    return entries


def _crc32c(payload: bytes | Bytes) -> bytes:
    value: int = google_crc32c.value(payload)
    return value.to_bytes(_CRC_BYTES, "little")


def _payload(entries: Mapping[str, Bytes], key: str, grid: Grid) -> Bytes:
    """A chunk as Blosc wrote it: checksum right, and decoding to exactly as many bytes as the grid says."""
    payload, crc = entries[key][:-_CRC_BYTES], entries[key][-_CRC_BYTES:]
    if _crc32c(payload) != crc.tobytes():
        raise DamageError(f"has a wrong checksum in {key}")
    expected = math.prod(grid.chunk_shape) * np.dtype(grid.dtype).itemsize
    if not CODECS[grid.codec].fits(payload, expected):
        raise DamageError(f"holds a chunk of another size in {key}")
    return payload


def _decode(name: str, grid: Grid, chunks: list[Bytes]) -> NDArray[Any]:
    array = np.empty(grid.shape, np.dtype(grid.dtype).newbyteorder("<"))
    codec = CODECS[grid.codec]
    for index, payload in enumerate(chunks):
        rows = array[index * grid.chunk_rows : (index + 1) * grid.chunk_rows]
        whole = rows if len(rows) == grid.chunk_rows else np.empty(grid.chunk_shape, array.dtype)
        try:
            codec.decode(payload, whole)
        except (RuntimeError, ValueError) as error:
            raise DamageError(f"has a chunk of {name} that does not decompress: {error}") from None
        if whole is not rows:
            rows[:] = whole[: len(rows)]
    return array
