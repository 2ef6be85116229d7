"""Shards survive the way to the disk, are the same bytes wherever they are packed, and any Zarr opens them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numcodecs.blosc  # type: ignore[import-untyped]
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore, ZipStore

from hskcache.errors import DamageError, SpecError
from hskcache.store.archive import read_archive
from hskcache.store.codec import CHUNK_BYTES
from hskcache.store.grid import DTYPES
from hskcache.store.shard import pack_shard, unpack_shard

Arrays = dict[str, NDArray[Any]]

names = st.from_regex(r"[abd-z_]{1,3}(/[abd-z_]{1,3}){0,2}", fullmatch=True)
arrays = npst.arrays(
    st.sampled_from(sorted(DTYPES)),
    npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
    fill=st.nothing(),
)


@pytest.fixture
def blosc_threads() -> Iterator[None]:
    """Blosc with threads of its own, as another library in the process may leave it."""
    before = numcodecs.blosc.set_nthreads(4)
    numcodecs.blosc.use_threads = True
    yield
    numcodecs.blosc.use_threads = False
    numcodecs.blosc.set_nthreads(before)


def knowledge(num_rows: int, seed: int = 0) -> Arrays:
    """int8 values of the 10 % largest of 768 columns at 10 positions of each row, as a build would store them."""
    random = np.random.default_rng(seed)
    states = random.standard_normal((10 * num_rows, 768), np.float32)
    columns = np.sort(np.argpartition(-np.abs(states), 77, axis=1)[:, :77], axis=1)
    values = np.take_along_axis(states, columns, 1)
    scales = np.abs(values).max(1) / np.float32(127)
    mask = np.zeros(states.shape, np.uint8)
    np.put_along_axis(mask, columns, 1, 1)
    return {
        "position_offsets": np.arange(0, 10 * num_rows + 1, 10, dtype=np.int64),
        "layer_06/positions": random.integers(0, 128, 10 * num_rows, dtype=np.uint16),
        "layer_06/values": np.rint(values / scales[:, None]).astype(np.int8),
        "layer_06/scales": scales,
        "layer_06/bitmask": np.packbits(mask, axis=1, bitorder="little"),
    }


def same(left: Arrays, right: Arrays) -> bool:
    """Equal names, types, shapes and bits; NaN equals the same NaN."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


@given(arrays)
def test_any_array_comes_back_to_the_bit(array: NDArray[Any]) -> None:
    assert same(unpack_shard(pack_shard({"a": array})), {"a": array})


@given(st.dictionaries(names, st.integers(0, 3), max_size=5))
def test_any_set_of_names_that_forms_a_tree_comes_back(sizes: dict[str, int]) -> None:
    given_arrays = {name: np.arange(size) for name, size in sizes.items()}
    if any(other.startswith(f"{name}/") for name in sizes for other in sizes):
        with pytest.raises(ValueError, match="is the name of an array and of a group"):
            pack_shard(given_arrays)
    else:
        assert same(unpack_shard(pack_shard(given_arrays)), given_arrays)


@pytest.mark.parametrize("shape", [(0,), (0, 77), (5, 0), (0, 0, 2)])
@pytest.mark.parametrize("dtype", ["int8", "float32", "int64"])
def test_array_without_entries_keeps_its_shape_and_type(shape: tuple[int, ...], dtype: str) -> None:
    array = np.zeros(shape, dtype)
    assert same(unpack_shard(pack_shard({"a": array})), {"a": array})


