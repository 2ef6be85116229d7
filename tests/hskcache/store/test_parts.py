"""Rows that were appended, parts of a cache, rows that were left out, and the manifest's checksum of itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored import shard_file

from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError, MismatchError
from hskcache.store.consistency import parse_manifest
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Manifest, Request
from hskcache.store.record import Skipped

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "tiny.hsk"
CACHE = open_cache(GOLDEN)
MANIFEST, REQUEST = CACHE.manifest, CACHE.manifest.request


def in_parts(sizes: list[int], shard_rows: int) -> Request:
    first, *others = (REQUEST.data.model_copy(update={"num_rows": size, "name": f"part {size}"}) for size in sizes)
    return REQUEST.model_copy(update={"data": first, "appended": others, "shard_rows": shard_rows})


def skipping(rows: list[int]) -> Manifest:
    """The golden cache as if the second shard of its logits, rows 2 and 3, left some rows out."""
    first, second, *others = MANIFEST.shards["logits"]
    left_out = second.model_copy(update={"skipped": [Skipped(row=row, reason="nonfinite") for row in rows]})
    return MANIFEST.with_records({"logits": [first, left_out, *others]}).signed()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 12))
def test_every_part_has_shards_of_its_own(sizes: list[int], shard_rows: int) -> None:
    request = in_parts(sizes, shard_rows)
    assert [row for start, stop in request.shards for row in range(start, stop)] == list(range(sum(sizes)))
    assert request.num_shards == len(request.shards)
    assert [request.shards[shard] for shard in range(request.num_shards)] == request.shards
    begins = {0, *np.cumsum(sizes).tolist()}
    assert begins <= {0, *(stop for _, stop in request.shards)}


def test_what_was_appended_decides_the_digest_but_its_name_does_not() -> None:
    digests = [in_parts(sizes, 2).digest for sizes in ([5], [5, 4], [5, 4, 3], [5, 3, 4], [9])]
    assert len(set(digests)) == len(digests)
    named = REQUEST.model_copy(update={"appended": [REQUEST.data.model_copy(update={"name": "other", "task": None})]})
    assert named.digest == REQUEST.model_copy(update={"appended": [REQUEST.data]}).digest


@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(1, 7), st.data())
def test_a_part_between_shards_has_the_same_shards(sizes: list[int], shard_rows: int, data: st.DataObject) -> None:
    request = in_parts(sizes, shard_rows)
    first = data.draw(st.integers(0, request.num_shards - 1))
    last = data.draw(st.integers(first, request.num_shards - 1))
    start, stop = request.shards[first][0], request.shards[last][1]
    found = request.between(start, stop).shards
    assert found == [(begin - start, end - start) for begin, end in request.shards[first : last + 1]]


def test_a_subset_is_a_cache_of_its_own(tmp_path: Path) -> None:
    part = MANIFEST.subset(["logits"], range(1, 3))
    assert part.edits() == []
    assert part.cache_id not in {MANIFEST.cache_id, MANIFEST.subset(["logits"]).cache_id}
    assert part.part is not None
    assert (part.part.cache_id, part.part.start, part.part.stop) == (MANIFEST.cache_id, 2, 5)
    for name in part.fields:
        for shard in range(2):
            ledger = Ledger(tmp_path)
            data = shard_file(GOLDEN, name, shard + 1).read_bytes()
            shard_file(ledger.root, name, shard).parent.mkdir(exist_ok=True)
            shard_file(ledger.root, name, shard).write_bytes(data)
    (tmp_path / "manifest.json").write_bytes(part.to_json())
    opened = open_cache(tmp_path)
    assert opened.num_rows == 3
    for row in range(3):
        found, whole = opened.row(row), CACHE.row(row + 2)
        assert found["row_id"] == whole["row_id"]
        assert np.array_equal(found["logits"], whole["logits"])
        assert np.array_equal(found["input_ids"], whole["input_ids"])


def test_a_part_of_a_part_tells_of_the_whole() -> None:
    part = MANIFEST.subset(["logits"], range(1, 3)).subset([], range(1, 2))
    assert part.part is not None
    assert (part.part.cache_id, part.part.start, part.part.stop) == (MANIFEST.cache_id, 4, 5)
    assert list(part.fields) == ["inputs"]


def test_all_of_a_cache_is_the_cache_and_none_of_it_is_refused() -> None:
    assert MANIFEST.subset(MANIFEST.fields) is MANIFEST
    with pytest.raises(MismatchError, match="no field s30; there are inputs"):
        MANIFEST.subset(["s30"])
    for shards in (range(2, 2), range(1, 9)):
        with pytest.raises(MismatchError, match="there are no shards"):
            MANIFEST.subset([], shards)


def test_rows_that_were_left_out_are_told_and_belong_to_the_id() -> None:
    manifest = parse_manifest(skipping([2, 3]).to_json(), "manifest.json")
    assert manifest.cache_id != MANIFEST.cache_id
    cache = Cache(manifest, CACHE.shelf)
    assert cache.skipped(["logits", "inputs"]).tolist() == [2, 3]
    assert cache.skipped(["inputs"]).tolist() == []
    moved = manifest.subset(["logits"], range(1, 3))
    assert [one.row for one in moved.shards["logits"][0].skipped] == [0, 1]


@pytest.mark.parametrize("rows", [[1], [4], [3, 2], [2, 2]])
def test_rows_of_other_shards_cannot_be_left_out(rows: list[int]) -> None:
    with pytest.raises(DamageError, match="logits shard 1 leaves out rows"):
        parse_manifest(skipping(rows).to_json(), "manifest.json")


def read_changed(data: bytes, place: int, bit: int) -> None:
    """Read a manifest of which one bit was flipped, as :meth:`Ledger.intact` does."""
    changed = data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]
    if edits := parse_manifest(changed, "manifest.json").edits():
        raise DamageError(edits[0])


def test_no_bit_of_a_manifest_changes_unseen() -> None:
    """Names and versions too, which no digest covers."""
    data = MANIFEST.to_json()
    for place in range(0, len(data), 7):
        for bit in range(8):
            with pytest.raises((DamageError, MismatchError)):
                read_changed(data, place, bit)


def edited(document: dict[str, Any]) -> bytes:
    document["request"]["teacher"]["name"] = "another"
    return json.dumps(document, indent=1).encode() + b"\n"


def test_a_name_that_was_edited_is_found_by_the_checksum() -> None:
    document = json.loads(MANIFEST.to_json())
    with pytest.raises(DamageError, match="was edited or damaged: its checksum differs"):
        parse_manifest(edited(document), "manifest.json")
    del document["checksum"]
    assert parse_manifest(edited(document), "manifest.json").request.teacher.name == "another"
