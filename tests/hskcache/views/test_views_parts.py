"""Views of some rows and fields; and what a view is called, holds at most, and shares with the cache that it is of."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.append import append
from hskcache.build.build import build
from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError
from hskcache.spec import Attention, Depth, Length
from hskcache.teacher.load import Teacher
from hskcache.text import Examples

VIEWS = ["1l", "3t", "2l_3t_0.25h", "attention=1l_2t", "rows=10", "rows=8:21,3t", "fields=hidden,1l_0.25h", "full"]


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What the cache keeps: everything that is narrowed without a loss of digits."""
    attention = Attention(depth=Depth(student_layers=2), length=Length(tokens=6), encoding="float16")
    return {"keep": "3l_6t_0.5h", "encoding": "float32", "attention": attention}


@pytest.fixture(scope="module")
def whole(job_of: Any, kept: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Cache:
    out = tmp_path_factory.mktemp("whole") / "c"
    build(job_of(**kept), out)
    return open_cache(out)


def rows_of(cache: Cache, start: int, stop: int) -> list[dict[str, Any]]:
    return [plain(cache.row(row)) for row in range(start, stop)]


def plain(value: Any) -> Any:
    """Arrays as lists, so that rows can be compared."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (0, 8), (8, 21), (36, 40), (0, 1)])
def test_some_rows_are_those_of_the_cache(whole: Cache, start: int, stop: int) -> None:
    view = whole.view(rows=(start, stop))
    assert view.num_rows == stop - start
    assert view.shards[-1][1] == stop - start
    assert rows_of(view, 0, stop - start) == rows_of(whole, start, stop)
    assert view.manifest.part is not None
    assert (view.manifest.part.cache_id, view.manifest.first_row) == (whole.id, start)


def test_rows_of_a_cache_that_has_grown_begin_with_any_of_its_shards(
    whole: Cache, job_of: Any, kept: dict[str, Any], more: Examples, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(whole.root, tmp_path / "c"))
    append(job_of(rows=more, **kept), open_cache(root))
    grown = open_cache(root)
    view = grown.view("2t", rows=(36, 47))
    assert view.shards == [(0, 4), (4, 8), (8, 11)]
    assert rows_of(view, 0, 11) == rows_of(grown.view("2t"), 36, 47)


def test_fields_that_are_left_out_are_not_asked_for(whole: Cache, job_of: Any, tmp_path: Path) -> None:
    build(job_of("3l_6t_0.5h"), tmp_path / "c")
    built = open_cache(tmp_path / "c")
    view = whole.view(fields=["logits", "hidden"])
    assert view.manifest.request == built.manifest.request
    assert (view.fields, view.manifest.part) == (built.fields, None)
    # No build leaves out the logits.
    part = whole.view(fields=["hidden"])
    assert list(part.fields) == ["inputs", "hidden"]
    assert part.manifest.part is not None


def test_fields_of_other_teachers_are_narrowed_too(whole: Cache, other: Teacher, spec_of: Any, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole.root, tmp_path / "c"))
    for name, keep in (("more", "2l_5t_0.5h"), ("less", "1l_2t_0.25h")):
        add_field(prepare_addition(other, open_cache(root), "hidden", name, spec_of(keep)))
    cache = open_cache(root)
    view = cache.view("1l_2t_0.25h", fields=["more", "less"])
    assert view.fields["more"] == view.fields["less"]
    for shard in range(len(view.shards)):
        more, less = view.read("more", shard), view.read("less", shard)
        assert plain(more) == plain(less)
    assert view.manifest.added["more"].identity == cache.manifest.added["less"].identity


@pytest.mark.parametrize("text", VIEWS)
def test_some_arrays_are_those_of_all(whole: Cache, text: str) -> None:
    view = whole.view(text)
    for name in view.fields:
        for shard in range(len(view.shards)):
            everything = view.read(name, shard)
            for array in everything:
                assert np.array_equal(view.read(name, shard, [array])[array], everything[array])


@pytest.mark.parametrize("text", VIEWS)
def test_records_tell_how_much_there_is_at_most(whole: Cache, text: str) -> None:
    view = whole.view(text)
    for name in view.fields:
        records = view.manifest.shards[name]
        most = dict(records.array_bytes)
        for shard, record in enumerate(records):
            assert (record.shard, record.start, record.stop) == (shard, *view.shards[shard])
            arrays = view.read(name, shard)
            assert arrays.keys() == record.arrays.keys()
            for array, stored in arrays.items():
                info = record.arrays[array]
                assert info.dtype == stored.dtype.name
                assert stored.shape[1:] == tuple(info.shape[1:])
                assert stored.shape[0] <= info.shape[0]
                most[array] -= stored.nbytes
        assert min(most.values()) >= 0
        assert 0 < records.num_bytes <= whole.manifest.shards[name].num_bytes


def test_a_view_of_everything_is_the_cache(whole: Cache) -> None:
    for text in ("", "full", "3l_6t_0.5h", "rows=40", "fields=inputs+logits+hidden+attention", "attention=6t"):
        assert whole.view(text).id == whole.id


def test_views_are_told_apart_by_what_they_see_and_of_what(
    whole: Cache, job_of: Any, more: Examples, tmp_path: Path
) -> None:
    build(job_of(keep="3l_6t_0.5h", rows=more), tmp_path / "c")
    other = open_cache(tmp_path / "c")
    views = [whole.view(text) for text in VIEWS] + [other.view("1l"), whole.view("rows=4:14")]
    assert len({view.id for view in views}) == len(views)
    assert len({view.identity(["inputs", "hidden"]) for view in views}) == len(views)
    assert whole.view("2l").view("1l_5t").fields == whole.view("1l_5t").fields
    assert whole.view("1l").id == open_cache(whole.root).view(layers=1).id


def test_a_field_that_is_added_leaves_the_views_of_others_what_they_are(
    whole: Cache, other: Teacher, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(whole.root, tmp_path / "c"))
    before = open_cache(root).view("1l").identity(["inputs", "hidden", "logits"])
    add_field(prepare_addition(other, open_cache(root), "logits", "more"))
    assert open_cache(root).view("1l").identity(["inputs", "hidden", "logits"]) == before


def test_a_view_of_a_view_is_that_of_the_cache(whole: Cache) -> None:
    twice, once = whole.view("2l_5t").view("1l_3t_0.25h", rows=9), whole.view("1l_3t_0.25h", rows=9)
    assert rows_of(twice, 0, 9) == rows_of(once, 0, 9)


def test_rows_that_are_left_out_stay_left_out(whole: Cache) -> None:
    """Of skipped rows nothing is known, whatever the view."""
    records = [record.model_copy(update={"skipped": []}) for record in whole.manifest.shards["hidden"]]
    skipped = type(records[0]).model_validate(
        records[2].model_dump() | {"skipped": [{"row": 9, "reason": "nonfinite"}, {"row": 11, "reason": "nonfinite"}]}
    )
    manifest = whole.manifest.with_records({"hidden": [*records[:2], skipped, *records[3:]]})
    cache = Cache(manifest, whole.shelf)
    assert cache.view("1l").skipped(["hidden"]).tolist() == [9, 11]
    assert cache.view(rows=(4, 11)).skipped(["hidden"]).tolist() == [5]
    assert [one.row for one in cache.view(rows=(4, 11)).manifest.shards["hidden"][1].skipped] == [5]


def test_damage_of_the_cache_is_told_by_the_file(whole: Cache, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole.root, tmp_path / "c"))
    view = open_cache(root).view("1l_2t_0.25h,rows=8:20")
    path = next((root / "hidden").glob("000003*.zarr.zip"))
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    view.read("hidden", 0)
    with pytest.raises(DamageError, match=f"hidden shard 1: {path} has another content"):
        view.read("hidden", 1)