def test_array_above_the_chunk_size_is_split_and_comes_back() -> None:
    array = np.zeros((5, CHUNK_BYTES // 8), np.int16)
    array[:, ::1000] = np.arange(5)[:, None]
    data = pack_shard({"a": array})
    assert [key for key in read_archive(data) if "/c/" in key] == ["a/c/0/0", "a/c/1/0"]
    assert same(unpack_shard(data), {"a": array})


def test_only_the_arrays_asked_for_are_decoded() -> None:
    data = pack_shard(knowledge(3))
    assert unpack_shard(data, ["layer_06/scales"]).keys() == {"layer_06/scales"}
    assert unpack_shard(data, []) == {}
    with pytest.raises(DamageError, match="holds no array layer_07/scales"):
        unpack_shard(data, ["layer_07/scales"])


def test_arrays_read_are_writable_and_independent() -> None:
    data = pack_shard(knowledge(3))
    first = unpack_shard(data)
    for array in first.values():
        array[:] = 0
    assert same(unpack_shard(data), knowledge(3))


def test_bytes_do_not_depend_on_the_order_of_names_or_the_layout_in_memory() -> None:
    given_arrays = knowledge(4)
    backwards = {name: np.asfortranarray(given_arrays[name]) for name in reversed(given_arrays)}
    backwards["layer_06/scales"] = backwards["layer_06/scales"].astype(">f4")
    assert pack_shard(given_arrays) == pack_shard(backwards)


@pytest.mark.usefixtures("blosc_threads")
def test_bytes_do_not_depend_on_threads_of_the_caller_or_of_blosc() -> None:
    given_arrays = {"a": np.random.default_rng(0).standard_normal(3 * CHUNK_BYTES // 8, np.float32)}
    expected = pack_shard(given_arrays)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(pack_shard, [given_arrays] * 4)) == {expected}
    numcodecs.blosc.use_threads = False
    assert pack_shard(given_arrays) == expected


def test_ten_positions_of_77_values_with_bitmasks_take_at_most_1250_bytes_a_row() -> None:
    assert len(pack_shard(knowledge(256))) / 256 <= 1250


@settings(deadline=None)
@given(st.sampled_from(sorted(DTYPES)), st.sampled_from([(0,), (0, 3), (7,), (3, 5), (2, 3, 4)]))
def test_stock_zarr_opens_a_shard(tmp_path_factory: pytest.TempPathFactory, dtype: str, shape: tuple[int, ...]) -> None:
    given_arrays = {"a": np.arange(np.prod(shape)).reshape(shape).astype(dtype), "group/b": np.ones(3, dtype)}
    path = tmp_path_factory.mktemp("zarr") / "000000.zarr.zip"
    path.write_bytes(pack_shard(given_arrays))
    with ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        assert same({name: np.asarray(group[name][...]) for name in given_arrays}, given_arrays)  # type: ignore[index]
        assert sorted(group.array_keys()) == ["a"]
        assert sorted(group.group_keys()) == ["group"]


def test_stock_zarr_opens_a_shard_of_several_chunks(tmp_path: Path) -> None:
    array = np.zeros((5, CHUNK_BYTES // 8), np.int16)
    array[:, ::1000] = np.arange(5)[:, None]
    (tmp_path / "shard.zip").write_bytes(pack_shard({"a": array}))
    with ZipStore(tmp_path / "shard.zip", mode="r") as store:
        assert np.array_equal(zarr.open_array(store, path="a", mode="r")[...], array)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32", "int64"])
def test_chunk_and_metadata_are_what_stock_zarr_writes(tmp_path: Path, dtype: str) -> None:
    """What is written here without zarr-python is Zarr and not a likeness."""
    array = np.arange(3000).reshape(100, 30).astype(dtype)
    content: dict[str, Buffer] = {}
    store = MemoryStore(content)
    blosc = BloscCodec(
        typesize=array.itemsize,
        cname="zstd",
        clevel=1,
        shuffle="shuffle" if array.itemsize > 1 else "noshuffle",
        blocksize=CHUNK_BYTES,
    )
    stored = zarr.create_array(
        store, name="a", shape=array.shape, chunks=array.shape, dtype=dtype, compressors=[blosc, Crc32cCodec()]
    )
    stored[...] = array
    (chunk,) = [buffer.to_bytes() for key, buffer in content.items() if "/c/" in key]
    data = pack_shard({"a": array})
    assert read_archive(data)["a/c/0/0"].tobytes() == chunk
    (tmp_path / "shard.zip").write_bytes(data)
    with ZipStore(tmp_path / "shard.zip", mode="r") as zipped:
        described = zarr.open_array(zipped, path="a", mode="r").metadata
    assert described.to_dict() == stored.metadata.to_dict()


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": np.array(1)},
        {"a": np.array(["text"])},
        {"a": np.array([None])},
        {"a": np.array([True])},
        {"a": np.array([1j])},
        {"": np.ones(1)},
        {"a/": np.ones(1)},
        {"../a": np.ones(1)},
        {"c": np.ones(1)},
        {"a.json": np.ones(1)},
        {"é": np.ones(1)},
    ],
)
def test_what_a_shard_cannot_hold_is_refused(wrong: Arrays) -> None:
    with pytest.raises(ValueError, match="array"):
        pack_shard(wrong)


def test_shard_larger_than_readers_accept_is_refused_with_what_to_do() -> None:
    with pytest.raises(SpecError, match="lower shard_rows"):
        pack_shard({"a": np.broadcast_to(np.uint8(0), (5 << 30,))})
