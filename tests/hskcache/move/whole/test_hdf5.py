"""A cache that went through an HDF5 file is the same cache, and the file is one that h5py users can read alone."""

import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numcodecs.blosc
import numpy as np
import pytest
from handwritten import CACHES, Shape, contents, write_cache
from hypothesis import given, settings
from hypothesis import strategies as st

from hskcache.cache import open_cache
from hskcache.errors import MismatchError
from hskcache.move.hdf5 import COMPRESSIONS, export_hdf5, import_hdf5
from hskcache.store.archive import read_archive, write_archive
from hskcache.store.ledger import Ledger
from hskcache.verify import verify

COLUMNS = ("all", "shared", "indices", "bitmask", "pca")
ENCODINGS = ("float32", "float16", "bfloat16", "int8", "int4")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("golden", CACHES, ids=lambda path: path.stem)
def test_an_imported_cache_is_the_exported_one(golden: Path, compression: Any, tmp_path: Path) -> None:
    done = export_hdf5(golden, tmp_path / "c.h5", compression)
    landed = import_hdf5(tmp_path / "c.h5", tmp_path / "c")
    assert landed.manifest.cache_id == landed.exported_id == done.manifest.cache_id
    assert contents(tmp_path / "c") == contents(golden)
    assert verify(tmp_path / "c").ok
    assert landed.num_written == landed.manifest.num_records


