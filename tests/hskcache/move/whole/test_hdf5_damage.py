"""Damaged HDF5 files, and those of strangers, end in one line; no cache comes of them that was not exported."""

import random
import shutil
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from forked import in_child
from handwritten import CACHES, contents
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import shard_file

from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.move.hdf5 import COMPRESSIONS, export_hdf5, import_hdf5

VALUES, SHAPE = "hidden/layer_01/values", (252, 750)
DATASETS = (
    "manifest.json",
    "tokenizer/vocab.txt",
    "_shards/sha256",
    "_shards/beside_sha256",
    "inputs/input_ids",
    "inputs/row_offsets",
    "hidden/position_offsets",
    VALUES,
    "attention/layer_03/values",
)


@pytest.fixture
def file(exported: Path, tmp_path: Path) -> Path:
    """A file of its own for each test, to damage at will."""
    return Path(shutil.copy(exported, tmp_path / "c.h5"))


def line(file: Path) -> str:
    """The one line that its import ends in, and no cache with it."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        with pytest.raises(DamageError) as error:
            import_hdf5(file, Path(folder) / "c")
        assert not (Path(folder) / "c" / "manifest.json").exists()
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(str(file))
    return text


def replace(file: Path, path: str, **settings: Any) -> h5py.Dataset:
    """Put another dataset in the place of one, of the same values unless the settings say otherwise."""
    with h5py.File(file, "r+") as opened:
        settings = {"data": opened[path][...]} | settings
        del opened[path]
        opened.create_dataset(path, **settings)


@pytest.mark.parametrize(
    ("golden", "compression"), list(zip(CACHES, COMPRESSIONS, strict=True)), ids=[path.stem for path in CACHES]
)
def test_no_flipped_bit_and_no_cut_gives_another_cache_or_a_crash(
    golden: Path, compression: Any, tmp_path: Path
) -> None:
    """In a child, which a crash of the library would end."""
    export_hdf5(golden, tmp_path / "c.h5", compression)
    whole, draw = (tmp_path / "c.h5").read_bytes(), random.Random(0)

    def work() -> None:
        refused = 0
        for attempt in range(45):
            data, at = bytearray(whole), draw.randrange(len(whole))
            if attempt % 3 == 0:
                del data[at:]
            else:
                data[at] ^= 1 << draw.randrange(8)
            (tmp_path / "c.h5").write_bytes(data)
            out = tmp_path / f"{attempt}"
            try:
                import_hdf5(tmp_path / "c.h5", out)
                assert contents(out) == contents(golden)
            except CacheError:
                assert not (out / "manifest.json").exists()
                refused += 1
            shutil.rmtree(out, ignore_errors=True)
        assert refused >= 15

    assert in_child(work) == 0


@pytest.mark.parametrize("path", DATASETS)
def test_a_missing_dataset_is_named(file: Path, path: str) -> None:
    with h5py.File(file, "r+") as opened:
        del opened[path]
    assert line(file).startswith(f"{file} is damaged: {path} is missing" if "tokenizer" not in path else str(file))


@pytest.mark.parametrize("path", DATASETS)
def test_a_changed_value_is_found(file: Path, path: str) -> None:
    """The file itself is whole: HDF5 has nothing to complain of."""
    with h5py.File(file, "r+") as opened:
        array = opened[path][...]
        bits = array.reshape(-1).view(np.uint8)
        bits[len(bits) // 2] ^= 1
        opened[path][...] = array
    # A digest is read where values do not come out as they should: alone it does no harm.
    if path == "_shards/sha256":
        import_hdf5(file, file.parent / "c")
        assert (file.parent / "c" / "manifest.json").exists()
    else:
        line(file)


def test_a_damaged_shard_is_named_and_what_was_whole_stays(file: Path, exported: Path, whole: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["logits/logits"][8] += 1
    out = file.parent / "c"
    with pytest.raises(DamageError, match="logits shard 1 holds other values than were exported"):
        import_hdf5(file, out)
    assert shard_file(out, "inputs", 4).exists()
    landed = import_hdf5(exported, out)
    assert landed.num_kept >= 5
    assert contents(out) == contents(whole)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"data": np.zeros((3, 750), "<f4")}, "is float32 (3, 750) and should be"),
        ({"data": None, "shape": (1 << 40, 1), "dtype": "<f4", "chunks": (1, 1)}, "(1099511627776, 1) and should"),
        ({"dtype": "<f8"}, "is float64"),
        ({"dtype": ">f4"}, "is >f4"),
        ({"fletcher32": True}, "goes through filters [3]"),
        ({"scaleoffset": 3}, "goes through filters [6]"),
        ({"chunks": (10, 10), "compression": "gzip"}, "has chunks (10, 10)"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_a_dataset_of_another_kind_is_refused(file: Path, settings: dict[str, Any], what: str) -> None:
    replace(file, VALUES, **settings)
    assert what in line(file)


def compound(file: Path) -> None:
    replace(file, VALUES, data=None, shape=SHAPE, dtype=[("a", "<f4")])


def objects(file: Path) -> None:
    replace(file, VALUES, data=None, shape=SHAPE, dtype=h5py.string_dtype())


def references(file: Path) -> None:
    replace(file, VALUES, data=None, shape=SHAPE, dtype=h5py.ref_dtype)


def group(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        del opened[VALUES]
        opened.create_group(VALUES)


def soft_link(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened.move(VALUES, "elsewhere")
        opened[VALUES] = h5py.SoftLink("/elsewhere")


def external_link(file: Path) -> None:
    shutil.copy(file, file.with_name("other.h5"))
    with h5py.File(file, "r+") as opened:
        del opened["hidden"]
        opened["hidden"] = h5py.ExternalLink("other.h5", "/hidden")


def external_storage(file: Path) -> None:
    with h5py.File(file) as opened:
        file.with_name("values.bin").write_bytes(opened[VALUES][...].tobytes())
    with h5py.File(file, "r+") as opened:
        del opened[VALUES]
        place = (str(file.with_name("values.bin")), 0, h5py.h5f.UNLIMITED)
        opened.create_dataset(VALUES, SHAPE, "<f4", external=[place])


def virtual(file: Path) -> None:
    shutil.copy(file, file.with_name("other.h5"))
    with h5py.File(file, "r+") as opened:
        layout = h5py.VirtualLayout(SHAPE, "<f4")
        layout[...] = h5py.VirtualSource(str(file.with_name("other.h5")), VALUES, SHAPE)
        del opened[VALUES]
        opened.create_virtual_dataset(VALUES, layout)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (compound, "and should be float32"),
        (objects, "is object"),
        (references, "is object"),
        (group, "is no dataset"),
        (soft_link, "is a link to elsewhere"),
        (external_link, "is a link to elsewhere"),
        (external_storage, "lies in other files"),
        (virtual, "lies in other files"),
    ],
)
def test_what_lies_elsewhere_or_is_no_plain_dataset_is_refused(
    file: Path, change: Callable[[Path], None], what: str
) -> None:
    change(file)
    assert what in line(file)


def bomb(file: Path) -> None:
    """A chunk that inflates to 200 MB."""
    with h5py.File(file, "r+") as opened:
        packed = zlib.compressobj(9)
        data = b"".join(packed.compress(bytes(1 << 20)) for _ in range(200)) + packed.flush()
        opened[VALUES].id.write_direct_chunk((0, 0), data)


def empty(file: Path) -> None:
    """Datasets that were never written read as zeros, of any size."""
    replace(file, VALUES, data=None, shape=SHAPE, dtype="<f4")


def missing_chunks(file: Path) -> None:
    replace(file, VALUES, data=None, shape=SHAPE, dtype="<f4", chunks=(174, 750), compression="gzip")


def one_chunk_of_all(file: Path) -> None:
    """Larger than what is ever written, so that reading one row would hold all."""
    replace(file, "manifest.json", data=np.zeros(100 << 20, np.uint8), chunks=(100 << 20,), compression="gzip")


@pytest.mark.parametrize("change", [bomb, empty, missing_chunks, one_chunk_of_all])
def test_what_would_fill_the_memory_is_refused_before(file: Path, change: Callable[[Path], None]) -> None:
    with h5py.File(file) as opened:
        assert opened[VALUES].shape == SHAPE
    change(file)
    tracemalloc.start()
    line(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


def test_tokenizer_files_that_lead_out_of_their_folder_or_never_end_are_refused(file: Path) -> None:
    for name, what in (("..", "no name within a folder"), ("a\\b", "no name within a folder")):
        with h5py.File(file, "r+") as opened:
            opened["tokenizer"].create_dataset(name.encode(), data=np.zeros(3, np.uint8))
        assert what in line(file)
        with h5py.File(file, "r+") as opened:
            del opened["tokenizer"][name]
    with h5py.File(file, "r+") as opened:
        opened["tokenizer/again"] = opened["tokenizer"]
    line(file)
    with h5py.File(file, "r+") as opened:
        del opened["tokenizer/again"], opened["tokenizer"]
        ring = opened.create_group("tokenizer")
        for number in range(20):
            ring[f"{number}"] = ring
    assert "more than 256 files" in line(file)
    with h5py.File(file, "r+") as opened:
        del opened["tokenizer"]
        for number in range(300):
            opened[f"tokenizer/{number}"] = opened["manifest.json"]
    assert "more than 256 files" in line(file)


def test_what_is_no_hdf5_file_or_of_another_program_or_version_is_told(file: Path, tmp_path: Path) -> None:
    assert "is missing" in line(tmp_path / "nowhere")
    assert "is missing or no file" in line(tmp_path)
    (tmp_path / "text").write_text("no")
    assert "is no HDF5 file" in line(tmp_path / "text")
    with h5py.File(tmp_path / "other.h5", "w") as opened:
        opened["values"] = [1, 2]
    assert "layout_version" in line(tmp_path / "other.h5")
    with h5py.File(file, "r+") as opened:
        opened.attrs["layout_version"] = 2
    with pytest.raises(MismatchError, match=r"layout version 2; .* upgrade hskcache"):
        import_hdf5(file, tmp_path / "c")
    with h5py.File(file, "r+") as opened:
        opened.attrs["layout_version"] = "1"
    assert "layout_version is no number" in line(file)


@given(st.binary(max_size=4000))
@settings(max_examples=60, deadline=None)
def test_any_manifest_is_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.h5"
        with h5py.File(file, "w") as opened:
            opened.attrs["layout_version"] = 1
            opened.create_dataset("manifest.json", data=np.frombuffer(data, np.uint8))
        line(file)
