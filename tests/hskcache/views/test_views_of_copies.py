"""A view of fewer copies holds what a build of these rows alone stores, however the cache came by its rows."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commanded import parsed, refused, run

import hskcache
from hskcache.cache import Cache, open_cache
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.verify import verify

# Each row is a batch, so that the teacher gives the same bits whatever stands beside it.
KEEP = ("--keep", "3l", "--encoding", "float32", "--student-layers", "2", "--shard-rows", "7", "--token-budget", "1")
WORDS = ("film", "story", "cast", "plot")

Table = Callable[..., Path]
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def table(tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Table:
    """A table of 10 rows and up to 3 copies of each as augment writes it: of every third row copy 2 came out equal."""
    rows = [line.split("\t") for line in tsv_file.read_text().splitlines()[1:11]]
    folder = tmp_path_factory.mktemp("tables")

    def write(most: int, least: int = 0, name: str = "") -> Path:
        lines = [f"{text}\t{label}\t{row}\t0" for row, (text, label) in enumerate(rows) if least == 0]
        lines += [
            f"{text} {WORDS[copy]}{' indeed' * (row % 4)}\t{label}\t{row}\t{copy}"
            for row, (text, label) in enumerate(rows)
            for copy in range(max(least, 1), most + 1)
            if (row % 3, copy) != (0, 2)
        ]
        path = folder / f"{name or f'rows-{least}-{most}'}.tsv"
        path.write_text("\n".join(["sentence\tlabel\torigin\tcopy", *lines]) + "\n")
        return path

    return write


@pytest.fixture(scope="module")
def build(tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A cache of a table, by the command."""
    folder = tmp_path_factory.mktemp("caches")

    def make(data: Path, *flags: str, name: str | None = None) -> Path:
        out = folder / (name or data.stem)
        words = ("--teacher", tiny_teacher_dir, "--data", data, "--task", "sst2", *KEEP, *flags, "--out", out)
        assert run("build", *words).exit_code == 0
        return out

    return make


@pytest.fixture(scope="module")
def whole(table: Table, build: Build) -> Path:
    return build(table(3))


def assert_same_arrays(view: Cache, built: Cache) -> None:
    assert (view.fields, view.shards) == (built.fields, built.shards)
    for name in built.fields:
        for shard in range(len(built.shards)):
            ours, theirs = view.read(name, shard), built.read(name, shard)
            assert ours.keys() == theirs.keys()
            for key, array in theirs.items():
                assert array.dtype == ours[key].dtype
                np.testing.assert_array_equal(ours[key], array)


@pytest.mark.parametrize(("copies", "num_rows"), [(0, 10), (1, 20), (2, 26)])
def test_fewer_copies_are_what_a_build_of_them_stores(
    copies: int, num_rows: int, whole: Path, table: Table, build: Build, tmp_path: Path
) -> None:
    built = open_cache(build(table(copies)))
    view = open_cache(whole).view(copies=copies)
    assert view.num_rows == num_rows
    assert_same_arrays(view, built)
    assert view.manifest.agreement == built.manifest.agreement
    assert view.manifest.request.data.copies == built.manifest.request.data.copies
    assert run("extract", whole, "--view", f"copies={copies}", "--out", tmp_path / "c").exit_code == 0
    assert_same_arrays(open_cache(tmp_path / "c"), built)
    # It is a cache with copies as any other.
    assert open_cache(tmp_path / "c").view("copies=0").num_rows == 10


def test_all_copies_are_the_cache_itself_and_other_parts_go_with_fewer(whole: Path) -> None:
    cache = open_cache(whole)
    assert cache.view("copies=3").id == cache.id
    view = cache.view("copies=1,1l,fields=hidden")
    assert (view.num_rows, list(view.fields)) == (20, ["inputs", "hidden"])
    assert cache.view("copies=1,rows=7:36").num_rows == 13
    assert cache.view("copies=1,rows=7:36").manifest.request.data.copies == [3, 10]
    assert cache.view("rows=14:36").manifest.request.data.copies == [0, 6, 6, 10]
    assert cache.view("copies=1,rows=12").num_rows == 12
    assert len({cache.view(text).id for text in ("copies=0", "copies=1", "copies=2", "copies=3")}) == 4
    assert str(cache.view("copies=0").shelf.name).startswith("the view copies=0 of ")


