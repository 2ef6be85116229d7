"""A cache reads back what was written or says what is wrong with which file, from any number of threads."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stored import both_manifests, shard_file

from hskcache.cache import Cache, open_cache
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.store.ledger import Ledger

FOLDER = Path(__file__).resolve().parents[1] / "golden"
GOLDEN = FOLDER / "tiny.hsk"


@pytest.fixture(params=["tiny", "tiny-2"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A cache of its own for each test, to damage at will, in either version of the format."""
    return shutil.copytree(FOLDER / f"{request.param}.hsk", tmp_path / "tiny.hsk")


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """One that may be written again."""
    return shutil.copytree(FOLDER / "tiny-2.hsk", tmp_path / "tiny-2.hsk")


@pytest.fixture(scope="module", params=["tiny", "tiny-2"])
def cache(request: pytest.FixtureRequest) -> Cache:
    return open_cache(FOLDER / f"{request.param}.hsk")


def test_opening_and_reading_need_neither_torch_nor_zarr() -> None:
    code = (
        f"import sys, hskcache; hskcache.open_cache({str(GOLDEN)!r}).read('hidden', 0);"
        "assert not {'torch', 'zarr', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=GOLDEN.parents[2])


def test_cache_is_opened_by_text_or_path(cache: Cache) -> None:
    assert open_cache(str(cache.root)).id == open_cache(cache.root).id == cache.id


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", GOLDEN / "manifest.json"):
        with pytest.raises(CacheError, match=str(path)):
            open_cache(path)


def test_unfinished_build_is_refused_with_what_to_do(tmp_path: Path, cache: Cache) -> None:
    Ledger(tmp_path).begin(cache.manifest.request)
    with pytest.raises(MismatchError, match="cut off: 0 of 3 shards are written; run the same build command again"):
        open_cache(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"sha256": "', '"sha256": "0', "damaged"),
        ('"num_nonfinite": 0', '"num_nonfinite": 1', r"was edited(: its cache id is| or damaged: its checksum)"),
        ('"max_length": 8', '"max_length": 9', "was edited: its request digest is"),
    ],
)
def test_edited_manifest_is_refused(root: Path, old: str, new: str, message: str) -> None:
    both_manifests(root, (root / "manifest.json").read_text().replace(old, new, 1).encode())
    with pytest.raises(DamageError, match=message):
        open_cache(root)


def test_newer_format_is_refused_with_what_to_do(root: Path) -> None:
    document = json.loads((root / "manifest.json").read_bytes())
    both_manifests(root, json.dumps(document | {"format_version": 3, "novelty": []}).encode())
    with pytest.raises(MismatchError, match="upgrade hskcache"):
        open_cache(root)


def test_only_the_arrays_asked_for_are_read(cache: Cache) -> None:
    arrays = cache.read("hidden", 0, ["position_offsets", "layer_04/values"])
    assert {name: array.shape for name, array in arrays.items()} == {
        "position_offsets": (3,),
        "layer_04/values": (4, 3),
    }


def test_unknown_field_shard_array_and_row_are_named_with_what_there_is(cache: Cache) -> None:
    with pytest.raises(MismatchError, match="no field attention; it has inputs, logits, hidden, hidden_uniform"):
        cache.read("attention", 0)
    for shard in (-1, 3):
        with pytest.raises(MismatchError, match=f"no shard {shard} of logits; it has 3"):
            cache.read("logits", shard)
    with pytest.raises(MismatchError, match="no array scores; it holds logits"):
        cache.read("logits", 0, ["scores"])
    for row in (-1, 5):
        with pytest.raises(MismatchError, match=f"no row {row}; it has 5"):
            cache.row(row)
    with pytest.raises(MismatchError, match="no field attention"):
        cache.constants("attention")


def test_constants_are_empty_where_there_are_none(cache: Cache) -> None:
    assert cache.constants("hidden") == {}


def test_num_bytes_is_the_size_of_the_shard_files(cache: Cache) -> None:
    for field in cache.fields:
        assert cache.num_bytes(field) == sum(path.stat().st_size for path in (cache.root / field).glob("*.zip"))


