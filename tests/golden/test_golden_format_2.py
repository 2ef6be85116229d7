"""What was written in version 2 of the format is read for ever, and holds what the same caches of version 1 hold."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hskcache.cache import open_cache
from hskcache.compare.difference import difference
from hskcache.move.upgrade import upgrade
from hskcache.store.version2 import VERSION_2
from hskcache.verify import verify

FOLDER = Path(__file__).resolve().parent
# By name, the id in version 1 and in version 2.
IDS = {
    "added": (
        "1736d4a4a364",
        "9bbbcd168ea1",
    ),
    "corpus": ("939e5c248ab2", "4c9892533750"),
    "grown": ("4f2435d4ce52", "3fac42ba1b1d"),
    "tiny": ("6eb1c9a13203", "0e5b3437b0ad"),
}
# Of the upgrade of today, whose shards tell what their arrays hold.
UPGRADED_IDS = {"added": "b78e5a41c913", "corpus": "cf44d002d74c", "grown": "bb71233b381f", "tiny": "207c81fa1d08"}


def test_no_golden_cache_of_either_version_is_missing() -> None:
    names = {path.name for path in FOLDER.glob("*.hsk")}
    assert names == {f"{name}{version}.hsk" for name in IDS for version in ("", "-2")}


@pytest.mark.parametrize("name", IDS)
def test_every_byte_is_as_it_was_written_and_the_ids_are_what_they_were(name: str) -> None:
    for version, suffix in enumerate(("", "-2")):
        root = FOLDER / f"{name}{suffix}.hsk"
        assert verify(root, deep=True).problems == []
        cache = open_cache(root)
        assert (cache.id[:12], cache.manifest.format_version) == (IDS[name][version], version + 1)


@pytest.mark.parametrize("name", IDS)
def test_both_versions_hold_the_same_rows_and_values(name: str) -> None:
    old, new = (open_cache(FOLDER / f"{name}{suffix}.hsk") for suffix in ("", "-2"))
    assert new.manifest.upgraded_from == old.id
    assert (new.shards, new.fields) == (old.shards, old.fields)
    for row in range(old.num_rows):
        np.testing.assert_equal(new.row(row), old.row(row))
    for field in old.fields:
        np.testing.assert_equal(new.constants(field), old.constants(field))
    assert difference(old, new).same


@pytest.mark.parametrize("name", IDS)
def test_an_upgrade_gives_what_it_gave_but_for_what_shards_now_tell(name: str, tmp_path: Path) -> None:
    done = upgrade(FOLDER / f"{name}.hsk", tmp_path / "c")
    assert done.manifest.cache_id.startswith(UPGRADED_IDS[name])
    found, golden = open_cache(tmp_path / "c"), open_cache(FOLDER / f"{name}-2.hsk")
    assert difference(golden, found).same
    assert (tmp_path / "c" / "tokenizer").is_dir() == (golden.root / "tokenizer").is_dir()


@pytest.mark.parametrize("name", IDS)
def test_shards_are_packed_in_the_form_in_which_they_were_written(name: str) -> None:
    """Else what is lost of a cache from before shards told what they hold could not be made again."""
    cache = open_cache(FOLDER / f"{name}-2.hsk")
    for field, records in cache.manifest.shards.items():
        for record in records:
            arrays, written = cache.read(field, record.shard), (cache.root / record.path).read_bytes()
            assert VERSION_2.pack(arrays, record.sha256) == written
            assert VERSION_2.pack(arrays) != written


def test_a_page_of_the_guide_that_is_read_word_for_word_finds_an_array(tmp_path: Path) -> None:
    """As another program reads it: JSON, a line of a page, a range of a file, and the zip entries within."""
    import hashlib

    root = FOLDER / "tiny-2.hsk"
    manifest = json.loads((root / "manifest.json").read_bytes())
    assert (root / "manifest.copy.json").read_bytes() == (root / "manifest.json").read_bytes()
    (page,) = manifest["index"]["logits"]
    data = (root / "logits" / "index" / page["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == page["sha256"]
    record = [json.loads(line) for line in data.splitlines()][1]
    assert (record["start"], record["stop"]) == (2, 4)
    shard = (root / "logits" / record["file"]).read_bytes()
    assert hashlib.sha256(shard).hexdigest() == record["sha256"]
    info = record["arrays"]["logits"]
    part = shard[info["offset"] : info["offset"] + info["num_bytes"]]
    assert hashlib.sha256(part).hexdigest() == info["sha256"]
    import zarr

    shutil.copy(root / "logits" / record["file"], tmp_path / "s.zip")
    group = zarr.open_group(zarr.storage.ZipStore(tmp_path / "s.zip", mode="r"), mode="r")
    assert group["logits"].metadata.dimension_names == ("row", "class")
    np.testing.assert_array_equal(group["logits"][:], open_cache(root).read("logits", 1)["logits"])