def test_readers_are_told_whose_copies_rows_are(whole: Path, tmp_path: Path) -> None:
    facts = parsed("view", whole, 12)
    assert (facts["copy"], facts["origin"]) == (1, 2)
    assert "row 12  copy 1 of row 2  label" in run("view", whole, 12).stdout
    assert "copy" not in run("view", whole, 2).stdout
    assert "copies     10 originals and 26 copies, up to 3 of a text" in run("info", whole).stdout
    cache = hskcache.open_cache(whole)
    assert cache.column("copy").tolist() == [0] * 10 + [1] * 10 + [2] * 6 + [3] * 10
    assert cache.column("origin").tolist() == [*range(10), *range(10), 1, 2, 4, 5, 7, 8, *range(10)]
    assert cache[21]["copy"] == 2
    assert verify(whole).ok
    assert run("export", whole, tmp_path / "c.h5").exit_code == 0
    assert run("import", tmp_path / "c.h5", tmp_path / "c").exit_code == 0
    again = open_cache(tmp_path / "c")
    assert again.id == cache.id
    assert again.view(copies=1).id == cache.view(copies=1).id


def test_the_labels_of_copies_say_nothing_of_the_teacher(whole: Path, table: Table, build: Build) -> None:
    agreement = open_cache(whole).manifest.agreement["logits"]
    plain = build(table(0), "--copy", "", name="plain")
    assert agreement == open_cache(plain).manifest.agreement["logits"]
    assert parsed("info", whole)["agreement"]["logits"]["num_rows"] == 10


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("copies=4", "4 copies of a row are asked for, and .* has 3"),
        ("copies=0,rows=14:20", "has 10 rows with copies=0, and none from 14 on"),
        ("copies=some", "'some' is not a number"),
        ("copis=1", "there is no part copis; .* do you mean 'copies'"),
    ],
)
def test_copies_that_there_are_not_are_refused(view: str, words: str, whole: Path) -> None:
    with pytest.raises(CacheError, match=words):
        open_cache(whole).view(view)


def test_a_cache_that_knows_of_no_copies_says_what_to_build(table: Table, build: Build) -> None:
    # As every build before copies were known, and any of a table of other columns.
    old = build(table(3), "--copy", "", name="old")
    cache = open_cache(old)
    assert cache.column("label").tolist() != open_cache(build(table(3))).column("label").tolist()
    with pytest.raises(MismatchError, match="does not know which of its rows are copies; build it of a table"):
        cache.view(copies=1)
    # What was begun without them goes on so, with or without the option.
    before = cache.id
    assert open_cache(build(table(3), name="old")).id == before


def test_rows_that_are_appended_keep_to_the_order_or_are_not_seen_apart(
    table: Table, build: Build, tiny_teacher_dir: Path, whole: Path, tmp_path: Path
) -> None:
    def appended(root: Path, *words: object) -> Cache:
        assert run("append", root, "--teacher", tiny_teacher_dir, "--data", *words).exit_code == 0
        return open_cache(root)

    originals = Path(shutil.copytree(build(table(0)), tmp_path / "originals"))
    grown = appended(originals, table(2, least=1))
    assert [grown.view(copies=number).num_rows for number in (0, 1, 2)] == [10, 20, 26]
    # The table of copies alone does not hold their originals.
    assert set(grown.column("origin")[10:].tolist()) == {-1}
    assert "copy 1 of an unknown row" in run("view", originals, 12).stdout
    both = Path(shutil.copytree(whole, tmp_path / "both"))
    grown = appended(both, table(1, name="more"), "--again")
    assert grown.view(copies=3).num_rows == 56
    assert grown.column("origin")[-10:].tolist() == list(range(36, 46))
    with pytest.raises(MismatchError, match="had rows appended after copies that a view of 1 leaves out"):
        grown.view(copies=1)
    plain = tmp_path / "plain.tsv"
    plain.write_text("sentence\tlabel\nthe film is warm and long\t1\n")
    line = refused("append", whole, "--teacher", tiny_teacher_dir, "--data", plain)
    assert "lack the numbers of copies that --copy names" in line


def test_numbers_of_copies_that_no_row_can_have_are_damage(whole: Path) -> None:
    cache = open_cache(whole)
    data = cache.manifest.request.data.model_copy(update={"copies": [36]})
    edited = cache.manifest.model_copy(update={"request": cache.manifest.request.model_copy(update={"data": data})})
    with pytest.raises(DamageError, match="copies holds 2, of 1 numbers of copies"):
        Cache(edited, cache.shelf).read("inputs", 2)


def test_a_field_is_added_to_rows_with_copies(whole: Path, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "c"))
    words: tuple[Any, ...] = ("--teacher", tiny_teacher_dir, "--add-field", "logits", "--name", "second", "--out", root)
    assert run("build", *words).exit_code == 0
    cache = open_cache(root)
    assert cache.manifest.agreement["second"] == cache.manifest.agreement["logits"]
    assert cache.view(copies=1).manifest.agreement.keys() == {"logits", "second"}
    np.testing.assert_array_equal(cache.view(copies=1).logits(), cache.view(copies=1).logits(field="second"))
