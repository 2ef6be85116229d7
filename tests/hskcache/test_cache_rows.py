"""Some rows of a cache are what the cache says of each of them, in the order asked for."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import shard_file

from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError, MismatchError
from hskcache.rows import by_shard, join, read_rows, take
from hskcache.store.row_ranges import RowRanges

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CACHES = {name: open_cache(GOLDEN / f"{name}.hsk") for name in ("tiny", "corpus", "added")}


def row_of(cache: Cache, name: str, row: int) -> dict[str, np.ndarray]:
    """One row's part of every array of a field, from the cache's own view of it."""
    found = cache.row(row)
    if name == "inputs":
        return {key: found[key] for key in ("input_ids", "token_type_ids") if key in found}
    stored = found["added"][name] if name in cache.manifest.added else found[name]
    if isinstance(stored, np.ndarray):
        return {"logits": stored[None]}
    return {f"layer_{layer:02d}/{key}": array for layer, arrays in stored.items() for key, array in arrays.items()}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_of_any_shards_are_those_of_the_cache_one_after_the_other(data: st.DataObject) -> None:
    cache = CACHES[data.draw(st.sampled_from(sorted(CACHES)))]
    name = data.draw(st.sampled_from(sorted(cache.fields)))
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, cache.num_rows - 1), min_size=1))))
    found = read_rows(cache, name, rows)
    expected = [row_of(cache, name, int(row)) for row in rows]
    for key in expected[0]:
        assert np.array_equal(found[key], np.concatenate([one[key] for one in expected]))
        assert found[key].dtype == cache.read(name, 0)[key].dtype
    if name == "inputs":
        assert found["row_ids"].tolist() == rows.tolist()
        assert np.diff(found["row_offsets"]).tolist() == [len(one["input_ids"]) for one in expected]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_rows_of_a_shard_can_be_taken_in_any_order_and_put_together_again(data: st.DataObject) -> None:
    cache = CACHES[data.draw(st.sampled_from(sorted(CACHES)))]
    name = data.draw(st.sampled_from(sorted(cache.fields)))
    arrays, field = cache.read(name, 0), cache.fields[name]
    order = np.array(data.draw(st.permutations(range(cache.shards[0][1]))), np.int64)
    shuffled = join([take(field, arrays, order[:1]), take(field, arrays, order[1:])])
    again = take(field, shuffled, np.argsort(order))
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[key], arrays[key]) for key in arrays)


def test_shards_that_hold_none_of_the_rows_are_left_out() -> None:
    shards = RowRanges([8, 1], 4)
    assert list(by_shard(shards, np.array([0, 3, 8]))) == [(0, slice(0, 2)), (2, slice(2, 3))]
    assert list(by_shard(shards, np.array([4, 5]))) == [(1, slice(0, 2))]


def test_what_is_read_is_verified(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN / "tiny.hsk", tmp_path / "c"))
    cache = open_cache(root)
    with pytest.raises(MismatchError, match="has no field x"):
        read_rows(cache, "x", np.array([0]))
    path = shard_file(root, "logits", 0)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamageError, match="logits shard 0"):
        read_rows(cache, "logits", np.array([0]))
