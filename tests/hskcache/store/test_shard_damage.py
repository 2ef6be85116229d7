"""Whatever is wrong with a shard's bytes, reading it ends in DamageError or gives exactly what was written."""

import contextlib
import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import google_crc32c
import numcodecs.blosc  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hskcache.errors import DamageError
from hskcache.store.archive import read_archive, write_archive
from hskcache.store.shard import pack_shard, unpack_shard

ARRAYS: dict[str, NDArray[Any]] = {
    "a/values": np.arange(60, dtype=np.int8).reshape(20, 3),
    "a/scales": np.linspace(0, 1, 20, dtype=np.float32),
    "none": np.zeros((0, 4), np.uint16),
}
SHARD = pack_shard(ARRAYS)


def unchanged(data: bytes) -> bool:
    """Whether damaged bytes still give the arrays that were written; the alternative is DamageError."""
    found = unpack_shard(data)
    return found.keys() == ARRAYS.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array) for name, array in ARRAYS.items()
    )


def edited(change: Callable[[dict[str, bytes]], object]) -> bytes:
    """The shard with its entries changed and everything around them consistent."""
    entries = {name: entry.tobytes() for name, entry in read_archive(SHARD).items()}
    change(entries)
    return write_archive(entries)


def edited_document(change: Callable[[dict[str, Any]], object]) -> bytes:
    def edit(entries: dict[str, bytes]) -> None:
        document = json.loads(entries["a/values/zarr.json"])
        change(document)
        entries["a/values/zarr.json"] = json.dumps(document).encode()

    return edited(edit)


def with_chunk(payload: bytes) -> bytes:
    """The shard with another chunk of ``a/values``, its checksum right."""
    checked = payload + google_crc32c.value(payload).to_bytes(4, "little")
    return edited(lambda entries: entries.update({"a/values/c/0/0": checked}))


def refused_without_allocating(data: bytes) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(DamageError) as error:
            unpack_shard(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    return str(error.value)


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_no_flipped_byte_changes_an_array(flip: int) -> None:
    silent = 0
    for place in range(len(SHARD)):
        data = bytearray(SHARD)
        data[place] ^= flip
        try:
            assert unchanged(bytes(data))
            silent += 1
        except DamageError:
            pass
    # Only dates, versions and attributes of the zip's own directory do not matter.
    assert silent < len(SHARD) / 3


def test_no_cut_shard_is_read() -> None:
    for size in range(len(SHARD)):
        with pytest.raises(DamageError):
            unpack_shard(SHARD[:size])


@given(st.binary(max_size=300))
def test_no_random_bytes_are_read(data: bytes) -> None:
    with pytest.raises(DamageError):
        unpack_shard(data)


# An array without rows leaves no trace when its one entry is gone; the record of the shard tells of it.
@pytest.mark.parametrize("entry", sorted(read_archive(SHARD).keys() - {"none/zarr.json"}))
def test_missing_entry_is_noticed(entry: str) -> None:
    """A missing chunk above all, which stock zarr reads as zeros."""
    with pytest.raises(DamageError, match=r"lacks"):
        unpack_shard(edited(lambda entries: entries.pop(entry)))


@pytest.mark.parametrize(
    "entry", ["a/values/c/1/0", "b/zarr.json", "a/scales.pickle", "../../etc/passwd", "none/c/0/0"]
)
def test_foreign_entry_is_refused(entry: str) -> None:
    with pytest.raises(DamageError):
        unpack_shard(edited(lambda entries: entries.update({entry: b"{}"})))


def test_empty_group_that_nothing_is_in_is_refused() -> None:
    group = read_archive(SHARD)["zarr.json"].tobytes()
    with pytest.raises(DamageError, match="should not hold"):
        unpack_shard(edited(lambda entries: entries.update({"b/zarr.json": group})))


def test_array_inside_an_array_is_refused() -> None:
    document = read_archive(SHARD)["none/zarr.json"].tobytes()
    with pytest.raises(DamageError, match="is the name of an array and of a group"):
        unpack_shard(edited(lambda entries: entries.update({"none/b/zarr.json": document})))


def test_compressed_and_doubled_entries_are_refused() -> None:
    for method, names in ((zipfile.ZIP_DEFLATED, ["zarr.json"]), (zipfile.ZIP_STORED, ["zarr.json", "zarr.json"])):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for index, name in enumerate(names):
                info = zipfile.ZipInfo(name)
                # Renamed below: zipfile warns when it is asked to write a name twice.
                info.filename = name if index == 0 else "zarr.JSON"
                archive.writestr(info, b"{}" * 1000, method)
        with pytest.raises(DamageError, match=r"compressed|twice"):
            unpack_shard(buffer.getvalue().replace(b"zarr.JSON", b"zarr.json"))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [1 << 50, 3]},
        {"shape": [1 << 31, 3]},
        {"shape": [1 << 200, 3]},
        {"shape": [1 << 40, 0]},
        {"shape": [-20, 3]},
        {"shape": [20.0, 3]},
        {"shape": [True, 3]},
        {"shape": []},
        {"shape": "20"},
        {"shape": None},
        {"shape": [19, 3]},
        {"shape": [20, 3, 1]},
        {"data_type": "float64"},
        {"data_type": "int16"},
        {"data_type": "object"},
        {"data_type": "|O"},
        {"data_type": {"name": "null_terminated_bytes", "configuration": {"length_bytes": 1 << 40}}},
        {"data_type": ["int8"]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 3]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 3]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [20, 1]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1 << 60, 3]}}},
        {"chunk_grid": {"name": "rectilinear", "configuration": {}}},
        {"chunk_grid": []},
        {"codecs": []},
        {"codecs": [{"name": "bytes"}, {"name": "blosc", "configuration": {}}]},
        {"codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {}}, {"name": "crc32c"}]},
        {"codecs": [{"name": "bytes"}, {"name": "blosc", "configuration": 7}, {"name": "crc32c"}]},
        {"codecs": [{"name": "numcodecs.pickle"}, {"name": "blosc", "configuration": {}}, {"name": "crc32c"}]},
        {"fill_value": 1},
        {"node_type": "group"},
        {"zarr_format": 2},
        {"attributes": {"key": 1}},
        {"storage_transformers": [{"name": "other"}]},
        {"unknown": 1},
    ],
)
def test_document_of_another_form_is_refused_before_anything_is_allocated(changes: dict[str, Any]) -> None:
    refused_without_allocating(edited_document(lambda document: document.update(changes)))