def test_every_row_is_put_together_from_its_shards(cache: Cache) -> None:
    rows = [cache.row(index) for index in range(cache.num_rows)]
    assert [row["row_id"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["label"] for row in rows] == [1, 0, 1, 0, 0]
    assert [row["input_ids"].tolist() for row in rows] == [
        [2, 4, 6, 3],
        [2, 5, 3],
        [2, 7, 4, 6, 3],
        [2, 3],
        [2, 7, 5, 3],
    ]
    assert [row["token_type_ids"].tolist() for row in rows[:2]] == [[0, 0, 1, 1], [0, 0, 1]]
    assert [row["logits"].tolist() for row in rows] == [[index + 0.5, -index] for index in range(5)]
    for index, row in enumerate(rows):
        assert row["hidden"].keys() == {2, 4}
        assert row["hidden"][4]["positions"].tolist() == [0, 1]
        assert row["hidden"][4]["values"].tolist() == [[-4 * index, index + 100, 127]] * 2
        assert row["hidden"][4].keys() == {"positions", "values", "scales", "bitmask"}
        assert row["hidden_uniform"][4]["values"].shape == (1, 3)
    assert rows[0].keys() == {"row_id", "label", "input_ids", "token_type_ids", "logits", "hidden", "hidden_uniform"}


def test_threads_may_read_at_once(cache: Cache) -> None:
    places = [(field, shard) for field in cache.fields for shard in range(3)] * 20
    alone = {place: cache.read(*place) for place in places}
    with ThreadPoolExecutor(8) as pool:
        for place, found in zip(places, pool.map(lambda place: cache.read(*place), places), strict=True):
            assert found.keys() == alone[place].keys()
            assert all(np.array_equal(found[name], alone[place][name]) for name in found)


@pytest.mark.parametrize("name", ["inputs/000001", "logits/000001", "hidden/000001", "hidden_uniform/constants"])
def test_no_flipped_byte_of_a_shard_is_read(root: Path, name: str) -> None:
    cache = open_cache(root)
    path = next(root.glob(f"{name}*.zarr.zip"))
    whole = path.read_bytes()
    field, shard = name.split("/")
    message = f"{field} constants" if shard == "constants" else f"{field} shard 1"
    for place in range(0, len(whole), 17):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamageError, match=f"{message}: {path} has another content than was written"):
            cache.constants(field) if shard == "constants" else cache.read(field, 1)


def test_cut_deleted_and_swapped_shards_are_named(root: Path) -> None:
    cache = open_cache(root)
    one, two, three = (shard_file(root, "inputs", shard) for shard in range(3))
    three.write_bytes(three.read_bytes()[:-1])
    with pytest.raises(DamageError, match=r"inputs shard 2: .*000002.*zarr.zip has \d+ bytes where \d+ were written"):
        cache.read("inputs", 2)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    for shard in (0, 1):
        with pytest.raises(DamageError, match=f"inputs shard {shard}: .*another content"):
            cache.read("inputs", shard)
    two.unlink()
    with pytest.raises(DamageError, match=r"inputs shard 1: .*000001.*zarr.zip is missing; fetch it again, mend it"):
        cache.read("inputs", 1)


def forged(root: Path, field: str, arrays: dict[str, np.ndarray]) -> Cache:
    """A cache whose first shard of a field is another, every digest and record made to fit, as a stranger can do."""
    cache = open_cache(root)
    ledger = Ledger(root)
    honest = cache.manifest.shards[field][0].arrays
    record = ledger.commit(field, 0, cache.shards[0], arrays)
    told = {name: info.model_copy(update={"shape": honest[name].shape}) for name, info in record.arrays.items()}
    ledger.record_path(field, 0).write_text(record.model_copy(update={"arrays": told}).model_dump_json())
    ledger.finish(cache.manifest.request, cache.fields, {})
    return open_cache(root)


def test_forged_shard_with_other_arrays_than_its_record_is_refused(grown: Path) -> None:
    cache = forged(grown, "logits", {"logits": np.zeros((1 << 20, 2), np.float32)})
    with pytest.raises(DamageError, match=r"logits shard 0: .* holds other arrays than its record says"):
        cache.read("logits", 0)


def test_forged_offsets_that_point_elsewhere_are_refused(grown: Path) -> None:
    arrays = open_cache(grown).read("inputs", 0)
    cache = forged(grown, "inputs", arrays | {"row_offsets": np.array([0, 1 << 40, 7])})
    with pytest.raises(DamageError, match="row_offsets does not divide input_ids into rows"):
        cache.read("inputs", 0)
    with pytest.raises(DamageError, match="row_offsets does not divide"):
        cache.read("inputs", 0, ["row_offsets"])


def test_a_cache_is_shown_by_its_id_its_rows_its_place_and_its_fields(cache: Cache) -> None:
    where, fields = cache.name, "inputs, logits, hidden, hidden_uniform"
    assert repr(cache) == f"<Cache {cache.id[:12]} of 5 rows in {where}: {fields}>"