@given(
    shape=st.builds(
        Shape,
        lengths=st.lists(st.integers(1, 9), min_size=1, max_size=9),
        appended=st.lists(st.integers(1, 9), max_size=4),
        shard_rows=st.integers(1, 5),
        tokens=st.integers(1, 9),
        width=st.integers(5, 40),
        columns=st.sampled_from(COLUMNS),
        encoding=st.sampled_from(ENCODINGS),
        layers=st.sampled_from([(1,), (2, 4), (1, 2, 3, 4)]),
        heads=st.sampled_from(["mean", (0,), (1, 0)]),
        has_token_types=st.booleans(),
        has_labels=st.booleans(),
        id_dtype=st.sampled_from(["uint16", "int32"]),
    ),
    compression=st.sampled_from(COMPRESSIONS),
)
@settings(max_examples=15, deadline=None)
def test_caches_of_any_shape_come_back_the_same(shape: Shape, compression: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, back, out = (Path(folder) / name for name in ("whole", "back", "c.h5"))
        write_cache(whole, shape)
        export_hdf5(whole, out, compression)
        assert import_hdf5(out, back).num_kept == 0
        assert contents(back) == contents(whole)


def test_shards_that_end_within_chunks_come_back_the_same(whole: Path, exported: Path, tmp_path: Path) -> None:
    with h5py.File(exported) as opened:
        values = opened["hidden/layer_01/values"]
        assert len(values) % values.chunks[0] != 0
        assert values.id.get_num_chunks() > 1
    import_hdf5(exported, tmp_path / "c")
    assert contents(tmp_path / "c") == contents(whole)


def test_a_user_of_h5py_finds_each_row_by_its_offsets(tmp_path: Path) -> None:
    """Without anything of hskcache, from the documented paths and attributes alone."""
    cache = open_cache(CACHES[0])
    export_hdf5(CACHES[0], tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5") as found:
        assert (found.attrs["format"], found.attrs["cache_id"]) == ("hskcache", cache.id)
        for row in range(found.attrs["num_rows"]):
            expected = cache.row(row)
            first, last = found["inputs/row_offsets"][row : row + 2]
            assert (found["inputs/input_ids"][first:last] == expected["input_ids"]).all()
            assert found["inputs/labels"][row] == expected["label"]
            assert (found["logits/logits"][row] == expected["logits"]).all()
            first, last = found["hidden/position_offsets"][row : row + 2]
            layer = found["hidden/layer_04"]
            assert layer["values"].attrs["offsets"] == "/hidden/position_offsets"
            states = layer["values"][first:last] * layer["scales"][first:last][:, None]
            width = found["hidden"].attrs["width"]
            columns = np.unpackbits(layer["bitmask"][first:last], axis=1, bitorder="little", count=width)
            # As tests/golden/write.py wrote them.
            assert states.tolist() == [[value * (row + 1) / 8 for value in (-4 * row, row + 100, 127)]] * 2
            assert columns.nonzero()[1].reshape(2, 3).tolist() == [[row, row + 5, row + 10]] * 2
        bits = found["hidden_uniform/layer_04/values"][0]
        assert "<< 16" in found["hidden_uniform"].attrs["decode"]
        assert (bits.view("u2").astype("u4") << 16).view("f4").tolist() == [1.0, 1.0, 2.0]
        assert found["hidden_uniform/constants/layer_04/columns"][...].tolist() == [0, 5, 10]


@pytest.mark.parametrize("encoding", ["int4", "int8", "float16"])
def test_a_user_of_h5py_finds_the_attention_of_each_row(encoding: Any, tmp_path: Path) -> None:
    write_cache(tmp_path / "c", Shape(encoding=encoding, appended=(4, 1)))
    cache = open_cache(tmp_path / "c")
    export_hdf5(tmp_path / "c", tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5") as found:
        for row in range(cache.num_rows):
            expected = cache.row(row)["attention"][3]
            for name, stored in found["attention/layer_03"].items():
                first, last = found[stored.attrs["offsets"]][row : row + 2]
                assert stored[first:last].tobytes() == expected[name].tobytes()


def test_one_cache_gives_one_file(whole: Path, exported: Path, tmp_path: Path) -> None:
    export_hdf5(whole, tmp_path / "c.h5")
    assert (tmp_path / "c.h5").read_bytes() == exported.read_bytes()


def test_a_readme_travels_along(tmp_path: Path) -> None:
    write_cache(tmp_path / "c", Shape())
    (tmp_path / "c" / "README.md").write_text("# From the study of films\n")
    export_hdf5(tmp_path / "c", tmp_path / "c.h5")
    import_hdf5(tmp_path / "c.h5", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tmp_path / "c")


def test_neither_way_holds_more_than_some_shards(tmp_path: Path) -> None:
    shape = Shape(lengths=(8,) * 60, tokens=8, width=2000, columns="all", encoding="float32", shard_rows=3)
    write_cache(tmp_path / "c", shape)
    total = sum(record.num_bytes for record in open_cache(tmp_path / "c").manifest.records)
    for work in (
        lambda: export_hdf5(tmp_path / "c", tmp_path / "c.h5"),
        lambda: import_hdf5(tmp_path / "c.h5", tmp_path / "back"),
    ):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < total / 2


def recompressed(data: bytes) -> bytes:
    """A shard of the same arrays as another compressor writes it."""
    import google_crc32c

    entries = {}
    for name, entry in read_archive(data).items():
        content = bytes(entry)
        if not name.endswith("zarr.json"):
            plain = numcodecs.blosc.Blosc().decode(content[:-4])
            packed = bytes(numcodecs.blosc.Blosc(cname="zlib", clevel=9, shuffle=0).encode(plain))
            content = packed + google_crc32c.value(packed).to_bytes(4, "little")
        entries[name] = content
    return write_archive(entries)


def test_the_same_values_in_other_bytes_are_told_apart_from_damage_and_get_a_new_id_if_asked(tmp_path: Path) -> None:
    root = tmp_path / "c"
    write_cache(root, Shape(columns="pca", encoding="float32", width=64))
    ledger, cache = Ledger(root), open_cache(root)
    for field, shard in (("hidden", 1), ("hidden", -1), ("inputs", 0)):
        record = ledger.committed(field, shard)
        assert record is not None
        ledger.commit_packed(recompressed(ledger.shard_path(record).read_bytes()), record.facts)
    exported = ledger.finish(cache.manifest.request, cache.fields, cache.manifest.environment)
    assert verify(root).ok
    export_hdf5(root, tmp_path / "c.h5")
    with pytest.raises(MismatchError, match=r"compresses them to other bytes than numcodecs 0\.0\.1 did.* --new-id"):
        import_hdf5(tmp_path / "c.h5", tmp_path / "back")
    landed = import_hdf5(tmp_path / "c.h5", tmp_path / "back", new_id=True)
    assert landed.exported_id == exported.cache_id != landed.manifest.cache_id == cache.id
    assert landed.manifest.environment["numcodecs"] != "0.0.1"
    assert verify(tmp_path / "back").ok
    assert open_cache(tmp_path / "back").id == cache.id