def test_claim_of_more_chunks_than_names_fit_in_memory_is_refused() -> None:
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, 1]}}
    data = edited_document(lambda document: document.update({"shape": [1 << 30, 1], "chunk_grid": grid}))
    assert refused_without_allocating(data) == "lacks chunks"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null", b"[]", b"1" * 5000, b'{"shape": NaN}']
)
def test_unreadable_document_is_refused(text: bytes) -> None:
    with pytest.raises(DamageError, match=r"a/values/zarr\.json"):
        unpack_shard(edited(lambda entries: entries.update({"a/values/zarr.json": text})))


@pytest.mark.parametrize("num_values", [1, 59, 61, 50_000_000])
def test_chunk_that_decodes_to_another_size_is_refused_before_anything_is_allocated(num_values: int) -> None:
    payload = numcodecs.blosc.Blosc(cname="zstd", clevel=1, shuffle=0).encode(np.zeros(num_values, np.int8))
    assert "another size" in refused_without_allocating(with_chunk(bytes(payload)))


def test_chunk_that_lies_about_its_size_is_refused() -> None:
    honest = bytes(numcodecs.blosc.Blosc(cname="zstd", clevel=1, shuffle=0).encode(np.zeros(50_000_000, np.int8)))
    with pytest.raises(DamageError):
        unpack_shard(with_chunk(honest[:4] + struct.pack("<I", 60) + honest[8:]))


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 15, b"x" * 16, b"x" * 1000])
def test_chunk_that_is_not_blosc_is_refused(payload: bytes) -> None:
    with pytest.raises(DamageError):
        unpack_shard(with_chunk(payload))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_chunk_forged_with_a_right_checksum_is_decoded_or_refused(place: int, flip: int) -> None:
    """A stranger can make checksums fit; what he gets is another value or DamageError, never another shape."""
    payload = bytearray(read_archive(SHARD)["a/values/c/0/0"][:-4].tobytes())
    payload[place % len(payload)] ^= flip
    with contextlib.suppress(DamageError):
        assert unpack_shard(with_chunk(bytes(payload)))["a/values"].shape == (20, 3)
