"""``hskcache extract`` writes of a view what a build of it writes, goes on where it was cut off, and mixes nothing."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import contents
from forked import in_child
from sharing import done, hskcache, refused

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.build import build
from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError, MismatchError
from hskcache.move.extract import extract
from hskcache.spec import Attention, Depth, Length
from hskcache.store.ledger import Ledger
from hskcache.store.survey import EXTRACTING
from hskcache.teacher.load import Teacher
from hskcache.verify import verify

Make = Callable[..., Cache]


@pytest.fixture(scope="module")
def cache_of(job_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Make:
    def make(keep: str, **given: Any) -> Cache:
        out = tmp_path_factory.mktemp("extract") / "c"
        build(job_of(keep, **given), out)
        return open_cache(out)

    return make


def attention(layers: int | None = None) -> Attention:
    return Attention(depth=Depth(student_layers=2, num_layers=layers), length=Length(tokens=6))


@pytest.fixture(scope="module")
def whole(cache_of: Make) -> Cache:
    return cache_of("40t", encoding="int8", attention=attention())


@pytest.fixture(scope="module")
def wide(cache_of: Make) -> Cache:
    return cache_of("40t")


def shard_digests(root: Path) -> dict[str, str]:
    return {record.path: record.sha256 for record in open_cache(root).manifest.records}


@pytest.mark.parametrize(
    ("kind", "view", "keep", "given"),
    [
        ("int8", "1l_5t,attention=1l", "1l_5t", {"encoding": "int8", "attention": attention(1)}),
        ("int8", "2l_1t", "2l_1t", {"encoding": "int8", "attention": attention()}),
        ("int8", "fields=logits+hidden,3t", "3t", {"encoding": "int8"}),
        ("int8", "fields=logits", "none", {}),
        ("int8", "full", "40t", {"encoding": "int8", "attention": attention()}),
        ("float32", "1l_5t_0.3h", "1l_5t_0.3h", {}),
        ("float32", "0.03h", "40t_0.03h", {}),
        ("uniform", "1l_3t_0.25h", "1l_3t_0.25h", {"encoding": "float16", "width__scheme": "uniform"}),
        ("pca", "1l", "1l_6t_0.25h", {"encoding": "int8", "width__scheme": "pca"}),
        (
            "all",
            "1l_5t_0.25h,score=left,columns=uniform,encoding=int8",
            "1l_5t_0.25h",
            {"encoding": "int8", "width__scheme": "uniform", "length__score": "left"},
        ),
        ("all", "2l_9t_0.3h,specials=no,encoding=int4", "2l_9t_0.3h", {"encoding": "int4", "length__specials": False}),
    ],
)
def test_bytes_are_those_that_a_build_writes(
    kind: str, view: str, keep: str, given: dict[str, Any], whole: Cache, wide: Cache, cache_of: Make, tmp_path: Path
) -> None:
    sources: dict[str, Callable[[], Cache]] = {
        "int8": lambda: whole,
        "all": lambda: cache_of("48t"),
        "float32": lambda: wide,
        "uniform": lambda: cache_of("6t_0.5h", encoding="float16", width__scheme="uniform"),
        "pca": lambda: cache_of("6t_0.25h", encoding="int8", width__scheme="pca"),
    }
    built, out = cache_of(keep, **given), tmp_path / "new"
    result = extract(sources[kind]().view(view), out)
    assert shard_digests(out) == shard_digests(built.root)
    assert result.manifest.cache_id == built.id
    assert (result.num_written, result.num_kept) == (built.manifest.num_records, 0)
    assert verify(out).ok
    assert verify(out, deep=True).ok
    # Every file, and the manifest but for what made it.
    assert contents(out) == contents(built.root)


def test_some_rows_and_fields_of_other_teachers_are_a_part(whole: Cache, other: Teacher, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole.root, tmp_path / "c"))
    add_field(prepare_addition(other, open_cache(root), "logits", "more"))
    view = open_cache(root).view("2t,rows=8:21,fields=hidden+more")
    extract(view, tmp_path / "new")
    new = open_cache(tmp_path / "new")
    assert verify(new.root, deep=True).ok
    assert (list(new.fields), new.num_rows, new.manifest.first_row) == (["inputs", "hidden", "more"], 13, 8)
    for name in new.fields:
        for shard in range(len(new.shards)):
            ours, theirs = new.read(name, shard), view.read(name, shard)
            assert {key: array.tolist() for key, array in ours.items()} == {
                key: array.tolist() for key, array in theirs.items()
            }
    assert new.manifest.added["more"].teacher == open_cache(root).manifest.added["more"].teacher


def test_a_finished_one_is_left_as_it_is_and_another_is_refused(whole: Cache, wide: Cache, tmp_path: Path) -> None:
    out = tmp_path / "new"
    extract(whole.view("1l_5t"), out)
    before = contents(out)
    again = extract(whole.view("1l_5t"), out)
    assert (again.num_written, again.num_kept) == (0, again.manifest.num_records)
    for other in (whole.view("1l_4t"), wide.view("1l_5t"), whole, whole.view("1l_5t,rows=8")):
        with pytest.raises(MismatchError, match="holds something else"):
            extract(other, out)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(MismatchError, match="choose another folder or empty it"):
        extract(whole.view("1l_5t"), tmp_path / "notes")
    assert contents(out) == before


def test_a_killed_one_goes_on_and_is_no_other_s(whole: Cache, tmp_path: Path) -> None:
    expected, out = tmp_path / "expected", tmp_path / "new"
    view = whole.view("1l_5t_0.5h")
    extract(view, expected)

    def killed() -> None:
        num_done = 0

        def count(_num_bytes: int, _total: int) -> None:
            nonlocal num_done
            num_done += 1
            if num_done == 7:
                os.kill(os.getpid(), signal.SIGKILL)

        extract(view, out, count)

    assert in_child(killed) == -signal.SIGKILL
    assert (out / EXTRACTING).exists()
    with pytest.raises(MismatchError):
        Ledger(out).begin(view.manifest.request)
    with pytest.raises(MismatchError, match="holds something else"):
        extract(whole.view("1l_4t_0.5h"), out)
    result = extract(view, out)
    assert (result.num_kept, result.num_written + 7) == (7, result.manifest.num_records)
    assert contents(out) == contents(expected)


def test_damage_of_the_cache_ends_it_and_what_was_whole_is_kept(whole: Cache, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole.root, tmp_path / "c"))
    path = next((root / "hidden").glob("000003*.zarr.zip"))
    data = path.read_bytes()
    path.write_bytes(bytes(byte ^ 1 for byte in data))
    with pytest.raises(DamageError, match=f"hidden shard 3: {path}"):
        extract(open_cache(root).view("2t"), tmp_path / "new")
    path.write_bytes(data)
    result = extract(open_cache(root).view("2t"), tmp_path / "new")
    assert 0 < result.num_kept < result.manifest.num_records
    assert verify(tmp_path / "new").ok


def test_the_command_tells_what_it_did(whole: Cache, tmp_path: Path) -> None:
    command = ["extract", whole.root, "--view", "1l_5t", "--out", tmp_path / "new"]
    told = done(*command)
    new = open_cache(tmp_path / "new")
    assert told["cache_id"] == new.id
    assert (told["view"], told["extracted_from"]) == ("1l_5t", str(whole.root))
    assert (told["num_written"], told["num_kept"], told["num_rows"]) == (new.manifest.num_records, 0, 40)
    again = hskcache(*command)
    assert (again.exit_code, again.stdout, "is already complete" in again.stderr) == (0, "", True)
    assert "the view '1x'" in refused(*command[:2], "--view", "1x", "--out", tmp_path / "other")
    assert "holds something else" in refused("extract", whole.root, "--out", tmp_path / "new")
    assert not (tmp_path / "other").exists()
