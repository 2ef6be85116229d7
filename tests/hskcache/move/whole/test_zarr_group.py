"""The Zarr group of a cache holds what the cache does, and other readers of Zarr open it and every shard."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import xarray
import zarr
from handwritten import CACHES, Shape, write_cache
from numpy.typing import NDArray

from hskcache.cache import Cache, open_cache
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.move import zarr_group
from hskcache.move.zarr_group import export_zarr
from hskcache.store.fields import KINDS

SHAPE = Shape(
    lengths=[5, 1, 4, 3, 7, 2], appended=[3], shard_rows=2, columns="bitmask", encoding="bfloat16", layers=(1, 2)
)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of some entries, and files of some chunks."""
    monkeypatch.setattr(zarr_group, "_CHUNK_BYTES", 48)
    monkeypatch.setattr(zarr_group, "_FILE_BYTES", 150)


def joined(cache: Cache, field: str) -> dict[str, NDArray[Any]]:
    """Arrays of all shards, one after the other."""
    found: dict[str, NDArray[Any]] = {}
    for shard in range(len(cache.shards)):
        for name, array in cache.read(field, shard).items():
            if name not in found:
                found[name] = array
            elif name.endswith("_offsets"):
                found[name] = np.concatenate([found[name], array[1:] + found[name][-1]])
            else:
                found[name] = np.concatenate([found[name], array])
    return found


def with_tensorstore(path: Path) -> NDArray[Any]:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return np.asarray(tensorstore.open(spec, read=True).result().read().result())


def with_zarrs(path: Path) -> NDArray[Any]:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return np.asarray(zarr.open_array(path, mode="r")[...])


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("golden", [*CACHES, None], ids=lambda path: path.stem if path else "many-shards")
def test_zarr_tensorstore_and_zarrs_read_what_the_cache_holds(golden: Path | None, tmp_path: Path) -> None:
    if golden is None:
        write_cache(tmp_path / "c.hsk", SHAPE)
    cache = open_cache(golden or tmp_path / "c.hsk")
    export_zarr(cache.root, tmp_path / "c.zarr")
    group = zarr.open_group(tmp_path / "c.zarr", mode="r")
    assert (group.attrs["format"], group.attrs["cache_id"]) == ("hskcache", cache.id)
    for field in cache.fields:
        assert group[field].attrs["kind"] == cache.fields[field].kind
        constants = {f"constants/{name}": array for name, array in cache.constants(field).items()}
        for name, expected in (joined(cache, field) | constants).items():
            path = tmp_path / "c.zarr" / field / name
            for found in (group[f"{field}/{name}"][...], with_tensorstore(path), with_zarrs(path)):
                assert found.dtype == expected.dtype, name
                np.testing.assert_array_equal(found, expected, err_msg=name)
    if golden is None:
        assert len(list((tmp_path / "c.zarr/hidden/layer_01/values").rglob("*"))) > 4


def test_xarray_tells_axes_apart_by_name(tmp_path: Path) -> None:
    cache = open_cache(CACHES[0])
    export_zarr(cache.root, tmp_path / "c.zarr")
    inputs = xarray.open_zarr(tmp_path / "c.zarr", group="inputs", consolidated=False)
    assert dict(inputs.sizes) == {"row": 5, "row_boundary": 6, "token": len(joined(cache, "inputs")["input_ids"])}
    layer = xarray.open_zarr(tmp_path / "c.zarr", group="hidden/layer_04", consolidated=False)
    assert layer["values"].dims == ("position", "column")
    assert layer["values"].attrs["decode"].startswith("integers -127 to 127")
    states = layer["values"] * layer["scales"]
    np.testing.assert_array_equal(
        states[0], cache.row(0)["hidden"][4]["values"][0] * cache.row(0)["hidden"][4]["scales"][0]
    )


@pytest.mark.parametrize("columns", ["all", "shared", "indices", "bitmask", "pca"])
@pytest.mark.parametrize("encoding", ["float32", "int8", "int4"])
def test_every_array_of_a_shard_tells_what_it_is(columns: str, encoding: str, tmp_path: Path) -> None:
    write_cache(
        tmp_path / "c.hsk", Shape(lengths=[3, 2], appended=[], shard_rows=2, columns=columns, encoding=encoding)
    )
    cache = open_cache(tmp_path / "c.hsk")
    shards = [record for records in cache.manifest.shards.values() for record in records]
    for record in (*shards, *cache.manifest.constants.values()):
        with zarr.storage.ZipStore(cache.root / record.path, mode="r") as store:
            group = zarr.open_group(store, mode="r")
            for name in record.arrays:
                array = group[name]
                assert len(array.metadata.dimension_names) == array.ndim
                assert array.attrs["about"]
                assert ("decode" in array.attrs) == name.endswith("/values")
            parents = {name.rpartition("/")[0] for name in record.arrays}
            for parent in parents:
                xarray.open_zarr(store, group=parent or None, consolidated=False).load()


def test_every_array_of_every_kind_has_a_meaning() -> None:
    """Of those that fields of the golden caches store, and of all that HDF5 adds."""
    for root in CACHES:
        for field in open_cache(root).fields.values():
            kind = KINDS[field.kind]
            arrays = {name: 1 + len(array.shape) for name, array in kind.arrays(field).items()}
            shared = {name: len(array.shape) for name, array in kind.constants(field).items()}
            for name, count in (*arrays.items(), *shared.items()):
                assert len(kind.meanings[name.rpartition("/")[2], count].dimensions) == count


def test_what_is_finished_is_left_alone_and_what_is_anothers_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "c.zarr"
    assert not export_zarr(CACHES[0], target).was_there
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert export_zarr(CACHES[0], target).was_there
    assert before == {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    write_cache(tmp_path / "other.hsk", SHAPE)
    with pytest.raises(MismatchError, match=r"holds the cache .* or --force to replace it"):
        export_zarr(tmp_path / "other.hsk", target)
    assert not export_zarr(tmp_path / "other.hsk", target, force=True).was_there
    assert zarr.open_group(target, mode="r").attrs["cache_id"] == open_cache(tmp_path / "other.hsk").id
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(MismatchError, match="is no Zarr group of a cache"):
            export_zarr(CACHES[0], tmp_path / "mine", force)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_damaged_shard_ends_the_export_and_leaves_what_stood(tmp_path: Path) -> None:
    write_cache(tmp_path / "c.hsk", SHAPE)
    export_zarr(CACHES[0], tmp_path / "c.zarr")
    cache = open_cache(tmp_path / "c.hsk")
    path = cache.root / cache.manifest.shards["hidden"][1].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match="hidden"):
        export_zarr(cache.root, tmp_path / "c.zarr", force=True)
    assert zarr.open_group(tmp_path / "c.zarr", mode="r").attrs["cache_id"] == open_cache(CACHES[0]).id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.hsk", "c.zarr"]


def test_two_at_once_are_told(tmp_path: Path) -> None:
    from hskcache.move.whole import replacing_folder

    with replacing_folder(tmp_path / "c.zarr") as partial:
        partial.mkdir()
        with pytest.raises(CacheError, match="another process is writing"):
            export_zarr(CACHES[0], tmp_path / "c.zarr")
    shutil.rmtree(tmp_path / "c.zarr")
